"""The data that people train with, read in batches of inputs, labels and weights."""

import collections.abc
import contextlib
import dataclasses
import itertools
import numbers

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.arguments import is_infinite
from tf_pseudofeat.core.labels import ids_of_names
from tf_pseudofeat.data.read_ahead import read_items
from tf_pseudofeat.data.sparse_rows import as_dense, row_reader

__all__ = [
    "NO_BATCH",
    "arrays_of",
    "as_array",
    "batches_of",
    "check_data",
    "first_batch",
    "first_batches",
    "for_keras",
    "has_known_length",
    "is_one_pass",
    "labels_at_hand",
    "map_batches",
    "map_lazily",
    "num_batches",
    "with_class_ids",
]

# What can be iterated over, too.
_NO_STREAM = str | bytes | collections.abc.Mapping | collections.abc.Set

NO_BATCH = "The data has no batch; there are no features to extract."


def first_batch(data, extraction):
    """One batch `(x, y, sample_weight or None)` of data that passed `check_data`."""
    for batch in batches_of(data, dataclasses.replace(extraction, steps=1)):
        return batch
    raise ValueError(NO_BATCH)


def arrays_of(data):
    """`(labels, sample_weight or None)` of data that are arrays; None of others."""
    if not isinstance(data, tuple | list):
        return None
    _, y, *weight = _arrays(data)
    weight = as_array(weight[0]) if weight else None
    return _counted(as_array(_first_leaf(y)), weight), weight


def labels_at_hand(data, batch):
    """All labels where `data` are arrays, else those of the first batch."""
    arrays = arrays_of(data)
    return as_array(batch) if arrays is None else arrays[0]


def check_data(data, steps=None):
    """Raises, before anything is read, for data that cannot be extracted from."""
    if isinstance(data, tuple | list):
        _check_arrays(_arrays(data))
        return
    _check_kind(data)
    if is_infinite(data) and steps is None:
        raise ValueError(
            "The dataset is infinite (`repeat()`? `num_batches` of None?); pass "
            "`steps`, the number of batches to read, or the dataset as it was before "
            "`repeat()`."
        )
    if isinstance(data, tf.data.Dataset):
        _check_structure(data.element_spec)
        if data.cardinality() == 0:
            raise ValueError("The dataset is empty; there are no features to extract.")


def is_one_pass(data):
    """Whether `data` is an iterator, such as a generator: what it gave is gone."""
    return hasattr(data, "__next__") and iter(data) is data


def _check_kind(data):
    if isinstance(data, tf.data.Dataset | keras.utils.PyDataset) or _is_stream(data):
        return
    once = is_one_pass(data) and (
        ", which gives its batches only once, and they are read more often. Collect "
        "them in arrays, or pass tf.data.Dataset.from_generator(...), or an object "
        "whose `__iter__` starts anew each time"
    )
    raise TypeError(
        f"`data` must be a tf.data.Dataset, a keras.utils.PyDataset or another "
        f"iterable of (x, y) batches, such as a torch DataLoader, or a tuple of "
        f"arrays (x, y); received {type(data).__name__}{once or ''}."
    )


def _is_stream(data):
    """Whether `data` may be iterated over for batches, again and again."""
    if hasattr(data, "shape") or isinstance(data, _NO_STREAM):
        return False
    return hasattr(type(data), "__iter__") and not is_one_pass(data)


def _check_arrays(arrays):
    _check_structure(arrays)
    leaves = keras.tree.flatten(list(arrays))
    _check_rows(leaves, "`data` holds", "Pass lists as arrays, np.asarray(x).")
    lengths = set(map(_num_rows, leaves))
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"The arrays of `data` must have one common length above 0; received "
            f"lengths {sorted(lengths)}."
        )


def _check_rows(leaves, holds, advice):
    for leaf in leaves:
        if _rank(leaf) == 0:
            raise ValueError(
                f"{holds} the single value {leaf!r:.200} where an array of N rows is "
                f"needed. {advice}"
            )


def _rank(leaf):
    return len(leaf.shape) if hasattr(leaf, "shape") else np.ndim(leaf)


