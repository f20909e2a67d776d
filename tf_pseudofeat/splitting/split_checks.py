"""Checks of where a model can be split; the errors name the layers that work."""

import keras

from tf_pseudofeat.splitting.graph import MOST_NAMES, check_is_keras_3, functional

__all__ = ["check_arguments", "check_features", "check_separates", "masked_message"]


def check_arguments(model, layer_name, call_index):
    """Raises for arguments of another type, and for a model without a graph."""
    check_is_keras_3(model)
    if not isinstance(layer_name, str | None):
        raise TypeError(
            "`layer_name` must be a string, 'features' or 'backbone/features', or None "
            f"for the usual layer, not {type(layer_name).__name__}. For a layer object "
            f"pass layer.name."
        )
    if not isinstance(call_index, int | None) or isinstance(call_index, bool):
        raise TypeError(f"`call_index` must be an int or None, not {call_index!r}.")
    if layer_name is None and call_index is not None:
        raise ValueError(
            f"call_index={call_index} is the call of a layer, and `layer_name` is "
            f"None. Pass the name of the layer, too."
        )
    if functional(model) is not None:
        return
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"Sequential model '{model.name}' is not built, so its layers are not "
            "connected yet. Call model.build(input_shape), or the model on one batch."
        )
    raise ValueError(
        f"Model '{model.name}' ({type(model).__name__}) has no graph of layers to "
        f"split: its computation is Python code. Pass its two halves as Split(trunk, "
        f"head)."
    )


def check_features(graph, cut):
    """Raises if the output of the call `cut` cannot be an array of features."""
    path, why_not = graph.path(cut), graph.why_not(cut)
    if why_not == "several outputs":
        raise ValueError(
            f"Cannot split at '{path}': it returns {len(cut.outputs)} tensors, but the "
            f"features must be one. Layers that return one: {graph.advice(cut)}."
        )
    if why_not == "output layer":
        raise ValueError(
            f"Cannot split at '{path}': it is an output layer, so there is no head to "
            f"retrain. Layers before it, nearest first: {graph.advice(cut)}."
        )
    if why_not == "no floats":
        raise ValueError(
            f"Cannot split at '{path}': its output is {cut.outputs[0].dtype}, and "
            f"features are floats. Layers whose output is, nearest first: "
            f"{graph.advice(cut)}."
        )
    if why_not == "mask":
        layers = graph.advice(cut, only_after=True)
        raise ValueError(f"{masked_message(path)} Layers without one: {layers}.")


def masked_message(layer_name):
    """The error for a Keras mask on the features."""
    return (
        f"Cannot split at '{layer_name}': its output has a Keras mask (from "
        f"Embedding(mask_zero=True) or Masking), which an array of features cannot "
        f"carry. Split after the layer that consumes the mask."
    )


def check_separates(graph, cut):
    """Raises if part of the network bypasses the call `cut`."""
    found = graph.bypasses(cut)
    if found:
        more = f"; {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
        raise ValueError(
            f"Cannot split at '{graph.path(cut)}': part of the network bypasses it "
            f"({'; '.join(found[:MOST_NAMES])}{more}). Layers that all paths go "
            f"through, nearest first: {graph.advice(cut)}."
        )
