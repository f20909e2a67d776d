"""Converts tensors, lists, data frames and sparse matrices to arrays."""

import numbers

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.labels import numbers_in
from tf_pseudofeat.data.sparse_rows import as_dense

__all__ = ["arrays_in", "as_array", "first_leaf", "for_keras", "num_rows_of"]


def num_rows_of(leaf):
    """N of an array, a tensor, a data frame or a sparse matrix."""
    return int(leaf.shape[0]) if hasattr(leaf, "shape") else len(leaf)


def arrays_in(data):
    """Returns `(x, y)` or `(x, y, sample_weight)`, with lists of numbers as arrays.

    A pandas Series as x becomes a column, as in `fit`.
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
            f"`data` holds lists of different lengths, which cannot become an array of "
            f"N rows; received {values!r:.200}. All examples must have the same number "
            f"of values."
        ) from error


def first_leaf(y):
    """The first array of a structure."""
    return keras.tree.flatten(y)[0]


def for_keras(x):
    """Converts a batch to what the Keras backend takes: jax and torch take arrays."""
    return keras.tree.map_structure(_leaf_for_keras, x)


def _leaf_for_keras(leaf):
    if keras.backend.backend() != "tensorflow":
        return as_array(leaf)
    composite = isinstance(leaf, tf.SparseTensor | tf.RaggedTensor)
    if composite or tf.is_tensor(leaf) or isinstance(leaf, np.ndarray):
        return leaf
    return np.asarray(as_dense(leaf))


def as_array(values):
    """Converts a tensor of any backend, a list or a sparse matrix to an array.

    Objects that are all numbers get a numeric dtype.
    """
    return numbers_in(np.asarray(keras.ops.convert_to_numpy(as_dense(values))))
