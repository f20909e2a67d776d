"""Arrays from the forms that data come in: tensors, lists, frames, sparse matrices."""

import numbers

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.data.sparse_rows import as_dense

__all__ = ["arrays_in", "as_array", "first_leaf", "for_keras", "num_rows_of"]


def num_rows_of(leaf):
    """N of an array, a tensor, a data frame or a sparse matrix."""
    return int(leaf.shape[0]) if hasattr(leaf, "shape") else len(leaf)


def arrays_in(data):
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


def first_leaf(y):
    """The first array of a structure."""
    return keras.tree.flatten(y)[0]


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
