"""Tests for numeric_inputs.py: what `fit` takes for numbers, and the rest by name."""

import decimal

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tf_pseudofeat.data.numeric_inputs import as_numbers, check_texts

ROWS = np.arange(6.0).reshape(3, 2)
FRAME = pd.DataFrame(ROWS, columns=["a", "b"])
BIG = 2**60 + np.arange(2)  # float64 has one number for both


@pytest.mark.parametrize(
    "values",
    [
        ROWS,
        ROWS.astype("float16"),
        ROWS.astype(bool),
        tf.constant(ROWS),
        tf.TensorSpec((None, 2), tf.int32),
        tf.cast(ROWS, tf.bfloat16).numpy(),
        FRAME,
        FRAME.astype({"a": "int8"}),
    ],
)
def test_numbers_are_the_same_object(values):
    assert as_numbers(values, "`data` has inputs") is values


@pytest.mark.parametrize(
    "column",
    [
        [True, False, True],
        np.array([1, 2.5, True], object),
        pd.array([1, None, 3], dtype="Int64"),
        pd.array([True, None, False], dtype="boolean"),
        pd.array([1.5, None, 3], dtype="Float32"),
        [decimal.Decimal("1.5")] * 3,
        pd.Categorical([3, 1, 3]),
    ],
    ids=["bool", "object", "Int64", "boolean", "Float32", "Decimal", "category"],
)
def test_a_column_is_read_as_keras_reads_it(column):
    frame = FRAME.assign(b=column)
    numbers = as_numbers(frame, "`data` has inputs")
    assert numbers.dtype == np.float64
    identity = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
    np.testing.assert_array_equal(numbers, identity.predict(frame, verbose=0))


@pytest.mark.parametrize(
    "values",
    [
        pd.DataFrame({"id": pd.array(BIG, dtype="Int64")}),
        pd.DataFrame({"id": BIG}, dtype=object),
        pd.DataFrame({"id": pd.array(BIG, dtype="Int64"), "x": [True, False]}),
        BIG[:, None].astype(object),
    ],
    ids=["nullable", "objects", "beside booleans", "array of objects"],
)
def test_whole_numbers_stay_whole(values):
    read = as_numbers(values, "`data` has inputs")
    assert read[:, 0].astype("int64").tolist() == BIG.tolist()


def test_objects_of_an_array_and_names_that_repeat():
    numbers = as_numbers(ROWS.astype(object), "")
    assert numbers.dtype == np.float64
    np.testing.assert_array_equal(numbers, ROWS)
    twice = FRAME.assign(b=[True, False, True])[["a", "b", "a"]]
    np.testing.assert_array_equal(as_numbers(twice, ""), twice.to_numpy(float))


@pytest.mark.parametrize(
    "values, message",
    [
        (
            FRAME.assign(b=["x", "y", "z"]),
            r"no numbers, 'b' \(dtype \w+\), where",
        ),
        (FRAME.assign(b=pd.Categorical(list("xyz"))), r"'b' \(dtype category\)"),
        (
            FRAME.assign(b=pd.date_range("2020", periods=3), a=["x", 1, 2]),
            r"'a' \(dtype object\), 'b' \(dtype datetime64\[\w+\]\)",
        ),
        (ROWS.astype(str), "of dtype <U32, where the model takes numbers"),
        (ROWS.astype(bytes), r"of dtype \|S32"),
        (np.array([[1.0, "x"]], object), "of dtype object .*'x'"),
        (ROWS.astype("datetime64[D]"), r"of dtype datetime64\[D\]"),
        (tf.constant("a"), "of dtype string"),
        (tf.TensorSpec((None,), tf.string), "of dtype string"),
    ],
)
def test_what_is_no_number_is_named(values, message):
    with pytest.raises(ValueError, match=f"^`x` has inputs .*{message}") as raised:
        as_numbers(values, "`x` has inputs")
    assert "Encode it as numbers" in str(raised.value)


TEXTS = np.array([["x"], ["y"]])


@pytest.mark.parametrize(
    "values",
    [
        TEXTS,
        TEXTS.astype(object),
        TEXTS.astype(bytes),
        pd.DataFrame(TEXTS),
        pd.DataFrame(TEXTS, dtype="category"),
        tf.constant(TEXTS),
        tf.TensorSpec((None, 1), tf.string),
        tf.RaggedTensorSpec((None, None), tf.string),
    ],
)
def test_texts_are_the_same_object(values):
    assert check_texts(values, "`data` has inputs") is values


@pytest.mark.parametrize(
    "values, dtype",
    [
        (ROWS, "float64"),
        (FRAME.astype("int8"), "int8"),
        (FRAME.assign(b="x"), "float64"),
        (tf.constant([1]), "int32"),
        (tf.TensorSpec((None,), tf.bool), "bool"),
    ],
)
def test_numbers_are_no_texts(values, dtype):
    with pytest.raises(ValueError, match=f"^`x` has inputs of dtype {dtype}, where"):
        check_texts(values, "`x` has inputs")
