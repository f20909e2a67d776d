"""Tests for conversion.py: tensors, lists, frames and sparse matrices as arrays."""

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf

from tf_pseudofeat.data.conversion import (
    arrays_in,
    as_array,
    first_leaf,
    for_keras,
    num_rows_of,
)

ROWS = [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    "values",
    [
        np.array(ROWS),
        tf.constant(ROWS),
        keras.ops.convert_to_tensor(ROWS),
        scipy.sparse.csr_matrix(ROWS),
        scipy.sparse.coo_array(ROWS),
        tf.sparse.from_dense(ROWS),
        pd.DataFrame(ROWS),
    ],
    ids=lambda values: type(values).__name__,
)
def test_each_form_of_rows_is_counted_and_becomes_an_array(values):
    assert num_rows_of(values) == 3
    array = as_array(values)
    assert type(array) is np.ndarray
    np.testing.assert_array_equal(array, ROWS)


def test_lists_of_numbers_become_arrays_and_lists_of_arrays_stay_inputs():
    x, y, weight = arrays_in((ROWS, np.array([0, 1, 1]), [1, 2, 3]))
    assert x.shape == (3, 2) and weight.dtype.kind == "i"
    inputs, _ = arrays_in(([np.ones((3, 1)), np.ones((3, 4))], y))
    assert [leaf.shape for leaf in inputs] == [(3, 1), (3, 4)]


def test_a_series_is_a_column_as_in_fit():
    x, y = arrays_in((pd.Series([1.0, 2.0]), pd.Series([0, 1])))
    assert x.shape == (2, 1) and y.shape == (2,)


def test_weights_that_are_none_are_left_out():
    assert len(arrays_in((np.ones(3), np.ones(3), None))) == 2


def test_lists_of_different_lengths_raise():
    with pytest.raises(
        ValueError, match=r"different lengths.*received \[\[1\], \[2, 3"
    ):
        arrays_in(([[1], [2, 3]], np.array([0, 1])))


def test_the_first_leaf_of_labels_is_theirs():
    assert first_leaf({"a": 1, "b": 2}) == 1 and first_leaf([3, 4]) == 3


@pytest.mark.tensorflow(reason="ragged and sparse tensors as inputs of a model")
def test_tensors_stay_tensors_for_a_model():
    ragged, sparse = tf.ragged.constant([[1], [2, 3]]), tf.sparse.from_dense(ROWS)
    kept = for_keras({"ragged": ragged, "sparse": sparse, "array": np.ones(2)})
    assert kept["ragged"] is ragged and kept["sparse"] is sparse
    made = for_keras([scipy.sparse.csr_matrix(ROWS), pd.DataFrame(ROWS)])
    for leaf in made:
        np.testing.assert_array_equal(leaf, ROWS)
