"""What tests ask of Keras that each backend does in its own way."""

import keras
import tensorflow as tf

__all__ = ["gradient"]


def gradient(function, x):
    """The gradient of a scalar function of Keras layers at a float array."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(x)
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)
