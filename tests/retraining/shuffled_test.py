"""Tests for shuffled.py: batches in an order that follows from a seed."""

import numpy as np
import pytest

from tf_pseudofeat.retraining.shuffled import ShuffledBatches, as_float32

X, Y = np.arange(20.0).reshape(10, 2), np.arange(10)


def epochs(seed, number=2):
    batches = ShuffledBatches((X, Y), 4, seed)
    orders = []
    for _ in range(number):
        parts = [batches[index] for index in range(batches.num_batches)]
        assert [len(labels) for _, labels in parts] == [4, 4, 2]
        features, labels = map(np.concatenate, zip(*parts, strict=True))
        np.testing.assert_array_equal(features, X[labels])
        orders.append(labels.tolist())
        batches.on_epoch_end()
    return orders


def test_each_epoch_has_every_row_once_in_an_order_of_its_own():
    first, second = epochs(0)
    assert sorted(first) == sorted(second) == list(range(10)) and first != second


def test_the_order_follows_from_the_seed():
    assert epochs(0) == epochs(0) != epochs(1)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float64", "float32"), ("float16", "float32"), ("bool", "float32")]
    + [(kind, kind) for kind in ("int64", "uint8", "<U3")],
)
def test_floats_become_float32_and_ids_stay(dtype, expected):
    assert as_float32(np.ones(3, dtype)).dtype == expected


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("value", [1e300, -1e300])
def test_what_is_too_large_for_float32_is_named(value):
    with pytest.raises(ValueError, match="table contains a value .* float32, 1e.300"):
        as_float32(np.array([1.0, value]), "table")
