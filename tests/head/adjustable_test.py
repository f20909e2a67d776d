"""Tests for adjustable.py: whose logits can be adjusted, and why others' cannot."""

import keras
import pytest
from keras import layers

from tests.small_models import NoGraph
from tf_pseudofeat.head.adjustable import output_width, why_not_adjustable


def ending(units, activation, loss=None):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(units, activation)])
    model.compile("sgd", loss)
    return model


@pytest.mark.parametrize(
    ("units", "activation", "loss"),
    [
        (4, "softmax", None),
        (4, "log_softmax", None),
        (4, None, keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        (1, "sigmoid", "binary_crossentropy"),
        (1, None, keras.losses.BinaryCrossentropy(from_logits=True)),
    ],
)
def test_probabilities_and_logits_can_be_adjusted(units, activation, loss):
    assert output_width(ending(units, activation, loss)) == units


def two_outputs():
    inputs = keras.Input((3,))
    return keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(2)(inputs)])


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: NoGraph(name="net"), "a NoGraph without a graph of layers is unknown"),
        (two_outputs, r"shapes \[\[None, 2\], \[None, 2\]\], expected one output"),
        (lambda: ending(4, "tanh"), "ends in activation 'tanh', expected one of"),
        (lambda: ending(4, "sigmoid"), r"has 4 output\(s\) with sigmoid, expected"),
        (lambda: ending(1, "softmax"), r"has 1 output\(s\) with softmax, expected"),
        (lambda: ending(1, None, "mse"), "its outputs are not log-odds, since"),
    ],
)
def test_anything_else_cannot_and_says_why(model, reason):
    model = model()
    with pytest.raises(ValueError, match=f"Cannot adjust the logits of .*{reason}"):
        output_width(model)
    assert why_not_adjustable(model)
