"""Tests for finite.py: which rows are not finite, and whether the inputs caused it."""

import ml_dtypes
import numpy as np
import pandas
import pytest
import tensorflow as tf

from tf_pseudofeat.core.finite import (
    check_finite,
    check_floats,
    check_real,
    check_weights,
    count_nan_rows,
    mask_overflow,
)


def features_with(value, rows, count=9000):
    features = np.zeros((count, 2), "float32")
    features[rows, 1] = value
    return features


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rows", [[0], [4095], [4096, 8999]])
def test_rows_that_are_not_finite_are_counted(value, rows):
    features = features_with(value, rows)
    message = f"in {len(rows)} of 9000 rows, the first is row {rows[0]}. Clean"
    with pytest.raises(ValueError, match=message):
        check_finite(features)


def test_finite_features_pass_in_every_dtype():
    for dtype in ("float16", "float32", "float64", ml_dtypes.bfloat16):
        check_finite(np.ones((3, 2), dtype))
    check_finite(np.zeros((0, 2)))


def test_the_inputs_or_the_layers_are_named_as_the_cause():
    features = features_with(np.nan, [1, 3], count=5)
    inputs = {"a": np.ones((5, 4)), "words": np.full((5, 2), "x")}
    with pytest.raises(ValueError, match="so the layers in between caused it"):
        check_finite(features, inputs=inputs)
    inputs["a"][3, 2] = np.inf
    with pytest.raises(ValueError, match="inputs of 1 of them, the first is row 3"):
        check_finite(features, inputs=inputs)


def test_an_overflow_of_finite_inputs_is_masked_and_no_other():
    features = features_with(np.inf, [1, 3], count=5) + 1
    inputs = np.ones((5, 4))
    inputs[3] = np.nan
    masked = mask_overflow(features, inputs)
    np.testing.assert_array_equal(masked[[0, 1, 2]], [[1, 1], [0, 0], [1, 1]])
    assert np.isinf(masked[3, 1]) and np.isinf(features[1, 1])
    finite = np.ones((5, 2))
    assert mask_overflow(finite, inputs) is finite


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
def test_features_are_floats(dtype):
    with pytest.raises(ValueError, match=f"at 'words' are {dtype}, but a Gaussian"):
        check_floats(np.ones((3, 2), dtype), "words")
    check_floats(np.ones((3, 2), ml_dtypes.bfloat16), "words")


@pytest.mark.parametrize("dtype", ["str", "object", "complex64", "datetime64[D]"])
def test_numbers_are_real(dtype):
    with pytest.raises(ValueError, match="X must be real numbers; received dtype"):
        check_real(np.zeros(2, dtype), "X")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(2), r"each of the 3 examples, shape \[3\]; received shape \[2\]"),
        (np.ones((3, 1)), r"received shape \[3, 1\]"),
        (np.array([1, -1.0, -2]), r"example 1 has weight -1.0 \(2 such examples of 3"),
        (np.array([1, 1, np.nan]), "example 2 has weight nan"),
        (np.array(["1", "2", "3"]), "must be real numbers"),
    ],
)
def test_each_example_has_one_weight_that_is_not_negative(weights, message):
    with pytest.raises(ValueError, match=message):
        check_weights(weights, 3)
    check_weights(np.array([0, 1, 2]), 3)


def test_rows_of_a_later_batch_are_counted_from_the_first():
    features = np.ones((5, 2))
    features[3] = np.nan
    message = "in 1 of 5 rows from row 20, the first is row 23. So are the inputs of 1 "
    with pytest.raises(ValueError, match=message + "of them, the first is row 23: cle"):
        check_finite(features, inputs=features, start=20)


def test_rows_with_a_nan_are_counted():
    x = np.ones((9000, 2, 2), "float32")
    x[[3, 8999], 1, 0] = np.nan
    assert count_nan_rows(x) == 2
    assert count_nan_rows({"a": x[:4], "b": np.ones((4, 1), int), "c": ["x"]}) == 1
    assert count_nan_rows(pandas.DataFrame({"a": [1.0, np.nan, np.nan]})) == 2
    nullable = pandas.DataFrame({"a": [1, None], "b": ["x", "y"]}).convert_dtypes()
    assert count_nan_rows(nullable) == count_nan_rows(nullable.a) == 1
    assert count_nan_rows(x, np.arange(9000) != 3) == 1
    assert count_nan_rows([np.array(["a"]), tf.constant([np.nan])]) == 0
    assert count_nan_rows(np.full((2, 1), np.inf)) == 0
