"""Names and scores of classes in a served answer, the decided class first."""

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.labels import check_class_names
from tf_pseudofeat.evaluation.thresholds import Thresholds
from tf_pseudofeat.splitting.activation import output_activation

__all__ = ["OUTPUT_NAMES", "class_scores"]

OUTPUT_NAMES = {
    "softmax": "probabilities",
    "sigmoid": "probabilities",
    "linear": "logits",
}


def class_scores(model, network, reading, class_names, thresholds, output_name):
    """A function from the outputs to names and scores, what is decided for first."""
    if thresholds is not None and class_names is None:
        raise ValueError(
            "`thresholds` decide which of the `classes` is served first; pass "
            "`class_names`."
        )
    if class_names is None:
        return lambda y: {}
    activation = output_activation(network)
    _check_classifier(model, network, activation, output_name)
    if reading.meaning == "numbers":
        raise ValueError(
            f"`class_names` are served with probabilities, and {model.name!r} gives "
            f"none: {reading.reason}. Export it without."
        )
    width = network.outputs[0].shape[-1]
    classes = 2 if _is_binary(width, activation) else width
    class_names = check_class_names(class_names, classes)
    thresholds = _checked_thresholds(thresholds, class_names, classes)

    def classified(y):
        (y,) = keras.tree.flatten(y)
        if thresholds is None:
            scores, order = tf.math.top_k(_scores(y, activation), k=classes)
        else:
            scores, order = _decided(_logits(y, activation), thresholds)
        # A constant of each graph: made outside, it would be of none.
        return {
            "classes": tf.gather(tf.constant(list(class_names)), order),
            "scores": scores,
        }

    return classified


def _scores(y, activation):
    """Probabilities `[B, C]`, in float32, of logits or probabilities."""
    y = tf.cast(y, tf.float32)
    binary = _is_binary(y.shape[-1], activation)
    if activation == "linear":
        y = tf.sigmoid(y) if binary else tf.nn.softmax(y)
    return tf.concat([1 - y, y], axis=-1) if binary else y


def _checked_thresholds(thresholds, class_names, classes):
    if thresholds is None:
        return None
    if not isinstance(thresholds, Thresholds):
        raise TypeError(
            f"`thresholds` is what choose_thresholds gives; received "
            f"{type(thresholds).__name__}."
        )
    named = thresholds.class_names
    if named is not None and tuple(named) != tuple(class_names):
        raise ValueError(
            f"`thresholds` are of the classes {list(named)}, in this order; received "
            f"`class_names` {list(class_names)}. Pass the names that they have."
        )
    if len(thresholds.bias) != classes:
        raise ValueError(
            f"`thresholds` are of {len(thresholds.bias)} classes, and the model tells "
            f"{classes} apart. Choose them for this model."
        )
    return thresholds


def _logits(y, activation):
    """Logits `[B, C]`, in float32, of logits or probabilities."""
    if activation == "linear":
        y = tf.cast(y, tf.float32)
        return tf.concat([tf.zeros_like(y), y], axis=-1) if y.shape[-1] == 1 else y
    return tf.math.log(tf.maximum(_scores(y, activation), np.finfo(np.float32).tiny))


def _decided(logits, thresholds):
    """Calibrated probabilities `[B, C]`, in the order in which they are decided for."""
    calibrated = tf.nn.softmax(logits / thresholds.temperature)
    bias = tf.constant(thresholds.bias, tf.float32)
    _, order = tf.math.top_k(logits + bias, k=len(thresholds.bias))
    return tf.gather(calibrated, order, batch_dims=1), order


def _is_binary(width, activation):
    """Whether one number stands for two classes: the probability of the second."""
    return width == 1 and activation != "softmax"


def _check_classifier(model, network, activation, output_name):
    shapes = [tuple(tensor.shape) for tensor in network.outputs]
    if len(shapes) > 1 or len(shapes[0]) != 2 or activation not in OUTPUT_NAMES:
        raise ValueError(
            f"`class_names` are for a model with one output [B, C] that ends in a "
            f"softmax, a sigmoid or a linear layer; {model.name!r} has outputs of "
            f"shapes {shapes} and ends in {activation}. Export it without."
        )
    keys = set(network.output) if isinstance(network.output, dict) else {output_name}
    if keys & {"classes", "scores"}:
        raise ValueError(
            f"`class_names` serve outputs 'classes' and 'scores', and the output of "
            f"{model.name!r} is to be {sorted(keys)}. Call it something else."
        )
