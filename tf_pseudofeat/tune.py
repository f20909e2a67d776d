"""Settings that choose themselves."""

import functools
import numbers

from tf_pseudofeat.features import plain_and_views, validation_features
from tf_pseudofeat.head import head_optimizer
from tf_pseudofeat.job import check_job
from tf_pseudofeat.search import search_settings

__all__ = ["tune", "tune_on_features"]


def tune(
    model,
    layer_name,
    data,
    validation_data=None,
    *,
    output=None,
    augment=None,
    views=None,
    time_budget=60.0,
    loss=None,
    epochs=None,
    batch_size=256,
    steps=None,
    cache_dir=None,
    trunk=None,
    head=None,
    seed=(1, 2),
    verbose="auto",
):
    """Tries settings of `retrain_head`, and leaves the model as it is.

    The features are extracted once; each trial trains the head for seconds. It is
    judged by balanced accuracy on the validation data, without them on an augmented
    view that was held out, and without views on held-out features; see
    `search_settings` for the rule. The test set has no part in it.

    Args:
        model: see `retrain_head`, as for all that is not named here.
        layer_name: the layer to split at.
        data: training data.
        validation_data: data to judge by. Whoever chooses by them cannot test by them.
        output: see `retrain_head`.
        augment: a Keras preprocessing model or a function of a batch of inputs.
        views: augmented passes over `data`, beside the plain one; 3 by default.
        time_budget: seconds after which no further head is trained.
        loss: see `retrain_head`.
        epochs: see `retrain_head`.
        batch_size: see `retrain_head`.
        steps: see `retrain_head`.
        cache_dir: see `retrain_head`.
        trunk: see `retrain_head`.
        head: see `retrain_head`.
        seed: two whole numbers. It fixes each trial, but not how many `time_budget`
            leaves time for.
        verbose: 0 for silence; otherwise progress bars.

    Returns:
        tuning: `Tuning`; prints as the table of what was tried.

    Raises:
        ValueError: `time_budget` is no number from 0; see `retrain_head`.

    Example:

    >>> tuning = tune(model, "features", train_ds, val_ds)
    >>> print(tuning)
    >>> retrain_head(model, "features", train_ds, **tuning.keywords(10))
    """
    if not isinstance(time_budget, numbers.Real) or not time_budget >= 0:
        raise ValueError(
            f"`time_budget` is a number of seconds from 0; received {time_budget!r}."
        )
    job = check_job(
        model,
        layer_name,
        data,
        validation_data=validation_data,
        output=output,
        augment=augment,
        views=views,
        loss=loss,
        epochs=epochs,
        batch_size=batch_size,
        steps=steps,
        cache_dir=cache_dir,
        trunk=trunk,
        head=head,
        seed=seed,
    )
    plain, extracted = plain_and_views(
        job.trunk,
        job.data,
        augment=augment,
        views=views,
        steps=steps,
        seed=seed,
        cache_dir=cache_dir,
        verbose=verbose,
    )
    validation = None
    if validation_data is not None:
        validation = validation_features(
            job.trunk, job.validation_data, cache_dir=cache_dir, verbose=verbose
        )
    return tune_on_features(
        model,
        job,
        plain,
        extracted,
        validation,
        time_budget=time_budget,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )


def tune_on_features(model, job, plain, views, validation, **options):
    """`search_settings` for a checked `Job` and its features."""
    return search_settings(
        job.head,
        plain,
        views,
        validation,
        loss=job.loss,
        num_classes=job.num_classes,
        optimizer=functools.partial(head_optimizer, model, strategy=job.strategy),
        threshold=job.threshold,
        strategy=job.strategy,
        **options,
    )
