"""Class names and scores in served responses, starting with the predicted class."""

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.labels import check_class_names
from tf_pseudofeat.evaluation.thresholds import Thresholds, above_threshold
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.computed_shapes import computed_shapes

__all__ = ["OUTPUT_NAMES", "class_scores"]

OUTPUT_NAMES = {
    "softmax": "probabilities",
    "sigmoid": "probabilities",
    "linear": "logits",
}


def class_scores(model, network, reading, class_names, thresholds, output_name):
    """Returns a function from outputs to class names and scores, predicted first."""
    if thresholds is not None and class_names is None:
        raise ValueError(
            "`thresholds` determine the order of `classes`; pass `class_names`."
        )
    if class_names is None:
        return lambda y: {}
    activation = output_activation(network)
    _check_classifier(model, network, activation, output_name)
    if reading.meaning == "numbers":
        raise ValueError(
            f"`class_names` are served with probabilities, which {model.name!r} does "
            f"not have: {reading.reason}. Export it without."
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
            scores, order = _decided(y, activation, thresholds)
        # The constant must be created inside the graph.
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
            f"`thresholds` must be a Thresholds, as from choose_thresholds; received "
            f"{type(thresholds).__name__}."
        )
    named = thresholds.class_names
    if named is not None and tuple(named) != tuple(class_names):
        raise ValueError(
            f"`thresholds` are for the classes {list(named)}, in this order; received "
            f"`class_names` {list(class_names)}. Pass the same names."
        )
    if len(thresholds.bias) != classes:
        raise ValueError(
            f"`thresholds` are for {len(thresholds.bias)} classes, but the model has "
            f"{classes}. Choose them for this model."
        )
    return thresholds


def _decided(y, activation, thresholds):
    """Calibrated probabilities `[B, C]` of outputs, and the order of the decision.

    In float64, as `Thresholds` computes, so that both decide alike.
    """
    y = tf.cast(y, tf.float64)
    logits = _logits(y, activation)
    calibrated = tf.cast(tf.nn.softmax(logits / thresholds.temperature), tf.float32)
    if len(thresholds.bias) == 2 and activation != "linear":
        second = tf.cast(above_threshold(thresholds, y), tf.int32)
        order = tf.stack([second, 1 - second], axis=1)
    else:
        bias = tf.constant(thresholds.bias, tf.float64)
        _, order = tf.math.top_k(logits + bias, k=len(thresholds.bias))
    return tf.gather(calibrated, order, batch_dims=1), order


def _logits(y, activation):
    """Logits `[B, C]` of logits or probabilities, in float64."""
    binary = _is_binary(y.shape[-1], activation)
    if activation == "linear":
        return tf.concat([tf.zeros_like(y), y], axis=-1) if binary else y
    p = tf.concat([1 - y, y], axis=-1) if binary else y
    return tf.math.log(tf.maximum(p, np.finfo(np.float32).tiny))


def _is_binary(width, activation):
    """Whether a single output is the probability or logit of class 1 of two."""
    return width == 1 and activation != "softmax"


def _check_classifier(model, network, activation, output_name):
    shapes = computed_shapes(network)
    if len(shapes) > 1 or len(shapes[0]) != 2 or activation not in OUTPUT_NAMES:
        raise ValueError(
            f"`class_names` are for a model with one output [B, C] that ends in a "
            f"softmax, a sigmoid or a linear layer; {model.name!r} has outputs of "
            f"shapes {shapes} and ends in {activation}. Export it without."
        )
    keys = set(network.output) if isinstance(network.output, dict) else {output_name}
    if keys & {"classes", "scores"}:
        raise ValueError(
            f"`class_names` add outputs 'classes' and 'scores', but the output of "
            f"{model.name!r} is named {sorted(keys)}. Rename it."
        )
