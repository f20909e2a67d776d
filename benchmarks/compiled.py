"""A function of Keras layers, compiled as the backend compiles."""

import keras
import tensorflow as tf

__all__ = ["compiled"]


def compiled(function):
    """The function as a graph of TensorFlow or jax, or, on torch, as it is.

    Its call returns when the result is there.
    """
    if keras.backend.backend() == "jax":
        import jax

        graph = jax.jit(function)
        return lambda *arrays: jax.block_until_ready(graph(*arrays))
    if keras.backend.backend() == "torch":
        return function
    return tf.function(function)
