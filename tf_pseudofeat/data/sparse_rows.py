"""Rows of sparse matrices as dense arrays, one batch at a time."""

import numpy as np
import scipy.sparse
import tensorflow as tf

__all__ = ["as_dense", "row_reader"]


def as_dense(values):
    """Converts a SciPy or TensorFlow sparse matrix to an array; keeps anything else."""
    if scipy.sparse.issparse(values):
        return values.toarray()
    if isinstance(values, tf.SparseTensor):
        return row_reader(values)(slice(None))
    return values


def row_reader(values):
    """Returns a function from a slice or an array of row numbers to a dense batch.

    Args:
        values: `[N, ...]`, an array-like, a `tf.RaggedTensor`, or a sparse matrix of
            any format, which is never made dense as a whole.
    """
    if scipy.sparse.issparse(values):
        matrix = values.tocsr()
        return lambda rows: matrix[rows].toarray()
    if isinstance(values, tf.SparseTensor):
        return _SparseTensorRows(values)
    if isinstance(values, tf.RaggedTensor):
        return lambda rows: tf.gather(values, np.arange(values.nrows())[rows])
    array = np.asarray(values)
    return lambda rows: array[rows]


class _SparseTensorRows:
    """The rows of a `tf.SparseTensor`, of any dtype and number of axes."""

    def __init__(self, tensor):
        tensor = tf.sparse.reorder(tensor)
        self._shape = tuple(tensor.dense_shape.numpy().tolist())
        self._places, self._values = tensor.indices.numpy(), tensor.values.numpy()
        numbers = np.arange(self._shape[0] + 1)
        self._starts = np.searchsorted(self._places[:, 0], numbers)  # [N + 1]

    def __call__(self, rows):
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self._shape[0]))
        starts = self._starts[rows]
        counts = self._starts[rows + 1] - starts
        # The entries of row i are counts[i] from starts[i] on, one row after the other.
        before = np.repeat(np.cumsum(counts) - counts, counts)
        entries = np.repeat(starts, counts) + np.arange(counts.sum()) - before
        row = np.repeat(np.arange(len(rows)), counts)
        empty = b"" if self._values.dtype == object else 0
        batch = np.full((len(rows), *self._shape[1:]), empty, self._values.dtype)
        batch[(row, *self._places[entries, 1:].T)] = self._values[entries]
        return batch
