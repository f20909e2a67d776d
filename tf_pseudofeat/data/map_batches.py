"""Data of the same kind with a function of each batch."""

import keras
import tensorflow as tf

from tf_pseudofeat.core.labels import ids_of_names
from tf_pseudofeat.data.checks import is_labeled, is_stream

__all__ = ["first_batches", "map_batches", "map_lazily", "with_class_ids"]


def map_batches(data, function):
    """Data of the same kind, with a function of each `(x, y)` or `(x, y, weight)`.

    Args:
        data: what `check_data` accepts; anything else comes back as it is, for
            `check_data` to say what is wrong with it.
        function: of one batch, or of all arrays, to a tuple of the same kind; of a
            dataset it sees symbolic tensors.
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
        return self._function(batch) if is_labeled(batch) else batch


class _Stream:
    """An iterable of batches, with a function of each."""

    def __init__(self, data, function):
        self._data, self._function = data, function

    def __iter__(self):
        for batch in self._data:
            yield self._function(batch) if is_labeled(batch) else batch

    def __len__(self):
        return len(self._data)
