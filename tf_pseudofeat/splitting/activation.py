"""The activation at the end of a model: does it return logits or probabilities?"""

import keras
import numpy as np

from tf_pseudofeat.splitting.graph import check_is_keras_3, functional, producer

__all__ = ["activation_name", "logits_behind", "maker", "output_activation"]

_OPERATIONS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}


def output_activation(model):
    """The activation that makes the output of `model`: "softmax", "linear", ...

    Nested models and casts at the end are looked through. None if it is not known, if
    the model has several outputs, or if it has no graph.
    """
    check_is_keras_3(model)
    network = functional(model)
    if network is None or len(network.outputs) != 1:
        return None
    return activation_name(maker(network.outputs[0]).operation)


def maker(tensor):
    """The node that computes the values of `tensor`, behind nested models and casts."""
    while (before := _same_values_before(tensor)) is not None:
        tensor = before
    return producer(tensor)


def _same_values_before(tensor):
    """The tensor that the last node only hands on or casts; None if it computes."""
    node = producer(tensor)
    nested = functional(node.operation)
    if nested is not None:
        return nested.outputs[[id(t) for t in node.outputs].index(id(tensor))]
    return node.arguments.keras_tensors[0] if _is_cast(node.operation) else None


def _is_cast(operation):
    if isinstance(operation, keras.layers.Activation):  # linear, with a dtype.
        return activation_name(operation) == "linear"
    return isinstance(operation, keras.layers.Identity) or _is_keras(operation, "Cast")


def activation_name(operation):
    """The name of the activation that `operation` ends in; None if it is not known."""
    if _is_keras(operation, *_OPERATIONS):
        return _OPERATIONS[type(operation).__name__]
    if isinstance(operation, keras.layers.RNN):  # Its activation is inside the cell.
        return None
    function = getattr(operation, "activation", None)
    name = getattr(function, "__name__", "").removesuffix("_v2")  # tf.nn.softmax
    try:
        keras.activations.get(name)
    except ValueError:
        return None
    return name


def _is_keras(operation, *class_names):
    """Tells Keras's own operations, whose classes are not public, by their names."""
    kind = type(operation)
    return kind.__module__.startswith("keras.") and kind.__name__ in class_names


def logits_behind(outputs, activation):
    """The logits `[B, C]` behind outputs, up to a constant for each example."""
    if activation == "softmax":
        return _safe_log(outputs)
    if activation == "sigmoid":
        return _safe_log(outputs) - _safe_log(1 - outputs)
    return outputs


def _safe_log(p):
    """Of 0 the log of the smallest number, so that gradients are finite, too."""
    return keras.ops.log(keras.ops.maximum(p, np.finfo(np.float32).tiny))
