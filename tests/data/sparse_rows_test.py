"""Tests for sparse_rows.py: any rows of a sparse matrix, as numpy takes them."""

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from tf_pseudofeat.data.sparse_rows import as_dense, row_reader

DENSE = np.random.default_rng(0).normal(size=(7, 3, 2))
DENSE[np.abs(DENSE) < 0.8] = 0
DENSE[[2, 6]] = 0  # rows without an entry
FLAT = DENSE.reshape(7, 6)
FORMS = {
    "array": lambda: (FLAT, FLAT),
    "list": lambda: (FLAT.tolist(), FLAT),
    "ragged": lambda: (tf.RaggedTensor.from_tensor(FLAT), FLAT),
    "sparse tensor": lambda: (tf.sparse.from_dense(DENSE), DENSE),
    **{
        name: lambda name=name: (scipy.sparse.csr_matrix(FLAT).asformat(name), FLAT)
        for name in ("csr", "csc", "coo", "lil", "dok", "bsr")
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(1, 5),
        slice(5, 100),
        np.array([6, 0, 0, 3]),
        np.array([], int),
    ],
    ids=str,
)
def test_rows_are_those_of_the_dense_array(form, rows):
    values, dense = FORMS[form]()
    received = row_reader(values)(rows)
    if isinstance(received, tf.RaggedTensor):
        received = received.to_tensor(shape=[None, dense.shape[1]])
    np.testing.assert_array_equal(received, dense[rows])


def test_entries_in_any_order_are_read():
    places, values = [[2, 1], [0, 0], [2, 0]], [3.0, 1.0, 2.0]
    sparse = tf.SparseTensor(places, values, [3, 2])
    np.testing.assert_array_equal(as_dense(sparse), [[1, 0], [0, 0], [2, 3]])


def test_words_are_read_and_missing_ones_are_empty():
    words = tf.SparseTensor([[0, 1]], ["a"], [2, 2])
    assert as_dense(words).tolist() == [[b"", b"a"], [b"", b""]]


def test_what_is_dense_stays_the_same_object():
    assert as_dense(FLAT) is FLAT
