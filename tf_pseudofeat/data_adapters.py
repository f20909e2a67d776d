"""The data that people train with, read in batches of inputs, labels and weights."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.arguments import is_infinite

__all__ = [
    "NO_BATCH",
    "arrays_of",
    "as_array",
    "batches_of",
    "check_data",
    "first_batch",
    "for_keras",
    "labels_at_hand",
    "map_batches",
    "map_lazily",
    "num_batches",
]

NO_BATCH = "The data has no batch; there are no features to extract."


def first_batch(data, extraction):
    """One batch `(x, y, sample_weight or None)` of data that passed `check_data`."""
    for batch in batches_of(data, extraction):
        return batch
    raise ValueError(NO_BATCH)


def arrays_of(data):
    """`(labels, sample_weight or None)` of data that are arrays; None of others."""
    if not isinstance(data, tuple | list):
        return None
    _, y, *weight = _without_none(data)
    weight = as_array(weight[0]) if weight else None
    return as_array(keras.tree.flatten(y)[0]), weight


def labels_at_hand(data, batch):
    """All labels where `data` are arrays, else those of the first batch."""
    arrays = arrays_of(data)
    return as_array(batch) if arrays is None else arrays[0]


def check_data(data, steps=None):
    """Raises, before anything is read, for data that cannot be extracted from."""
    if isinstance(data, tf.data.Dataset):
        _check_structure(data.element_spec)
        if is_infinite(data) and steps is None:
            raise ValueError(
                "The dataset is infinite (`repeat()`?); pass `steps`, the number of "
                "batches to read, or the dataset as it was before `repeat()`."
            )
        if data.cardinality() == 0:
            raise ValueError("The dataset is empty; there are no features to extract.")
    elif isinstance(data, tuple | list):
        data = _without_none(data)
        _check_structure(data)
        lengths = {len(leaf) for leaf in _leaves(data)}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(
                f"The arrays of `data` must have one common length above 0; received "
                f"lengths {sorted(lengths)}."
            )
    elif not isinstance(data, keras.utils.PyDataset):
        raise TypeError(
            f"`data` must be a tf.data.Dataset or keras.utils.PyDataset of (x, y) "
            f"batches, or a tuple of arrays (x, y); received {type(data).__name__}."
        )


def _leaves(arrays):
    leaves = keras.tree.flatten(list(arrays))
    for leaf in leaves:
        if np.ndim(leaf) == 0:
            raise ValueError(
                f"`data` holds the single value {leaf!r} where an array of N rows is "
                f"needed. Pass lists as arrays, np.asarray(x)."
            )
    return leaves


def _check_structure(elements):
    if not isinstance(elements, tuple | list) or len(elements) not in (2, 3):
        raise ValueError(
            f"`data` must give (x, y) or (x, y, sample_weight); received "
            f"{elements if isinstance(elements, dict) else type(elements).__name__}"
            f"{f' of {len(elements)}' if hasattr(elements, '__len__') else ''}."
        )
    if isinstance(elements[1], list):
        raise ValueError(
            f"`y` is a list of {len(elements[1])}; pass an array, np.asarray(y)."
        )
    labels = keras.tree.flatten(elements[1])
    if len(labels) != 1:
        raise ValueError(
            f"One set of labels is needed; `y` holds {len(labels)}. Split the "
            f"model for the output that they are for, split_at(model, layer, output=), "
            f"or map the data to its labels."
        )
    rank = getattr(getattr(labels[0], "shape", None), "rank", None)
    if isinstance(labels[0], tf.TensorSpec) and rank == 0:
        raise ValueError(
            "The dataset gives single examples, not batches (its labels have shape "
            "[]). Add `.batch(256)`."
        )


def num_batches(data, extraction, rows=None):
    """How many batches there are to read, None where nobody knows."""
    if rows is not None:
        return -(-len(rows) // extraction.batch_size)
    if isinstance(data, tf.data.Dataset):
        known = int(data.cardinality())
        known = None if known < 0 else known
    elif isinstance(data, tuple | list):
        known = -(-len(keras.tree.flatten(data[1])[0]) // extraction.batch_size)
    else:
        known = len(data)
    bounds = [int(bound) for bound in (known, extraction.steps) if bound is not None]
    return min(bounds, default=None)


def batches_of(data, extraction, rows=None):
    """Yields `(x, labels, sample_weight or None)`, labels and weights as arrays.

    Args:
        data: what `check_data` accepts.
        extraction: `Extraction`, for its `batch_size` of arrays.
        rows: of arrays, the only ones to give, in rising order.
    """
    if isinstance(data, tuple | list):
        function = getattr(data, "function", None)
        data = _array_batches(_without_none(data), extraction.batch_size, rows)
        data = data if function is None else map(function, data)
    elif isinstance(data, keras.utils.PyDataset):
        data = map(_checked_item, itertools.repeat(data), range(len(data)))
    for x, y, *weight in data:
        weight = None if not weight or weight[0] is None else as_array(weight[0])
        yield for_keras(x), as_array(keras.tree.flatten(y)[0]), weight


def _checked_item(data, index):
    batch = data[index]
    _check_structure(batch)
    return batch


def _without_none(arrays):
    """`(x, y, None)`, as people write it, is `(x, y)`."""
    return tuple(array for array in arrays if array is not None)


def _array_batches(arrays, batch_size, rows):
    arrays = keras.tree.map_structure(np.asarray, arrays)
    count = len(keras.tree.flatten(arrays[1])[0]) if rows is None else len(rows)
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        part = part if rows is None else rows[part]
        yield keras.tree.map_structure(lambda array, part=part: array[part], arrays)


def map_batches(data, function):
    """Data of the same kind, with a function of each `(x, y)` or `(x, y, weight)`.

    Args:
        data: what `check_data` accepts; anything else comes back as it is, for
            `check_data` to say what is wrong with it.
        function: of one batch, or of all arrays, to a tuple of the same kind; of a
            dataset it sees symbolic tensors.
    """
    if isinstance(data, tf.data.Dataset):
        labeled = _is_labeled(data.element_spec)
        return data.map(lambda *batch: function(batch)) if labeled else data
    if isinstance(data, keras.utils.PyDataset):
        return _Mapped(data, function)
    return function(data) if _is_labeled(data) else data


def map_lazily(data, function):
    """`map_batches`, where of arrays, too, the function gets no more than one batch.

    Their labels and weights count as they are wherever no batch is read.
    """
    arrays = isinstance(data, tuple | list)
    return _LazyArrays(data, function) if arrays else map_batches(data, function)


def _is_labeled(elements):
    return isinstance(elements, tuple | list) and len(elements) in (2, 3)


class _LazyArrays(tuple):
    """A tuple of arrays with a function of the batches that are read of them."""

    def __new__(cls, arrays, function):
        self = super().__new__(cls, arrays)
        self.function = function
        return self


class _Mapped(keras.utils.PyDataset):
    """A `PyDataset` with a function of its batches."""

    def __init__(self, data, function):
        super().__init__()
        self._data, self._function = data, function

    def __len__(self):
        return len(self._data)

    def __getitem__(self, index):
        return self._function(self._data[index])


def for_keras(x):
    """A batch as models of any backend take it: jax and torch know no TensorFlow."""
    if keras.backend.backend() == "tensorflow":
        return x
    return keras.tree.map_structure(as_array, x)


def as_array(values):
    """A tensor of any backend, a list or an array, as an array."""
    return np.asarray(keras.ops.convert_to_numpy(values))
