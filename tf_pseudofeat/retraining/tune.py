"""A recipe that chooses itself."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from tf_pseudofeat.extraction.extraction import Extraction
from tf_pseudofeat.retraining.job import check_job
from tf_pseudofeat.retraining.search import Tuning, search_job
from tf_pseudofeat.splitting.split import Split

__all__ = ["tune"]


def tune(
    model: keras.Model,
    layer: str | Split | None,
    data: object,
    validation_data: object,
    *,
    extraction: Extraction | None = None,
    monitor: object = "balanced_accuracy",
    class_names: Iterable[str] | Mapping[int, str] | None = None,
    seed: Sequence[int] = (1, 2),
    verbose: int | str = "auto",
    **options: Any,
) -> Tuning:
    """Finds `blend` and `tau` of `retrain_head`, and leaves the model as it is.

    The head is trained once. Among the candidates are the model as it is and logit
    adjustment alone. The table that is printed says what the choice is worth on new
    data: each fifth of the validation data is judged by what the other four chose.

    Args:
        model: see `retrain_head`, as for all that is not named here.
        validation_data: data to judge by.
        monitor: the score to choose by: its name, a function, a Keras metric, or a
            `Guard`.
        seed: two whole numbers.
        verbose: 0 for silence; otherwise progress bars.
        **options: fields of `Extraction`, and those of `HeadRecipe` that are not
            searched for, such as `epochs`.

    Returns:
        tuning: `Tuning`; prints as the table of what was tried.

    Raises:
        ValueError: See `retrain_head`.
        TypeError: See `retrain_head`.

    Example:

    >>> tuning = tune(model, "features", train_ds, val_ds)
    >>> print(tuning)
    >>> retrain_head(model, "features", train_ds, recipe=tuning.recipe)
    """
    if "recipe" in options:
        raise TypeError("`tune` takes no `recipe`: it is what it finds.")
    job = check_job(
        model,
        layer,
        data,
        validation_data=validation_data,
        recipe="auto",
        extraction=extraction,
        monitor=monitor,
        class_names=class_names,
        seed=seed,
        **options,
    )
    return search_job(job, seed=seed, verbose=verbose)[1]
