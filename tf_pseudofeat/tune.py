"""A recipe that chooses itself."""

import numbers

from tf_pseudofeat.job import check_job
from tf_pseudofeat.search import search_recipe

__all__ = ["tune"]


def tune(
    model,
    layer,
    data,
    validation_data=None,
    *,
    extraction=None,
    time_budget=60.0,
    seed=(1, 2),
    verbose="auto",
    **options,
):
    """Tries recipes of `retrain_head`, and leaves the model as it is.

    The features are extracted once; each trial trains the head for seconds. It is
    judged by balanced accuracy on the validation data, without them on an augmented
    view that was held out, and without views on held-out features; see
    `search_recipe` for the rule. The test set has no part in it.

    Args:
        model: see `retrain_head`, as for all that is not named here.
        validation_data: data to judge by. Whoever chooses by them cannot test by them.
        time_budget: seconds after which no further head is trained.
        seed: two whole numbers. It fixes each trial, but not how many `time_budget`
            leaves time for.
        verbose: 0 for silence; otherwise progress bars.
        **options: fields of `Extraction`, and those of `HeadRecipe` that are not
            searched for, such as `epochs`.

    Returns:
        tuning: `Tuning`; prints as the table of what was tried.

    Raises:
        ValueError: `time_budget` is no number from 0; see `retrain_head`.

    Example:

    >>> tuning = tune(model, "features", train_ds, val_ds)
    >>> print(tuning)
    >>> retrain_head(model, "features", train_ds, recipe=tuning.recipe)

    Where `tuning.chosen["on_views"]`, with the same `augment` and `views` as well.
    """
    if not isinstance(time_budget, numbers.Real) or not time_budget >= 0:
        raise ValueError(
            f"`time_budget` is a number of seconds from 0; received {time_budget!r}."
        )
    for name in {"monitor", "recipe"} & options.keys():
        raise TypeError(
            f"`tune` takes no `{name}`: it judges by balanced accuracy, and the recipe "
            f"is what it finds."
        )
    job = check_job(
        model,
        layer,
        data,
        validation_data=validation_data,
        recipe="auto",
        extraction=extraction,
        seed=seed,
        **options,
    )
    return search_recipe(
        job.task,
        *job.extract(seed=seed, verbose=verbose),
        recipe=job.recipe,
        time_budget=time_budget,
        seed=seed,
    )
