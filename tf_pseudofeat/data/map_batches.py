"""Applies functions to each batch of training data, keeping the kind of data."""

import keras
import tensorflow as tf

from tf_pseudofeat.core.labels import ids_of_names
from tf_pseudofeat.data.checks import is_labeled, is_stream

__all__ = [
    "first_batches",
    "map_as_read",
    "map_batches",
    "map_lazily",
    "with_class_ids",
]


def map_batches(data, function):
    """Maps a function over the batches `(x, y)` or `(x, y, sample_weight)` of data.

    Args:
        data: what `check_data` accepts; anything else is returned unchanged, for
            `check_data` to raise.
        function: from a batch, or from a tuple of arrays, to a tuple of the same kind;
            gets symbolic tensors if `data` is a `tf.data.Dataset`.
    """
    if isinstance(data, tf.data.Dataset):
        labeled = is_labeled(data.element_spec)
        return data.map(lambda *batch: function(batch)) if labeled else data
    if isinstance(data, keras.utils.PyDataset):
        return _Items(data, function, data.num_batches)
    if isinstance(data, tuple | list):
        return function(data) if is_labeled(data) else data
    return _Stream(data, function) if is_stream(data) else data


def first_batches(data, steps):
    """The first `steps` batches of a dataset or `PyDataset`, as the same kind."""
    if isinstance(data, tf.data.Dataset):
        return data.take(steps)
    known = [] if data.num_batches is None else [data.num_batches]
    return _Items(data, lambda batch: batch, min([*known, steps]))


def map_lazily(data, function):
    """Like `map_batches`, but maps arrays one batch at a time, too.

    Labels and weights of arrays are not mapped where they are read without batches.
    """
    arrays = isinstance(data, tuple | list)
    return _LazyArrays(data, function) if arrays else map_batches(data, function)


def map_as_read(data, function):
    """Like `map_lazily`, but of a `tf.data.Dataset`, too, the function gets values.

    Its batches have shapes that may be unknown before; it is then another iterable.
    """
    if isinstance(data, tf.data.Dataset):
        return _Stream(data, function)
    return map_lazily(data, function)


def with_class_ids(data, class_names):
    """Maps labels that are class names to class ids.

    Args:
        data: what `check_data` accepts.
        class_names: the names in the order of the ids; None to return `data` unchanged.
    """
    if class_names is None:
        return data

    def with_ids(batch):
        x, y, *weight = batch
        return (x, ids_of_names(y, class_names), *weight)

    return map_batches(data, with_ids)


class _LazyArrays(tuple):
    """A tuple of arrays with a function that is applied to each batch."""

    def __new__(cls, arrays, function):
        self = super().__new__(cls, arrays)
        self.function = function
        return self


class _Items(keras.utils.PyDataset):
    """The first `count` batches of a `PyDataset`, with a function applied to each."""

    def __init__(self, data, function, count):
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self._data, self._function, self._count = data, function, count

    @property
    def num_batches(self):
        return self._count

    def __getitem__(self, index):
        batch = self._data[index]
        return self._function(batch) if is_labeled(batch) else batch


class _Stream:
    """An iterable of batches with a function applied to each."""

    def __init__(self, data, function):
        self._data, self._function = data, function

    def __iter__(self):
        for batch in self._data:
            yield self._function(batch) if is_labeled(batch) else batch

    def __len__(self):
        return len(self._data)
