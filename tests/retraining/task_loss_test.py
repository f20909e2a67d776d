"""Tests for task_loss.py: the loss of the head, given, compiled or of the outputs."""

import keras
import numpy as np
import pytest

from tf_pseudofeat.head.balanced_losses import BalancedSoftmax
from tf_pseudofeat.retraining.task_loss import resolve_loss
from tf_pseudofeat.splitting.outputs import choose_output

IDS, ONE_HOT = np.zeros(4, int), np.eye(4)


def model_of(loss=None, names=("scores",)):
    inputs = keras.Input((3,), name="x")
    outputs = {name: keras.layers.Dense(4, name=name)(inputs) for name in names}
    model = keras.Model(inputs, outputs if len(names) > 1 else [*outputs.values()])
    model.name = "model"
    if loss is not None:
        model.compile("sgd", loss)
    return model


def resolved(model, loss=None, activation="softmax", width=4, labels=IDS, output=None):
    chosen = choose_output(model, output)
    return resolve_loss(model, chosen, loss, activation, width, labels)


def test_a_given_loss_comes_first_and_the_compiled_one_then():
    assert resolved(model_of("mse"), "mae") == "mae"
    assert resolved(model_of("mse")) == "mse"


def test_of_several_outputs_the_loss_is_that_of_the_chosen_one():
    losses = {"a": "mse", "b": "mae"}
    assert resolved(model_of(losses, ("a", "b")), output="b") == "mae"


@pytest.mark.parametrize(
    ("activation", "width", "labels", "expected"),
    [
        ("softmax", 4, IDS, "sparse_categorical_crossentropy"),
        ("softmax", 4, IDS[:, np.newaxis], "sparse_categorical_crossentropy"),
        ("softmax", 4, ONE_HOT, "categorical_crossentropy"),
        ("sigmoid", 1, IDS, "binary_crossentropy"),
    ],
)
def test_without_one_it_is_the_cross_entropy_of_the_outputs(
    activation, width, labels, expected
):
    received = resolved(model_of(), None, activation, width, labels)
    assert received == expected


@pytest.mark.parametrize(("activation", "width"), [("linear", 4), ("sigmoid", 4)])
def test_of_logits_it_is_unknown(activation, width):
    with pytest.raises(ValueError, match="'model' is not compiled and .* Pass `loss`"):
        resolved(model_of(), None, activation, width)


def test_a_loss_that_balances_would_correct_twice():
    balanced = BalancedSoftmax([3, 2, 1, 1])
    with pytest.raises(ValueError, match="`loss` is a BalancedSoftmax.*correct twice"):
        resolved(model_of("mse"), balanced)
    with pytest.raises(ValueError, match="The model was compiled with a BalancedSoft"):
        resolved(model_of(balanced))
