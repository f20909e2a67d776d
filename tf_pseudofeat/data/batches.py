"""Reads training data in batches of inputs, labels and sample weights."""

import contextlib
import dataclasses
import itertools

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.validation import is_infinite
from tf_pseudofeat.data.checks import check_batch
from tf_pseudofeat.data.conversion import (
    arrays_in,
    as_array,
    first_leaf,
    for_keras,
    num_rows_of,
)
from tf_pseudofeat.data.read_ahead import read_items
from tf_pseudofeat.data.sparse_rows import row_reader

__all__ = [
    "NO_BATCH",
    "arrays_of",
    "batches_of",
    "first_batch",
    "has_known_length",
    "known_labels",
    "num_batches",
]

NO_BATCH = "The data has no batch; there are no features to extract."


def first_batch(data, extraction):
    """Returns the first batch `(x, labels, sample_weight or None)` of checked data."""
    for batch in batches_of(data, dataclasses.replace(extraction, steps=1)):
        return batch
    raise ValueError(NO_BATCH)


def arrays_of(data):
    """`(labels, sample_weight or None)` if the data are arrays, else None."""
    if not isinstance(data, tuple | list):
        return None
    _, y, *weight = arrays_in(data)
    weight = as_array(weight[0]) if weight else None
    return _counted(as_array(first_leaf(y)), weight), weight


def known_labels(data, batch):
    """All labels if `data` are arrays, else `batch`, the labels of the first batch."""
    arrays = arrays_of(data)
    return as_array(batch) if arrays is None else arrays[0]


def num_batches(data, extraction, rows=None):
    """The number of batches to read, None if unknown."""
    if rows is not None:
        return -(-len(rows) // extraction.batch_size)
    if isinstance(data, tuple | list):
        known = -(-num_rows_of(first_leaf(arrays_in(data)[1])) // extraction.batch_size)
    else:
        known = _known_length(data)
    bounds = [int(bound) for bound in (known, extraction.steps) if bound is not None]
    return min(bounds, default=None)


def has_known_length(data):
    """Whether the number of batches is known in advance."""
    return isinstance(data, tuple | list) or _known_length(data) is not None


def _known_length(data):
    """The number of batches of data other than arrays; None if unknown or infinite.

    `len` of a torch DataLoader raises TypeError if its dataset has no length.
    """
    if is_infinite(data):
        return None
    if isinstance(data, tf.data.Dataset):
        known = int(data.cardinality())
        return None if known < 0 else known
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches
    try:
        return len(data)
    except TypeError:
        return None


def batches_of(data, extraction, rows=None):
    """Yields `(x, labels, sample_weight or None)`, labels and weights as arrays.

    Args:
        data: what `check_data` accepts.
        extraction: `Extraction`, for its `batch_size` (of arrays) and `steps`.
        rows: row numbers of arrays to read, in ascending order; by default all.
    """
    with contextlib.closing(_as_they_come(data, extraction, rows)) as batches:
        for x, y, *weight in batches:
            weight = None if not weight or weight[0] is None else as_array(weight[0])
            labels = as_array(first_leaf(y))
            yield for_keras(x), _counted(labels, weight), weight


def _as_they_come(data, extraction, rows):
    """Yields the batches of the data, checked but not converted."""
    most = num_batches(data, extraction, rows)
    if isinstance(data, tuple | list):
        batches = _array_batches(arrays_in(data), extraction.batch_size, rows)
        function = getattr(data, "function", None)
        batches = batches if function is None else map(function, batches)
        yield from itertools.islice(batches, most)
        return
    items = isinstance(data, keras.utils.PyDataset)
    with contextlib.closing((read_items if items else _iterated)(data, most)) as read:
        for number, batch in enumerate(read):
            check_batch(batch, f"Batch {number}, counted from 0")
            yield batch


def _counted(labels, weight):
    """Replaces the labels of examples of weight 0, which may be invalid, by class 0."""
    if weight is None or np.shape(weight) != labels.shape[:1] or np.all(weight):
        return labels
    labels = labels.copy()
    labels[weight == 0] = 0
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels[weight == 0, 0] = 1
    return labels


def _iterated(data, most):
    """Yields the first batches; raises if there are fewer than the data's length.

    An item that raises StopIteration would end the iteration silently.
    """
    read = 0
    for batch in itertools.islice(data, most):
        yield batch
        read += 1
    known = _known_length(data)
    if known is not None and read < most:
        raise ValueError(
            f"The data ended after {read} of {known} batches: an item raised "
            f"StopIteration, or `__len__` is not the number of batches. Fix that, or "
            f"pass `steps={max(1, read)}` to read no more."
        )


def _array_batches(arrays, batch_size, rows):
    count = num_rows_of(first_leaf(arrays[1])) if rows is None else len(rows)
    readers = keras.tree.map_structure(row_reader, arrays)
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        part = part if rows is None else rows[part]
        yield keras.tree.map_structure(lambda read, part=part: read(part), readers)
