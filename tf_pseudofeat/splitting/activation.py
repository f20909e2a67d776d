"""The activation at the end of a model: does it return logits or probabilities?"""

import keras
import numpy as np

from tf_pseudofeat.splitting.graph import check_is_keras_3, functional, producer

__all__ = ["activation_name", "logits_behind", "output_activation", "output_node"]

_OPERATIONS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}


def output_activation(model):
    """Returns the name of the final activation of `model`: "softmax", "linear", ...

    Looks through nested models and casts at the end. None if the activation is unknown,
    or the model has several outputs or no graph.
    """
    check_is_keras_3(model)
    network = functional(model)
    if network is None or len(network.outputs) != 1:
        return None
    return activation_name(output_node(network.outputs[0]).operation)


def output_node(tensor):
    """The node that computes `tensor`, looking through nested models and casts."""
    while (before := _same_values_before(tensor)) is not None:
        tensor = before
    return producer(tensor)


def _same_values_before(tensor):
    """The tensor that the last node passes on or casts; None if it computes."""
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
    """The name of the activation that `operation` ends in; None if unknown."""
    if _is_keras(operation, *_OPERATIONS):
        return _OPERATIONS[type(operation).__name__]
    if isinstance(operation, keras.layers.RNN):  # the activation is inside the cell
        return None
    function = getattr(operation, "activation", None)
    name = getattr(function, "__name__", "").removesuffix("_v2")  # tf.nn.softmax
    try:
        keras.activations.get(name)
    except ValueError:
        return None
    return name


def _is_keras(operation, *class_names):
    """Whether `operation` is one of Keras's operations whose classes are not public."""
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
    """The log of p, at least that of the smallest float32, so gradients are finite."""
    return keras.ops.log(keras.ops.maximum(p, np.finfo(np.float32).tiny))
