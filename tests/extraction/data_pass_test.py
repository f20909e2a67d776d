"""Tests for data_pass.py: one pass, over all examples or some of each class."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.extraction.data_pass import NO_EXAMPLE, DataPass
from tf_pseudofeat.extraction.options import Extraction

Y = np.repeat([0, 1, 2], [30, 8, 2])
X = np.arange(40.0)[:, np.newaxis]
WEIGHT = np.where(np.arange(40) < 25, 0.0, 2.0)


def read(data, **options):
    data_pass = DataPass(data, Extraction(**{"batch_size": 7, **options}), (1, 2), 0)
    chunks = list(data_pass.chunks())
    rows = np.concatenate([np.asarray(chunk.x)[:, 0] for chunk in chunks])
    return rows.astype(int), data_pass


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(7)


@pytest.mark.parametrize("data", [(X, Y), dataset(X, Y)], ids=["arrays", "dataset"])
def test_all_examples_are_read_in_order(data):
    rows, data_pass = read(data, per_class=None)
    np.testing.assert_array_equal(rows, np.arange(40))
    np.testing.assert_array_equal(data_pass.first[0], X[:7])
    np.testing.assert_array_equal(data_pass.totals.of(3)[0], [30, 8, 2])


@pytest.mark.parametrize("data", [(X, Y), dataset(X, Y)], ids=["arrays", "dataset"])
def test_of_each_class_so_many_are_read_and_all_are_counted(data):
    rows, data_pass = read(data, per_class=5)
    np.testing.assert_array_equal(np.bincount(Y[rows]), [5, 5, 2])
    assert len(set(rows)) == 12
    np.testing.assert_array_equal(data_pass.totals.of(3)[0], [30, 8, 2])


def test_of_arrays_they_are_drawn_and_of_datasets_the_first():
    drawn, _ = read((X, Y), per_class=5)
    assert drawn[Y[drawn] == 0].max() > 5
    first, _ = read(dataset(X, Y), per_class=5)
    np.testing.assert_array_equal(first[Y[first] == 0], np.arange(5))


def test_examples_of_weight_0_are_not_chosen():
    rows, _ = read((X, Y, WEIGHT), per_class=5)
    assert (WEIGHT[rows] > 0).all()
    with pytest.raises(ValueError, match=NO_EXAMPLE):
        read((X, Y, 0 * WEIGHT), per_class=5)


def test_steps_end_the_pass():
    rows, _ = read((X, Y), per_class=None, steps=2)
    np.testing.assert_array_equal(rows, np.arange(14))
    chosen, _ = read((X, Y), per_class=100, steps=2)
    assert sorted(chosen) == list(range(14))
