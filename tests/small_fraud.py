"""A small classifier of payments, 'ok' and a few 'fraud', trained by `fit`."""

import functools

import keras
import numpy as np
from keras import layers

from tests.trained import train

__all__ = ["NAMES", "classifier", "payments", "word"]

NAMES = ("ok", "fraud")
_SIZE = 6


def payments(seed, sizes=(1455, 45), apart=2.4):
    """Inputs float32 `[N, 6]` and class ids `[N]`; three in a hundred are fraud."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat([0, 1], sizes))
    x = rng.normal(size=(ids.size, _SIZE))
    x[:, :3] += apart * ids[:, None] / np.sqrt(3)
    return x.astype("float32"), ids


def word(ids):
    """Labels as names."""
    return np.array(NAMES)[ids]


@functools.cache
def _trained(activation, apart):
    keras.utils.set_random_seed(0)
    model = _network(activation)
    train(model, *payments(0, apart=apart), epochs=20, batch_size=64)
    return model.get_weights()


def _network(activation):
    units = 1 if activation == "sigmoid" else 2
    inputs = keras.Input((_SIZE,), name="payment")
    x = layers.Dense(12, "relu")(inputs)
    x = layers.Dense(8, "relu", name="features")(x)
    model = keras.Model(inputs, layers.Dense(units, activation, name="kind")(x))
    loss = "binary_crossentropy" if units == 1 else "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    return model


def classifier(activation="softmax", apart=2.4):
    """A new model with the weights of one that `fit` trained on `payments(0)`."""
    model = _network(activation)
    model.set_weights(_trained(activation, apart))
    return model
