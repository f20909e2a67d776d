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

__all__ = ["compiled", "forward", "inference", "without_retracing_warnings"]


def compiled(function):
    """Compiles a function of a batch on TensorFlow; returns it unchanged elsewhere.

    In eager mode a recurrent layer takes a second or more per batch.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    # No autograph, which leaves files behind; a new partial, whose traces TensorFlow
    # counts separately.
    return tf.function(
        functools.partial(function), autograph=False, reduce_retracing=True
    )


def inference(model):
    """Returns the `Inference` of a model, which is kept with it."""
    variables = model.variables  # quantization puts others in their place
    known = getattr(model, "_pseudofeat_inference", None)
    if known is None or list(map(id, known[0])) != list(map(id, variables)):
        known = variables, Inference(model)
        # Bypasses Keras, which would track the layers in it.
        object.__setattr__(model, "_pseudofeat_inference", known)
    return known[1]


class Inference:
    """`model(x, training=False)` of a batch, compiled on TensorFlow.

    It is traced once for batches of any size; `predict_on_batch` would trace the model
    again for the last one.

    Attributes:
        is_masked: whether an output of the last trace or call has a Keras mask.
    """

    def __init__(self, model):
        self.is_masked = False
        self._model, self._call = model, compiled(self._run)
        self._is_traced = self._call == self._run

    def __call__(self, x):
        """Returns the model's outputs, as tensors."""
        if not self._is_traced:
            with contextlib.suppress(_NoBatchSize):
                specs = keras.tree.map_structure(_of_any_size, x)
                self._call.get_concrete_function(specs)
            self._is_traced = True
        return self._call(x)

    def _run(self, x):
        outputs = self._model(x, training=False)
        masks = (getattr(o, "_keras_mask", None) for o in keras.tree.flatten(outputs))
        self.is_masked = any(mask is not None for mask in masks)
        return outputs


class _NoBatchSize(Exception):
    """An input is no dense batch."""


def _of_any_size(leaf):
    """The `TensorSpec` of an array `[B, ...]`, for any B."""
    if not isinstance(leaf, np.ndarray | tf.Tensor) or not leaf.ndim:
        raise _NoBatchSize
    row = tf.convert_to_tensor(leaf[:1])
    return tf.TensorSpec([None, *row.shape[1:]], row.dtype)


def forward(model, batch_size):
    """Returns a function from an array `[N, ...]` to the model's first output.

    The same as `predict`, without the tenth of a second that each of its calls takes.
    """
    if keras.backend.backend() != "tensorflow":

        def outputs(x):
            predicted = model.predict(x, batch_size=batch_size, verbose=0)
            return keras.tree.flatten(predicted)[0]

        return outputs
    call = inference(model)

    def outputs(x):
        starts = range(0, len(x), batch_size)
        parts = [keras.tree.flatten(call(x[i : i + batch_size]))[0] for i in starts]
        return np.concatenate(parts)

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
