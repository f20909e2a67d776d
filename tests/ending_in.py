"""A model that ends in an activation, for endpoints."""

import keras
from keras import layers

__all__ = ["model_ending_in"]


def model_ending_in(units, activation, dtype=None):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((4,), name="x")
    x = layers.Dense(units, activation=activation, dtype=dtype)(inputs)
    return keras.Model(inputs, x, name="ending")
