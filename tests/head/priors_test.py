"""Tests for priors.py: one number per class, in any order it comes in."""

import collections

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tf_pseudofeat.head.priors import by_class, positive_shares

LABELS = [2, 0, 0, 1, 0, 1]
COUNTS = [3, 2, 1]


@pytest.mark.parametrize(
    "values",
    [
        COUNTS,
        tuple(COUNTS),
        np.array(COUNTS, "uint8"),
        tf.constant(COUNTS),
        {2: 1, 0: 3, 1: 2},
        {"values": {2.0: 1, 0.0: 3, 1.0: 2}}["values"],
        {np.int64(2): 1, np.int8(0): 3, np.float32(1): 2},
        collections.Counter(LABELS),
        pd.Series(LABELS).value_counts(),
        pd.Series(LABELS).value_counts(ascending=True),
        pd.Series(LABELS, dtype="category").value_counts(),
        pd.Series(np.float64(LABELS)).value_counts(),
        pd.Series(COUNTS),
        pd.Series(COUNTS[::-1], index=[2, 1, 0]),
        pd.Series(COUNTS).to_numpy(),
    ],
)
def test_numbers_come_in_the_order_of_the_class_ids(values):
    received = by_class(values, 3, "counts")
    assert received.dtype == np.float64
    np.testing.assert_array_equal(received, COUNTS)


def test_truth_values_name_two_classes():
    counts = pd.Series([True, False, False]).value_counts()
    np.testing.assert_array_equal(by_class(counts, 2, "counts"), [2, 1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {0: 1, 1: 2},
            r"`counts` must have the class ids 0 to 2; received \[0, 1",
        ),
        ({0: 1, 1: 2, 3: 1}, r"received \[0, 1, 3\]"),
        ({0: 1, 1: 2, 2: 1, 3: 1}, r"received \[0, 1, 2, 3\]"),
        ({0: 1, 1: 2, "2": 1}, r"received \[0, 1, '2'\]"),
        ({0: 1, 1: 2, 1.5: 1}, r"received \[0, 1, 1.5\]"),
        ({0: 1, 1: 2, float("nan"): 1}, r"received \[0, 1, nan\]"),
        ({0: 1, 1: 2, float("inf"): 1}, r"received \[0, 1, inf\]"),
        ({0: 1, 1: 2, None: 1}, r"received \[0, 1, None\]"),
        (pd.Series(["a", "b", "c"]).value_counts(), r"received \['a', 'b'"),
        (pd.Series([1, 2, 3, 4], index=[0, 1, 2, 2]), "`counts`"),
        ([1, 2], r"`counts` must have shape \[3\].*received shape \[2\]"),
        ([[1, 2, 3]], r"received shape \[1, 3\]"),
        (5, r"received shape \[\]"),
        ("abc", "one number per class; received 'abc'"),
        ([1, 2, "x"], "one number per class"),
        ([[1], [2, 3], [4]], "one number per class"),
        ({0: 1, 1: 2, 2: "x"}, "one number per class"),
    ],
)
def test_what_is_not_one_number_per_class_raises(values, message):
    with pytest.raises(ValueError, match=message):
        by_class(values, 3, "counts")


def test_a_set_is_in_no_order():
    with pytest.raises(
        TypeError, match="`counts` must be one number per class.*received th"
    ):
        by_class({1, 2, 3}, 3, "counts")


def test_shares_add_up_to_1():
    np.testing.assert_allclose(
        positive_shares(np.array([6.0, 3, 1]), "x"), [0.6, 0.3, 0.1]
    )


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (
            [1, 0, 0],
            r"`x` needs a positive number.*class 1 has 0 \(2 such classes of 3\)",
        ),
        ([-1, 2, 3], r"class 0 has -1 \(1 such"),
        ([1, 2, np.nan], "class 2 has nan"),
        ([1, np.inf, 2], "class 1 has inf"),
    ],
)
def test_a_share_that_has_no_logarithm_raises(numbers, message):
    with pytest.raises(ValueError, match=message):
        positive_shares(np.array(numbers, float), "x")
