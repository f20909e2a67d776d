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

from tf_pseudofeat.core.keras_internals import kept_with, mask

__all__ = [
    "compiled",
    "forward",
    "inference",
    "without_retracing_warnings",
]


def compiled(function, **options):
    """Compiles a function of a batch on TensorFlow; returns it unchanged elsewhere.

    In eager mode a recurrent layer takes a second or more per batch.

    Args:
        function: function of tensors.
        **options: of `tf.function`.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    # No autograph, which leaves files behind; a new partial, whose traces TensorFlow
    # counts separately.
    return tf.function(functools.partial(function), autograph=False, **options)


def inference(model, anew=False):
    """Returns the `Inference` of a model, which is kept with it.

    Args:
        model: Keras model.
        anew: whether to trace the model again: a trace does not see new layers, or new
            values of attributes that are no variables.
    """
    return kept_with(
        model,
        "_pseudofeat_inference",
        model.variables,  # quantization puts others in their place
        lambda: Inference(model),
        anew,
    )


class Inference:
    """`model(x, training=False)` of a batch, compiled on TensorFlow.

    It is traced once for batches of any size, if the model allows; `predict_on_batch`
    would trace the model again for the last one.

    Attributes:
        is_masked: whether an output of the last trace or call has a Keras mask.
    """

    def __init__(self, model):
        self.is_masked = False
        self._model = model
        self._call = compiled(self._run, reduce_retracing=True)
        self._is_traced = self._call == self._run or tf.config.functions_run_eagerly()

    def __call__(self, x):
        """Returns the model's outputs, as tensors."""
        if not self._is_traced:
            with contextlib.suppress(Exception):  # the call below raises it
                specs = keras.tree.map_structure(_of_any_size, x)
                self._call.get_concrete_function(specs)
            self._is_traced = True
        return self._call(x)

    def _run(self, x):
        outputs = self._model(x, training=False)
        masks = map(mask, keras.tree.flatten(outputs))
        self.is_masked = any(each is not None for each in masks)
        return outputs


def _of_any_size(leaf):
    """The `TensorSpec` of a dense array `[B, ...]`, for any B."""
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
