"""Tests for map_batches.py: the same data, with another label."""

import numpy as np
import pytest
import tensorflow as tf

from tests.py_datasets import ArrayBatches
from tf_pseudofeat.data.batches import batches_of, num_batches
from tf_pseudofeat.data.checks import check_data
from tf_pseudofeat.data.map_batches import map_batches
from tf_pseudofeat.extraction.options import Extraction

X = np.arange(14.0).reshape(7, 2).astype("float32")
Y = np.array([0, 1, 2, 0, 1, 2, 0])
WEIGHT = np.arange(1.0, 8.0)
ARRAYS = [(X, Y), (X, Y, WEIGHT)]
EXTRACTION = Extraction(batch_size=3)


KINDS = {
    "arrays": lambda arrays: arrays,
    "list": list,
    "dataset": lambda arrays: tf.data.Dataset.from_tensor_slices(arrays).batch(3),
    "PyDataset": lambda arrays: ArrayBatches(*arrays, batch_size=3),
}


def ten_more(batch):
    x, y, *weight = batch
    return (x, y + 10, *weight)


def read(data):
    """All that is in the data, as arrays; weights are None where there are none."""
    check_data(data)
    parts = list(zip(*batches_of(data, EXTRACTION), strict=True))
    x, y = (np.concatenate(part) for part in parts[:2])
    weight = None if parts[2][0] is None else np.concatenate(parts[2])
    return x, y, weight


@pytest.mark.parametrize("arrays", ARRAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_batch_is_mapped_and_nothing_else(kind, arrays):
    data = KINDS[kind](arrays)
    changed = map_batches(data, ten_more)
    x, y, weight = read(changed)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y + 10)
    np.testing.assert_array_equal(weight, WEIGHT if len(arrays) == 3 else None)
    np.testing.assert_array_equal(read(data)[1], Y)  # and the data stay
    assert num_batches(changed, EXTRACTION) == num_batches(data, EXTRACTION) == 3


def test_a_mapped_dataset_can_be_read_again():
    changed = map_batches(ArrayBatches(X, Y, batch_size=3), ten_more)
    first, second = read(changed), read(changed)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_are_none_stay_none():
    changed = map_batches((X, Y, None), ten_more)
    np.testing.assert_array_equal(read(changed)[1], Y + 10)
    assert read(changed)[2] is None


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ("data", TypeError, "received str"),
        (X, TypeError, "received ndarray"),
        ((X,), ValueError, "must yield"),
        ((X, Y, WEIGHT, Y), ValueError, "must yield"),
        ({"x": X, "y": Y}, TypeError, "received dict"),
        (tf.data.Dataset.from_tensor_slices(X).batch(3), ValueError, "must yield"),
        (
            tf.data.Dataset.from_tensor_slices({"x": X, "y": Y}).batch(3),
            ValueError,
            r"must yield .* a dict of \['x', 'y'\]. Map .*\(batch\['x'\], batch\['y'\]",
        ),
    ],
)
def test_what_is_no_data_comes_back_to_be_refused(data, error, message):
    same = map_batches(data, ten_more)
    assert same is data
    with pytest.raises(error, match=message):
        check_data(same)


def test_a_batch_without_labels_raises_where_it_is_read():
    class Unlabeled(ArrayBatches):
        def __getitem__(self, index):
            return super().__getitem__(index)[0]

    changed = map_batches(Unlabeled(X, Y, batch_size=3), ten_more)
    with pytest.raises(ValueError, match="must yield"):
        read(changed)
