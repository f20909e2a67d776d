"""Tunes a recipe on validation data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.retraining.search import Tuning, search_task
from tf_pseudofeat.retraining.task import resolve_task
from tf_pseudofeat.splitting.trunk_and_head import Split

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
    """Chooses `blend` and `tau` of `retrain_head`; does not change the model.

    The head is trained once. The candidates include the original model and logit
    adjustment alone. The printed table has a cross-fitted estimate of the score on new
    data: each fold of the validation data is scored by the choice on the others.

    Args:
        model: see `retrain_head`, also for other arguments.
        validation_data: data to choose by.
        monitor: the score to choose by: its name, a function, a Keras metric, or a
            `Guard`.
        seed: two integers.
        verbose: 0 for no output; otherwise progress bars.
        **options: fields of `Extraction`, and fields of `HeadRecipe` that are not
            searched, such as `epochs`.

    Returns:
        tuning: `Tuning`; prints as a table of candidates.

    Raises:
        ValueError: See `retrain_head`.
        TypeError: See `retrain_head`.

    Examples:
        >>> tuning = tune(model, "features", train_ds, val_ds)
        >>> print(tuning)
        >>> retrain_head(model, "features", train_ds, recipe=tuning.recipe)
    """
    if "recipe" in options:
        raise TypeError("`tune` does not take a `recipe`: it returns one.")
    resolved = resolve_task(
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
    return search_task(resolved, seed=seed, verbose=verbose)[1]
