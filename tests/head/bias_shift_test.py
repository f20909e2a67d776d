"""Tests for bias_shift.py: logit adjustment in the bias of the last Dense layer."""

import keras
import numpy as np
import pytest
from keras import layers

from tf_pseudofeat.head.bias_shift import check_logit_bias, final_dense, shift_bias
from tf_pseudofeat.head.logit_adjustment import adjust_logits

X = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")


def sequential(*last):
    return keras.Sequential([keras.Input((3,)), *last], name="model")


def nested():
    return sequential(keras.Sequential([keras.Input((3,)), layers.Dense(4)]))


SHIFTED = {
    "softmax": lambda: sequential(layers.Dense(4, "softmax")),
    "logits": lambda: sequential(layers.Dense(4)),
    "softmax layer": lambda: sequential(layers.Dense(4), layers.Softmax()),
    "activation": lambda: sequential(layers.Dense(4), layers.Activation("softmax")),
    "nested": nested,
    "sigmoid": lambda: sequential(layers.Dense(1, "sigmoid")),
}


@pytest.mark.parametrize("kind", SHIFTED)
@pytest.mark.parametrize("tau", [1.0, -0.5])
def test_outputs_are_those_of_adjust_logits(kind, tau):
    model = SHIFTED[kind]()
    if kind in ("logits", "nested"):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss)
    counts = [5, 3, 1, 1] if model.output_shape[-1] > 1 else [5, 1]
    expected = adjust_logits(model, counts, tau)(X)
    bias = keras.ops.convert_to_numpy(final_dense(model).bias)
    shift_bias(model, counts, tau)
    np.testing.assert_allclose(model(X), expected, atol=1e-6)
    assert not np.array_equal(keras.ops.convert_to_numpy(final_dense(model).bias), bias)


class OwnDense(layers.Dense):
    def call(self, x):
        return 2 * super().call(x)


def called_twice():
    dense, inputs = layers.Dense(3), keras.Input((3,))
    return keras.Model(inputs, dense(dense(inputs)), name="model")


def frozen():
    model = sequential(layers.Dense(4, "softmax"))
    model.layers[0].trainable = False
    return model


@pytest.mark.parametrize(
    "model",
    [
        lambda: sequential(layers.Dense(4, "softmax", use_bias=False)),
        lambda: sequential(OwnDense(4), layers.Softmax()),
        lambda: sequential(layers.Dense(4, "relu"), layers.Softmax()),
        lambda: sequential(layers.Dense(4), layers.Dropout(0.5), layers.Softmax()),
        called_twice,
        frozen,
    ],
)
def test_without_a_bias_of_its_own_there_is_nothing_to_shift(model):
    model = model()
    assert final_dense(model) is None
    before = [weight.tobytes() for weight in model.get_weights()]
    with pytest.raises(ValueError, match="so there is no bias to shift. adjust_logits"):
        shift_bias(model, np.arange(1, 1 + model.output_shape[-1]))
    assert [weight.tobytes() for weight in model.get_weights()] == before
    with pytest.raises(ValueError, match="tau=1 shifts the bias .*Leave it out, and"):
        check_logit_bias(model, "tau=1")