def _num_rows(leaf):
    return int(leaf.shape[0]) if hasattr(leaf, "shape") else len(leaf)


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
    if isinstance(data, tuple | list):
        known = -(-_num_rows(_first_leaf(_arrays(data)[1])) // extraction.batch_size)
    else:
        known = _known_length(data)
    bounds = [int(bound) for bound in (known, extraction.steps) if bound is not None]
    return min(bounds, default=None)


def has_known_length(data):
    """Whether the number of batches is known before they are read."""
    return isinstance(data, tuple | list) or _known_length(data) is not None


def _known_length(data):
    """The number of batches of what is no arrays; None where there is none, or no end.

    A torch DataLoader has a `__len__` that raises where its dataset has none.
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
        extraction: `Extraction`, for its `batch_size` of arrays and its `steps`.
        rows: of arrays, the only ones to give, in rising order.
    """
    with contextlib.closing(_as_they_come(data, extraction, rows)) as batches:
        for x, y, *weight in batches:
            weight = None if not weight or weight[0] is None else as_array(weight[0])
            labels = as_array(_first_leaf(y))
            yield for_keras(x), _counted(labels, weight), weight


def _as_they_come(data, extraction, rows):
    """Yields the batches as they are in the data, checked."""
    most = num_batches(data, extraction, rows)
    if isinstance(data, tuple | list):
        batches = _array_batches(_arrays(data), extraction.batch_size, rows)
        function = getattr(data, "function", None)
        batches = batches if function is None else map(function, batches)
        yield from itertools.islice(batches, most)
        return
    items = isinstance(data, keras.utils.PyDataset)
    with contextlib.closing((read_items if items else _iterated)(data, most)) as read:
        for number, batch in enumerate(read):
            _check_batch(batch, f"Batch {number}, counted from 0")
            yield batch


def _counted(labels, weight):
    """Labels with some class for examples of weight 0, which may have none."""
    if weight is None or np.shape(weight) != labels.shape[:1] or np.all(weight):
        return labels
    labels = labels.copy()
    labels[weight == 0] = 0
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels[weight == 0, 0] = 1
    return labels


def _iterated(data, most):
    """Yields the first batches; raises where there are fewer than the data have said.

    An item that raises StopIteration would end them in silence.
    """
    read = 0
    for batch in itertools.islice(data, most):
        yield batch
        read += 1
    known = _known_length(data)
    if known is not None and read < most:
        raise ValueError(
            f"The data ended after {read} of {known} batches: an item raised "
            f"StopIteration, or `__len__` is not the number of batches. Mend that, or "
            f"pass `steps={max(1, read)}` to read no more."
        )


def _check_batch(batch, name):
    try:
        _check_structure(batch)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    _check_rows(
        keras.tree.flatten([part for part in batch if part is not None]),
        f"{name}, holds",
        "Give batches of examples, [B, ...], not single ones, and lists as arrays.",
    )


def _arrays(data):
    """The arrays, where `(x, y, None)` is `(x, y)` and numbers in lists are an array.

    A series of pandas as x is a column, as `fit` has it.
    """
    x, *rest = (array for array in data if array is not None)
    y, weight = rest[:1], rest[1:]
    x = keras.tree.map_structure(_as_column, _of_lists(x))
    return (x, *y, *map(_of_lists, weight))


def _as_column(leaf):
    return leaf.to_frame() if hasattr(leaf, "to_frame") else leaf


def _of_lists(values):
    if not isinstance(values, list) or not all(
        isinstance(leaf, numbers.Real) for leaf in keras.tree.flatten(values)
    ):
        return values
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"`data` holds lists of several lengths, which make no array of N rows; "
            f"received {values!r:.200}. Give each example as many numbers."
        ) from error


def _first_leaf(y):
    return keras.tree.flatten(y)[0]


def _array_batches(arrays, batch_size, rows):
    count = _num_rows(_first_leaf(arrays[1])) if rows is None else len(rows)
    readers = keras.tree.map_structure(row_reader, arrays)
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        part = part if rows is None else rows[part]
        yield keras.tree.map_structure(lambda read, part=part: read(part), readers)


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
        return _Items(data, function, data.num_batches)
    if isinstance(data, tuple | list):
        return function(data) if _is_labeled(data) else data
    return _Stream(data, function) if _is_stream(data) else data


def first_batches(data, steps):
    """The first `steps` batches of a dataset or `PyDataset`, as data of that kind."""
    if isinstance(data, tf.data.Dataset):
        return data.take(steps)
    known = [] if data.num_batches is None else [data.num_batches]
    return _Items(data, lambda batch: batch, min([*known, steps]))


def map_lazily(data, function):
    """`map_batches`, where of arrays, too, the function gets no more than one batch.

    Their labels and weights count as they are wherever no batch is read.
    """
    arrays = isinstance(data, tuple | list)
    return _LazyArrays(data, function) if arrays else map_batches(data, function)


def with_class_ids(data, class_names):
    """Data whose labels are class ids, also where they were names.

    Args:
        data: what `check_data` accepts.
        class_names: the names, in the order of the ids; None for no change.
    """
    if class_names is None:
        return data

    def with_ids(batch):
        x, y, *weight = batch
        return (x, ids_of_names(y, class_names), *weight)

    return map_batches(data, with_ids)


def _is_labeled(elements):
    return isinstance(elements, tuple | list) and len(elements) in (2, 3)


class _LazyArrays(tuple):
    """A tuple of arrays with a function of the batches that are read of them."""

    def __new__(cls, arrays, function):
        self = super().__new__(cls, arrays)
        self.function = function
        return self


class _Items(keras.utils.PyDataset):
    """The first batches of a `PyDataset`, or all, with a function of each."""

    def __init__(self, data, function, count):
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._data, self._function, self._count = data, function, count

    @property
    def num_batches(self):
        return self._count

    def __getitem__(self, index):
        batch = self._data[index]
        return self._function(batch) if _is_labeled(batch) else batch


class _Stream:
    """An iterable of batches, with a function of each."""

    def __init__(self, data, function):
        self._data, self._function = data, function

    def __iter__(self):
        for batch in self._data:
            yield self._function(batch) if _is_labeled(batch) else batch

    def __len__(self):
        return len(self._data)


def for_keras(x):
    """A batch as models of any backend take it: jax and torch know no TensorFlow."""
    return keras.tree.map_structure(_leaf_for_keras, x)


def _leaf_for_keras(leaf):
    if keras.backend.backend() != "tensorflow":
        return as_array(leaf)
    composite = isinstance(leaf, tf.SparseTensor | tf.RaggedTensor)
    if composite or tf.is_tensor(leaf) or isinstance(leaf, np.ndarray):
        return leaf
    return np.asarray(as_dense(leaf))


def as_array(values):
    """A tensor of any backend, a list, a sparse matrix or an array, as an array."""
    return np.asarray(keras.ops.convert_to_numpy(as_dense(values)))
