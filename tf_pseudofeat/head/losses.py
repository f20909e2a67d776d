"""Checks that a loss fits the labels and outputs before training."""

import keras
import numpy as np
import tensorflow as tf

__all__ = ["check_loss", "check_loss_name"]


def check_loss_name(loss):
    """Raises ValueError if `compile` does not know the name of a loss."""
    if str(loss).lower() not in (
        "crossentropy",
        "ce",
    ):  # Keras chooses one by the labels
        keras.losses.get(loss)


def check_loss(loss, outputs, labels, sample_weight=None):
    """Evaluates a loss on one batch, as `fit` would.

    Raises:
        ValueError: If the loss does not take these labels or outputs. Other exceptions
            of a custom loss than ValueError, TypeError or InvalidArgumentError are
            propagated.
    """
    check_loss_name(loss)
    width = outputs.shape[-1]
    shape = ["N", *np.shape(labels)[1:]]
    if width > 1 and shape[1:] == [1] and _is_of_keras(loss):
        # Most losses would broadcast such a column over the classes.
        labels = np.reshape(labels, -1)
    batch = (labels, outputs, sample_weight)
    if len(outputs) in (1, width):  # these would broadcast, too
        rows = np.arange(width + 1) % len(outputs)
        batch = [None if part is None else np.asarray(part)[rows] for part in batch]
    labels, outputs, sample_weight = batch
    inputs = keras.Input((width,), name="outputs")
    # Keras 3.12 cannot make a model of only an input.
    probe = keras.Model(inputs, keras.layers.Identity()(inputs), name="probe")
    probe.compile(optimizer=None, loss=loss, jit_compile=False)
    try:
        _check_second_output(loss, labels, width)
        probe.compute_loss(y=labels, y_pred=outputs, sample_weight=sample_weight)
    except _misfits(loss) as error:
        raise ValueError(
            f"The loss {_name(loss)} does not take labels of shape "
            f"[{', '.join(map(str, shape))}] for outputs [B, {width}]. "
            f"{_advice(width, shape)}"
        ) from error


def _misfits(loss):
    """The exceptions of Keras and its backends for labels that do not fit."""
    kinds = ValueError, TypeError, tf.errors.InvalidArgumentError
    # torch raises RuntimeError for many causes, so only Keras's own losses are blamed.
    return (*kinds, RuntimeError) if _is_of_keras(loss) else kinds


def _check_second_output(loss, labels, width):
    """Checks ids above the output, which only TensorFlow on CPU does; jax counts 0."""
    if width == 1 and "sparse_categorical" in _name(loss) and np.any(labels):
        raise ValueError(f"There is no output for label {np.max(labels)}.")


def _advice(width, shape):
    if width == 1:
        return (
            "For one output, labels are 0 or 1, [N] or [N, 1], and the loss is "
            "'binary_crossentropy' or similar."
        )
    if shape[1:] in ([], [1]):
        return (
            f"These labels are class ids: pass loss='sparse_categorical_crossentropy' "
            f"or similar, or make them one-hot, to_categorical(y, {width})."
        )
    return (
        "These labels are one-hot: pass loss='categorical_crossentropy' or similar, or "
        "make them class ids, y.argmax(axis=-1)."
    )


def _is_of_keras(loss):
    if isinstance(loss, str):
        return True
    module = getattr(
        loss, "__module__", None
    )  # of a function, or of the class of an object
    return str(module).startswith("keras.")


def _name(loss):
    return repr(loss if isinstance(loss, str) else getattr(loss, "name", None) or loss)
