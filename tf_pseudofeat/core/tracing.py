"""Models as compiled functions, without TensorFlow's warnings about retracing.

Every head that is split, trained and scored is a new model, which TensorFlow traces
once. Keras creates the functions of all models in one place, which TensorFlow takes for
one function that is retraced: from the fifth model in a process on it warns of
"excessive" tracing, which the user cannot avoid.
"""

import contextlib
import functools
import logging

import keras
import numpy as np
import tensorflow as tf

__all__ = ["compiled", "forward", "without_retracing_warnings"]


def compiled(function):
    """Compiles a function of a batch on TensorFlow; returns it unchanged elsewhere.

    In eager mode a recurrent layer takes a second or more per batch.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    # No autograph, which leaves files behind; a new partial, whose traces TensorFlow
    # counts separately.
    return tf.function(functools.partial(function), autograph=False)


def forward(model, batch_size):
    """Returns a function from an array `[N, ...]` to the model's first output.

    The same as `predict`, without the tenth of a second that each of its calls takes.
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
    """Context manager that filters TensorFlow's retracing warning, and no other."""

    def passes(record):
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(passes)
    try:
        yield
    finally:
        logger.removeFilter(passes)
