"""Checks that the outputs of a model can be adjusted."""

from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.computed_shapes import computed_shapes
from tf_pseudofeat.splitting.graph import check_is_keras_3, functional
from tf_pseudofeat.splitting.readings import reading_of

__all__ = ["output_width", "why_not_adjustable"]

_ACTIVATIONS = ("softmax", "log_softmax", "linear", "sigmoid")


def output_width(model):
    """The width of outputs, C or 1; raises if they cannot be adjusted."""
    check_is_keras_3(model)
    reason = why_not_adjustable(model)
    if reason:
        raise ValueError(f"Cannot adjust the logits of {model.name!r}: {reason}")
    return functional(model).outputs[0].shape[-1]


def why_not_adjustable(model):
    """The reason why outputs cannot be adjusted, "" if they can."""
    network = functional(model)
    if network is None:
        return (
            f"the meaning of the outputs of a {type(model).__name__} without a graph "
            f"of layers is unknown. Build it if it is Sequential, or wrap its head in "
            f"a functional model."
        )
    shapes = list(map(list, computed_shapes(network)))
    if len(shapes) != 1 or len(shapes[0]) != 2 or not shapes[0][1]:
        return f"its outputs have shapes {shapes}, expected one output [B, C]."
    activation, width = output_activation(model), shapes[0][1]
    if activation not in _ACTIVATIONS:
        return (
            f"it ends in activation {activation!r}, expected one of {_ACTIVATIONS}. "
            f"Use a model that ends in the layer that computes the logits."
        )
    reading = reading_of(activation, getattr(model, "loss", None))
    if reading.meaning == "numbers":
        return f"its outputs are not log-odds, since {reading.reason}."
    if activation != "linear" and (activation == "sigmoid") != (width == 1):
        return (
            f"it has {width} output(s) with {activation}, expected sigmoid for one "
            f"output, of two classes, and softmax for more."
        )
    return ""
