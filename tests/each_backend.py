"""What tests ask of Keras that each backend does in its own way."""

import keras
import pytest
import tensorflow as tf

__all__ = ["gradient", "needs_savedmodel", "one_step"]

# For tests of other processes; `conftest.py` skips what cannot be exported in this one.
needs_savedmodel = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="torch has no SavedModel"
)


def one_step(steps):
    """`steps_per_execution`, which is 1 on torch."""
    return 1 if keras.backend.backend() == "torch" else steps


def gradient(function, x):
    """The gradient of a scalar function of Keras layers at a float array."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.grad(function)(x)
    if keras.backend.backend() == "torch":
        x = keras.ops.convert_to_tensor(x).requires_grad_()
        function(x).backward()
        return x.grad
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)
