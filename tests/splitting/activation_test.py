"""Tests for activation.py: the end of many kinds of model."""

import keras
import pytest
from keras import layers, ops

from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.split_at import split_at


def model_ending_in(*last):
    x = inputs = keras.Input((4,))
    for layer in last:
        x = layer(x)
    return keras.Model(inputs, x)


def classifier():
    return model_ending_in(layers.Dense(2, activation="softmax"))


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ([layers.Dense(2)], "linear"),
        ([layers.Dense(2, activation="softmax")], "softmax"),
        ([layers.Dense(1, activation="sigmoid")], "sigmoid"),
        ([layers.Dense(2), layers.Activation("softmax")], "softmax"),
        ([layers.Dense(2), layers.Softmax()], "softmax"),
        ([layers.Dense(2), ops.softmax], "softmax"),
        ([layers.Dense(2), ops.log_softmax], "log_softmax"),
        ([layers.Dense(1), ops.sigmoid], "sigmoid"),
        (
            [layers.Dense(2, activation="softmax"), layers.Activation("linear")],
            "softmax",
        ),
        (
            [layers.Dense(2, activation="softmax"), lambda x: ops.cast(x, "float64")],
            "softmax",
        ),
        ([layers.Dense(2), layers.Identity(), layers.Activation("linear")], "linear"),
        ([classifier()], "softmax"),
        ([classifier(), layers.Activation("linear", dtype="float32")], "softmax"),
        ([keras.Sequential([keras.Input((4,)), classifier()])], "softmax"),
        ([layers.Dense(2, activation=lambda x: x)], None),
        ([layers.Dense(2), layers.Lambda(lambda x: x)], None),
        ([layers.Reshape((2, 2)), layers.LSTM(2)], None),
        ([layers.Dense(2), layers.Dropout(0.5)], None),
    ],
)
def test_output_activation(last, expected):
    assert output_activation(model_ending_in(*last)) == expected


def test_output_activation_given_as_a_tensorflow_function():
    tf = pytest.importorskip("tensorflow")
    model = model_ending_in(layers.Dense(2, activation=tf.nn.softmax))
    assert output_activation(model) == "softmax"


def test_output_activation_chooses_the_right_output_of_a_nested_model():
    x = keras.Input((4,))
    outputs = [layers.Dense(2)(x), layers.Dense(2, activation="sigmoid")(x)]
    nested = keras.Model(x, outputs)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, nested(inputs)[1])
    assert output_activation(model) == "sigmoid"
    assert output_activation(nested) is None


def test_output_activation_of_a_model_without_graph_is_unknown():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    assert output_activation(Subclassed()) is None
    assert output_activation(keras.Sequential([layers.Dense(2)])) is None


def test_output_activation_of_a_head_is_that_of_the_model():
    last = layers.Dense(2, activation="softmax")
    model = model_ending_in(layers.Dense(3, name="features"), last)
    assert output_activation(split_at(model, "features").head) == "softmax"


def test_output_activation_of_a_tf_keras_model_raises():
    tf_keras = pytest.importorskip("tf_keras")
    with pytest.raises(TypeError, match="Keras 2"):
        output_activation(tf_keras.Sequential([tf_keras.layers.Dense(2)]))
