"""Tests for equivalence.py: two halves compute what the model computes."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import tf_pseudofeat as tfpf
from tf_pseudofeat.splitting.equivalence import (
    default_tolerance,
    largest_difference,
    notes_of_inputs,
)


@pytest.fixture(scope="module")
def model():
    layers = [keras.Input((5,)), keras.layers.Dense(4, name="features")]
    return keras.Sequential([*layers, keras.layers.Dense(2, "softmax")])


X, Y = np.zeros((6, 5), "float32"), np.arange(6) % 2


@pytest.mark.tensorflow(reason="the types of errors that its operations raise")
@pytest.mark.parametrize(
    ("inputs", "received"),
    [
        (Y, "int64 (6,)"),
        (X[:, :3], "float32 (6, 3)"),
        (pd.DataFrame(X[:, :3]), "DataFrame (6, 3)"),
        (tf.constant(X[:, :3]), "float32 (6, 3)"),
        (X.astype(str), "<U32 (6, 5)"),
        ({"image": X}, "{'image': 'float32 (6, 5)'}"),
    ],
    ids=["labels", "too narrow", "a frame", "a tensor", "strings", "a dict"],
)
def test_inputs_that_the_model_does_not_take_are_described(model, inputs, received):
    with pytest.raises(Exception) as raised, notes_of_inputs(model, inputs):
        model(inputs)
    (note,) = raised.value.__notes__
    assert f"received as inputs {received}; it takes" in note
    assert "float32 (None, 5)" in note


def test_a_check_on_inputs_of_another_shape_says_both(model):
    with pytest.raises(ValueError, match=r"^`x` has .*\[N, 3\], where .*\[None, 5\]"):
        tfpf.split_at(model, "features").check(model, X[:, :3])


def test_a_note_names_inputs_and_has_an_end():
    inputs = {name: keras.Input((2,), name=name) for name in ("left", "right")}
    model = keras.Model(inputs, keras.layers.Add()([*inputs.values()]), name="model")
    with (
        pytest.raises(ZeroDivisionError) as raised,
        notes_of_inputs(model, [*range(999)]),
    ):
        raise ZeroDivisionError
    (note,) = raised.value.__notes__
    assert "{'left': 'float32 (None, 2)', 'right': 'float32 (None, 2)'}" in note
    assert len(note) < 1200


@pytest.mark.parametrize(
    ("a", "b", "trained", "expected"),
    [
        ([[1.0, 2.0]], [[1.0, 2.5]], True, 0.25),  # relative, where 1 and above
        ([[0.1, 0.2]], [[0.1, 0.3]], True, 0.1),
        ([[np.inf, 1.0]], [[np.inf, 1.0]], True, 0.0),
        ([[np.nan, 1.0]], [[np.nan, 1.0]], True, np.nan),
        ([[np.nan, 1.0]], [[-np.inf, 1.0]], False, 0.0),
        ([[1.0]], [[1.0, 1.0]], True, np.nan),
        (np.zeros((0, 2)), np.zeros((0, 2)), True, np.nan),
    ],
)
def test_the_largest_difference_is_relative_to_what_is_large(a, b, trained, expected):
    received = largest_difference(np.array(a), np.array(b), trained)
    np.testing.assert_allclose(received, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [("float32", 1e-4), ("mixed_float16", 1e-2), ("mixed_bfloat16", 5e-2)],
)
def test_half_precision_is_compared_less_closely(dtype, tolerance):
    dense = keras.layers.Dense(2, dtype=dtype)
    assert default_tolerance(keras.Sequential([keras.Input((5,)), dense])) == tolerance
