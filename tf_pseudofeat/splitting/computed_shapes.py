"""The shapes of outputs as a model computes them, where Keras declares others."""

import keras
import tensorflow as tf

from tf_pseudofeat.splitting.graph import layers_inside

__all__ = ["computed_shapes"]


def computed_shapes(model):
    """Returns the shapes of a model's outputs, a list of tuples `(None, ...)`.

    Keras declares that `TextVectorization` with an output_mode of "multi_hot", "count"
    or "tf_idf" maps texts [B, 1] to [B, 1, V]; it maps them to [B, V]. Outputs of a
    model with such a layer have the rank of those for a made-up text.

    Args:
        model: Keras model with a graph.
    """
    declared = [tuple(tensor.shape) for tensor in model.outputs]
    if not any(map(_declares_another_rank, layers_inside(model))):
        return declared
    made_up = keras.tree.map_structure(_made_up, model.input)
    try:
        outputs = keras.tree.flatten(model(made_up, training=False))
    except Exception:  # another input may need more than one row or column
        return declared
    return [
        (shape[0], *output.shape[1:]) if len(output.shape) != len(shape) else shape
        for shape, output in zip(declared, outputs, strict=True)
    ]


def _declares_another_rank(layer):
    kind = keras.layers.TextVectorization
    return isinstance(layer, kind) and layer.get_config()["output_mode"] != "int"


def _made_up(tensor):
    """One example of an input, with 1 for each open size."""
    shape = [1, *(1 if size is None else size for size in tensor.shape[1:])]
    if tensor.dtype == "string":
        return tf.fill(shape, "")
    return keras.ops.zeros(shape, tensor.dtype)
