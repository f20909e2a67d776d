"""Checks training data before anything is read."""

import collections.abc
import inspect

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.validation import is_infinite
from tf_pseudofeat.data.conversion import arrays_in, num_rows_of

__all__ = ["check_batch", "check_data", "is_labeled", "is_one_pass", "is_stream"]

# What labels are called in dicts.
_LABELS = ("label", "labels", "y", "target", "targets", "class")
_ZIP = "; those of a dataset as tf.data.Dataset.zip((inputs, labels))"
# Iterables that are not streams of batches.
_NO_STREAM = str | bytes | collections.abc.Mapping | collections.abc.Set


def check_data(data, steps=None):
    """Raises if features cannot be extracted from `data`, before anything is read."""
    if isinstance(data, tuple | list):
        _check_arrays(arrays_in(data))
        return
    _check_kind(data)
    if is_infinite(data) and steps is None:
        raise ValueError(
            "The dataset is infinite (`repeat()`? `num_batches` of None?); pass "
            "`steps`, the number of batches to read, or the dataset without `repeat()`."
        )
    if isinstance(data, tf.data.Dataset):
        _check_structure(data.element_spec)
        if data.cardinality() == 0:
            raise ValueError("The dataset is empty; there are no features to extract.")


def is_one_pass(data):
    """Whether `data` is an iterator, such as a generator, that can be read once."""
    return hasattr(data, "__next__") and iter(data) is data


def _check_kind(data):
    if isinstance(data, tf.data.Dataset | keras.utils.PyDataset) or is_stream(data):
        return
    raise TypeError(
        f"`data` must be a tf.data.Dataset, a keras.utils.PyDataset or another "
        f"iterable of (x, y) batches, such as a torch DataLoader, or a tuple of "
        f"arrays (x, y); received {type(data).__name__}{_why_not(data)}."
    )


def _why_not(data):
    """What is wrong with data of another type, and what to do; or ""."""
    if is_one_pass(data):
        return (
            ", which can be iterated over only once. Collect its batches in arrays, or "
            "pass tf.data.Dataset.from_generator(...), or an object whose `__iter__` "
            "starts from the beginning"
        )
    if inspect.isroutine(data):
        return (
            f". Pass tf.data.Dataset.from_generator({data.__name__}, "
            f"output_signature=...), or an object whose `__iter__` yields the batches"
        )
    if hasattr(data, "shape"):
        return ", inputs without labels. Pass both, (x, y)"
    return ""


def is_stream(data):
    """Whether `data` is an iterable of batches that can be read repeatedly."""
    if hasattr(data, "shape") or isinstance(data, _NO_STREAM):
        return False
    return hasattr(type(data), "__iter__") and not is_one_pass(data)


def _check_arrays(arrays):
    _check_structure(arrays)
    leaves = keras.tree.flatten(list(arrays))
    _check_rows(leaves, "`data` holds", "Pass lists as arrays, np.asarray(x).")
    lengths = set(map(num_rows_of, leaves))
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"The arrays of `data` must have the same length, at least 1; received "
            f"lengths {sorted(lengths)}."
        )


def _check_rows(leaves, holds, advice):
    for leaf in leaves:
        if _rank(leaf) == 0:
            raise ValueError(
                f"{holds} the single value {leaf!r:.200}; an array of N rows is "
                f"needed. {advice}"
            )


def _rank(leaf):
    return len(leaf.shape) if hasattr(leaf, "shape") else np.ndim(leaf)


def _check_structure(elements):
    if not isinstance(elements, tuple | list) or len(elements) not in (2, 3):
        raise ValueError(
            f"`data` must yield (x, y) or (x, y, sample_weight); received "
            f"{_described(elements)}."
        )
    if isinstance(elements[1], list):
        raise ValueError(
            f"`y` is a list of {len(elements[1])}; pass an array, np.asarray(y)."
        )
    labels = keras.tree.flatten(elements[1])
    if len(labels) != 1:
        raise ValueError(
            f"One set of labels is needed; `y` holds {len(labels)}. Split the model "
            f"for one of its outputs, split_at(model, layer, output=), or map the data "
            f"to the labels of that output."
        )
    rank = getattr(getattr(labels[0], "shape", None), "rank", None)
    if isinstance(labels[0], tf.TensorSpec) and rank == 0:
        raise ValueError(
            "The dataset yields single examples, not batches (its labels have shape "
            "[]). Add `.batch(256)`."
        )


def _described(elements):
    if isinstance(elements, dict):
        y = next((key for key in elements if key in _LABELS), "y")
        x = next((key for key in elements if key != y), "x")
        return (
            f"a dict of {[*elements]!s:.200}. Map it to a tuple, such as "
            f"(batch[{x!r}], batch[{y!r}])"
        )
    if isinstance(elements, tuple | list):
        advice = (
            "Several inputs are one item, ((a, b), y) or ({name: array}, y)"
            if len(elements) > 1
            else f"Pass the labels, too{_ZIP}"
        )
        return f"{type(elements).__name__} of {len(elements)}. {advice}"
    if hasattr(elements, "shape"):
        is_tensor = tf.is_tensor(elements) or isinstance(elements, tf.TypeSpec)
        kind = "a tensor" if is_tensor else type(elements).__name__
        return f"{kind} of shape {elements.shape}. Pass the labels, too{_ZIP}"
    return type(elements).__name__


def check_batch(batch, name):
    """Raises for a batch `name` that is not (x, y) or (x, y, sample_weight) of rows."""
    try:
        _check_structure(batch)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    _check_rows(
        keras.tree.flatten([part for part in batch if part is not None]),
        f"{name}, holds",
        "Yield batches of examples, [B, ...], and arrays instead of lists.",
    )


def is_labeled(elements):
    """Whether a batch is (x, y) or (x, y, sample_weight)."""
    return isinstance(elements, tuple | list) and len(elements) in (2, 3)
