"""Checks of the model, the data and the optimizer of a retraining."""

import keras
import numpy as np

from tf_pseudofeat.core.distribution import check_one_worker, scope_of
from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.core.validation import is_infinite
from tf_pseudofeat.data.batches import first_batch, known_labels
from tf_pseudofeat.data.checks import check_data
from tf_pseudofeat.data.map_batches import with_class_ids
from tf_pseudofeat.data.preprocessing import Preprocessed, as_arrays, preprocessed
from tf_pseudofeat.extraction.augmentation import augment_once
from tf_pseudofeat.extraction.chosen import num_rows, take_rows
from tf_pseudofeat.extraction.feature_sinks import check_cache
from tf_pseudofeat.head.optimizers import head_optimizer
from tf_pseudofeat.splitting.equivalence import notes_of_inputs
from tf_pseudofeat.splitting.graph import check_is_keras_3, check_stateless
from tf_pseudofeat.splitting.model_inputs import data_as_declared

__all__ = [
    "check_augmented",
    "check_cache_dir",
    "check_first_of_validation",
    "check_model",
    "check_new_optimizer",
    "check_one_label_each",
    "check_search",
    "nonfinite_weights",
    "resolve_validation",
    "try_optimizer",
]


def nonfinite_weights(model):
    """The paths of weights that are NaN, or trainable and infinite."""
    broken = []
    for variable in model.weights:
        values = keras.ops.convert_to_numpy(variable)
        if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
            continue
        # Weights that are not trainable may be masks of minus infinity.
        fits = np.isfinite(values) if variable.trainable else ~np.isnan(values)
        if not fits.all():
            broken.append(variable.path)
    return broken


def check_model(model):
    """Raises if `model` cannot be retrained, whatever the data are."""
    check_is_keras_3(model)
    check_stateless(model)
    check_one_worker(model)
    _check_weights(model)


def check_search(search, validation_data):
    """Raises for a search of the recipe without validation data."""
    if search and validation_data is None:
        raise ValueError(
            "`validation_data` is None. recipe='auto' chooses by validation data, as "
            "`tune` and `diagnose` do: what the trunk was trained on cannot tell "
            "recipes apart. Pass `validation_data`; retrain_head with another recipe, "
            "or without one, needs none."
        )


def check_one_label_each(inputs, labels):
    """Raises if a batch has fewer or more labels than inputs."""
    received = num_rows(inputs)
    if received != {len(labels)}:
        raise ValueError(
            f"The first batch has {' or '.join(map(str, sorted(received)))} inputs and "
            f"{len(labels)} labels; each example needs one label."
        )


def _check_weights(model):
    broken = nonfinite_weights(model)
    if broken:
        raise ValueError(
            f"{len(broken)} weights of {model.name!r} are NaN or infinite, the first "
            f"is {broken[0]!r}: its training has diverged, and a new head cannot "
            f"repair the trunk. Load an earlier checkpoint."
        )


def check_cache_dir(cache_dir, sampler):
    """Raises if features cannot be written to `cache_dir`, which may be None."""
    if cache_dir is None:
        return
    if sampler is not None:
        raise ValueError(
            f"imbalanced-learn's {type(sampler).__name__} needs all features in "
            f"memory, but `cache_dir` is for features that do not fit. Leave one of "
            f"them out; the Gaussians can be fitted to files."
        )
    check_cache(cache_dir)


def check_augmented(augment, x):
    """Checks `augment` on one batch."""
    if augment is None:
        return
    before, after = (
        [tuple(np.shape(leaf)) for leaf in keras.tree.flatten(batch)]
        for batch in (x, augment_once(augment, x))
    )
    if before != after:
        raise ValueError(
            f"`augment` returns inputs of shapes {after} for inputs of shapes "
            f"{before}; it must not change shapes."
        )


def resolve_validation(model, chosen, data, class_names):
    """Checks and preprocesses validation data."""
    seen = isinstance(data, Preprocessed)
    data = as_arrays(model, data.data if seen else data)
    data = with_class_ids(chosen.data(data), class_names)
    _check_validation(data)
    data = data_as_declared(model, data, "validation_data")
    return data if seen else preprocessed(model, data)


def _check_validation(data):
    if is_infinite(data):
        raise ValueError(
            "`validation_data` is infinite (`repeat()`? `num_batches` of None?), and "
            "`steps` is for `data`. Pass finite data: the dataset without `repeat()`, "
            "or validation_data.take(n)."
        )
    check_data(data)


def check_first_of_validation(data, split, extraction, num_classes):
    """Raises if the trunk does not take the inputs, or a label is not a class."""
    x, labels, _ = first_batch(data, extraction)
    class_ids(known_labels(data, labels), num_classes)
    with notes_of_inputs(split.trunk, x):
        split.trunk(take_rows(x, np.arange(1)), training=False)


def check_new_optimizer(model, optimizer):
    """Raises if `optimizer` is the model's own."""
    if optimizer is not None and optimizer is getattr(model, "optimizer", None):
        raise ValueError(
            f"`optimizer` is the one that {model.name!r} was compiled with, which "
            f"retraining must not change. Pass a new one, its name, or None for a new "
            f"one like it."
        )


def try_optimizer(task, optimizer):
    """Creates the optimizer once, to check that it works."""
    try:
        with scope_of(task.head):
            head_optimizer(4, optimizer, task.optimizer, task.strategy)
    except Exception as error:
        made = (
            "of `optimizer`"
            if optimizer is not None
            else (f"like the model's own {type(task.optimizer).__name__}")
        )
        raise ValueError(
            f"The optimizer of the head cannot be created {made}: {error} Pass as "
            f"`optimizer` its name, or a function from the number of steps to an "
            f"optimizer."
        ) from error
