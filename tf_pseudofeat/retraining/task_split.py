"""The split and the output of a model to retrain."""

import dataclasses
import warnings

import keras
import numpy as np

from tf_pseudofeat.splitting.graph import functional
from tf_pseudofeat.splitting.outputs import Output, all_outputs, choose_output
from tf_pseudofeat.splitting.split_at import split_at
from tf_pseudofeat.splitting.trunk_and_head import Split

__all__ = ["check_other_outputs", "one_output", "output_of", "resolve_split"]


def output_of(model, layer):
    """The `Output` whose labels are the classes: that of the split, or the only one."""
    if not isinstance(layer, str | Split):
        raise TypeError(
            f"`layer` must be the name of the layer to split at, None for the usual "
            f"one, or a Split(trunk, head); received {layer!r}."
        )
    output = layer.output if isinstance(layer, Split) else None
    return output if isinstance(output, Output) else choose_output(model, output)


def resolve_split(model, layer, chosen, x):
    """The `Split` at a layer; raises if its head cannot be trained alone."""
    split = layer
    if isinstance(layer, str):
        if isinstance(model, keras.Sequential) and not model.built:
            model(x, training=False)  # as in the first training step
        split = split_at(model, layer)
    split = dataclasses.replace(split, output=chosen if chosen.names else None)
    own = {id(variable) for variable in model.variables}
    foreign = [v.path for v in split.head.variables if id(v) not in own]
    if foreign:
        raise ValueError(
            f"The head of the split at {split.layer_name!r} has {len(foreign)} weights "
            f"that {model.name!r} does not have, such as {foreign[0]!r}: it belongs to "
            f"another model. Split this one."
        )
    trunk_weights = {id(variable) for variable in split.trunk.trainable_variables}
    shared = [v.path for v in split.head.trainable_variables if id(v) in trunk_weights]
    if shared:
        raise ValueError(
            f"The head after {split.layer_name!r} cannot be trained alone: {shared} "
            f"are also weights of the trunk, so the features would change during "
            f"training. Split after the last use of the shared layer."
        )
    return split


def check_other_outputs(model, chosen, split):
    """Warns if other outputs depend on the layers of the head."""
    if not chosen.names or functional(model) is None:
        return
    trained = {id(variable) for variable in split.head.trainable_variables}
    changed = [
        other.names[0]
        for other in all_outputs(model)
        if other != chosen and not trained.isdisjoint(map(id, other.weights(model)))
    ]
    if changed:
        warnings.warn(
            f"The head of {chosen} shares layers with the outputs {changed}, which "
            f"will change, too. Split after the shared layers to keep them unchanged.",
            stacklevel=4,
        )


def one_output(model, outputs):
    """The only output, `[B, C]` or `[B, 1]`; raises for several or other shapes."""
    if len(outputs) != 1 or np.ndim(outputs[0]) != 2:
        shapes = [list(np.shape(output)) for output in outputs]
        raise ValueError(
            f"A classifier with one output [B, C] is needed; {model.name!r} has "
            f"outputs of shapes {shapes}. Choose one of several in a dict with "
            f"Split(trunk, head, output='name')."
        )
    return outputs[0]
