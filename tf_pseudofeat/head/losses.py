"""Whether a loss fits the labels and the outputs, before a step is trained with it."""

import keras
import numpy as np
import tensorflow as tf

__all__ = ["check_loss", "check_loss_name"]


def check_loss_name(loss):
    """Refuses a name that `compile` does not know."""
    if str(loss).lower() not in ("crossentropy", "ce"):  # Keras chooses by the labels
        keras.losses.get(loss)


def check_loss(loss, outputs, labels, sample_weight=None):
    """Evaluates a loss on one batch, as `fit` would.

    Raises:
        ValueError: The loss takes other labels, or another number of outputs. What a
            loss of the user's own raises, other than ValueError, TypeError or
            TensorFlow's InvalidArgumentError, comes through as it is.
    """
    check_loss_name(loss)
    width = outputs.shape[-1]
    shape = ["N", *np.shape(labels)[1:]]
    if width > 1 and shape[1:] == [1] and _is_of_keras(loss):
        # Most losses broadcast such a column over the classes, and mean nothing then.
        labels = np.reshape(labels, -1)
    batch = (labels, outputs, sample_weight)
    if len(outputs) in (1, width):  # these, too, broadcast
        rows = np.arange(width + 1) % len(outputs)
        batch = [None if part is None else np.asarray(part)[rows] for part in batch]
    labels, outputs, sample_weight = batch
    inputs = keras.Input((width,), name="outputs")
    # Keras 3.12 makes no model of an input alone.
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
    """What Keras and the backends raise of shapes and labels that do not fit."""
    kinds = ValueError, TypeError, tf.errors.InvalidArgumentError
    # With torch's word for it somebody else may have meant another thing.
    return (*kinds, RuntimeError) if _is_of_keras(loss) else kinds


def _check_second_output(loss, labels, width):
    """Beside TensorFlow on a CPU nobody does: on jax such an example counts for 0."""
    if width == 1 and "sparse_categorical" in _name(loss) and np.any(labels):
        raise ValueError(f"There is no output for label {np.max(labels)}.")


def _advice(width, shape):
    if width == 1:
        return (
            "For one output, labels are 0 or 1, [N] or [N, 1], and the loss is "
            "'binary_crossentropy', or its like."
        )
    if shape[1:] in ([], [1]):
        return (
            f"These labels are class ids: pass loss='sparse_categorical_crossentropy', "
            f"or its like, or make them one-hot, to_categorical(y, {width})."
        )
    return (
        "These labels are one-hot: pass loss='categorical_crossentropy', or its like, "
        "or make them class ids, y.argmax(axis=-1)."
    )


def _is_of_keras(loss):
    if isinstance(loss, str):
        return True
    module = getattr(loss, "__module__", None)  # of a function, or of an object's class
    return str(module).startswith("keras.")


def _name(loss):
    return repr(loss if isinstance(loss, str) else getattr(loss, "name", None) or loss)
