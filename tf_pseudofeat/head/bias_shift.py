"""Logit adjustment of a head in place: the prior is taken off its last bias."""

import keras

from tf_pseudofeat.core.distribution import scope_of
from tf_pseudofeat.head.adjustable import output_width, why_not_adjustable
from tf_pseudofeat.head.assumed_prior import logit_offsets
from tf_pseudofeat.splitting.activation import activation_name, output_node
from tf_pseudofeat.splitting.graph import Graph, check_is_keras_3, functional

__all__ = ["check_logit_bias", "final_dense", "shift_bias"]


def shift_bias(model, class_counts, tau=1.0):
    """Takes the prior off the bias of the last Dense layer, in place.

        bias - tau * log(prior)                   [C]
        bias - tau * log(prior[1] / prior[0])     [1]

    `model` then gives what `adjust_logits` would, exactly also where its probabilities
    round to 0 or 1, and so does every model that shares the layer.

    Raises:
        ValueError: `final_dense` finds no such layer; otherwise as in `adjust_logits`.
    """
    width = output_width(model)
    dense = final_dense(model)
    if dense is None:
        raise ValueError(
            f"The logits of {model.name!r} do not come from the bias of a Dense layer "
            f"of their own, with nothing but an activation behind it, so there is "
            f"nothing to shift. adjust_logits(model, class_counts) adds a layer."
        )
    offsets = logit_offsets(class_counts, tau, width)
    with scope_of(model):
        dense.bias.assign(keras.ops.convert_to_numpy(dense.bias) - offsets)


def final_dense(model):
    """The Dense layer whose bias moves the logits of `model`, or None.

    It has a bias, can be trained and is called once. Nested models, casts and an
    activation of its own are looked through.
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
    """Raises where `shift_bias` could not do what `option`, such as tau=1, asks for."""
    if final_dense(head) is None:
        raise ValueError(
            f"{option} shifts the bias of the Dense layer that makes the logits, and "
            f"{head.name!r} does not end in one of its own that can be trained. Leave "
            f"it out and put "
            f"adjust_logits(model, report) behind the retraining."
        )


def _only_activates(operation):
    kinds = keras.layers.Activation | keras.layers.Softmax
    return isinstance(operation, kinds) or not isinstance(operation, keras.layers.Layer)


def _calls(network, layer):
    """How often the graph calls `layer`, at any depth."""
    calls = 0
    for node in Graph(network).nodes:
        calls += node.operation is layer
        if functional(node.operation) is not None:
            calls += _calls(node.operation, layer)
    return calls
