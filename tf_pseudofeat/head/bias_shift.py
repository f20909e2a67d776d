"""Logit adjustment in place, in the bias of the last Dense layer."""

import keras

from tf_pseudofeat.core.distribution import scope_of
from tf_pseudofeat.head.adjustable import output_width, why_not_adjustable
from tf_pseudofeat.head.assumed_prior import logit_offsets
from tf_pseudofeat.splitting.activation import activation_name, output_node
from tf_pseudofeat.splitting.graph import Graph, check_is_keras_3, functional

__all__ = ["check_logit_bias", "final_dense", "shift_bias"]


def shift_bias(model, class_counts, tau=1.0):
    """Subtracts the log prior from the bias of the last Dense layer, in place.

        bias - tau * log(prior)                   [C]
        bias - tau * log(prior[1] / prior[0])     [1]

    `model`, and every model that shares the layer, then has the outputs of
    `adjust_logits`, exact even if its probabilities round to 0 or 1.

    Raises:
        ValueError: If `final_dense` finds no such layer, or as in `adjust_logits`.
    """
    width = output_width(model)
    dense = final_dense(model)
    if dense is None:
        raise ValueError(
            f"The logits of {model.name!r} are not the output of a Dense layer with a "
            f"bias, followed by nothing but an activation, so there is no bias to "
            f"shift. adjust_logits(model, class_counts) adds a layer."
        )
    offsets = logit_offsets(class_counts, tau, width)
    with scope_of(model):
        dense.bias.assign(keras.ops.convert_to_numpy(dense.bias) - offsets)


def final_dense(model):
    """The Dense layer whose bias shifts the logits of `model`, or None.

    It has a bias, is trainable and is called once. Looks through nested models, casts
    and a separate activation.
    """
    check_is_keras_3(model)
    if why_not_adjustable(model):
        return None
    network = functional(model)
    node = output_node(network.outputs[0])
    if _only_activates(node.operation):
        node = output_node(node.arguments.keras_tensors[0])
        if activation_name(node.operation) != "linear":
            return None
    dense = node.operation
    plain = getattr(type(dense), "call", None) is keras.layers.Dense.call
    movable = plain and dense.bias is not None and dense.trainable
    return dense if movable and _calls(network, dense) == 1 else None


def check_logit_bias(head, option):
    """Raises if `shift_bias` cannot do what `option`, such as "tau=1", needs."""
    if final_dense(head) is None:
        raise ValueError(
            f"{option} shifts the bias of the Dense layer that computes the logits, "
            f"but {head.name!r} does not end in a trainable one. Leave it out, and "
            f"call adjust_logits(model, report) after the retraining."
        )


def _only_activates(operation):
    kinds = keras.layers.Activation | keras.layers.Softmax
    return isinstance(operation, kinds) or not isinstance(operation, keras.layers.Layer)


def _calls(network, layer):
    """The number of calls of `layer` in the graph, at any depth."""
    calls = 0
    for node in Graph(network).nodes:
        calls += node.operation is layer
        if functional(node.operation) is not None:
            calls += _calls(node.operation, layer)
    return calls
