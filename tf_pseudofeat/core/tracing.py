"""What a model computes, as one graph, without TensorFlow's complaint about retracing.

A head that is cut, trained and scored is a new model each time, which TensorFlow traces
once, as it must. But Keras makes the functions of all models in one place, which
TensorFlow takes for one function that is traced again and again: from the fifth model
in a process on it warns of "excessive" tracing, for which a user can do nothing.
"""

import contextlib
import functools
import logging

import keras
import numpy as np
import tensorflow as tf

__all__ = ["compiled", "forward", "without_retracing_warnings"]


def compiled(function):
    """A function of a batch, as one graph on TensorFlow, and as it is elsewhere.

    Without a graph a recurrent layer takes a second or more for a batch there.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    # Not autograph, which leaves files; a partial, which TensorFlow counts by itself.
    return tf.function(functools.partial(function), autograph=False)


def forward(model, batch_size):
    """A function of an array `[N, ...]` that returns the model's first output for it.

    What `predict` returns, without its tenth of a second of preparation in each call.
    """
    if keras.backend.backend() != "tensorflow":

        def outputs(x):
            predicted = model.predict(x, batch_size=batch_size, verbose=0)
            return keras.tree.flatten(predicted)[0]

        return outputs
    call = compiled(lambda batch: keras.tree.flatten(model(batch, training=False))[0])

    def outputs(x):
        starts = range(0, len(x), batch_size)
        return np.concatenate([call(x[i : i + batch_size]) for i in starts])

    return outputs


@contextlib.contextmanager
def without_retracing_warnings():
    """Drops that warning of TensorFlow for a while; all others pass."""

    def passes(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)
