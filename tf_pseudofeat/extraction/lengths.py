"""Checks that features have one shape if the trunk allows variable lengths."""

import keras
import tensorflow as tf

__all__ = ["check_length", "check_lengths"]


def check_lengths(trunk, data, layer_name=None):
    """Raises, before anything is read, if features may vary in shape.

    Arrays have one shape, and so do datasets with a fixed shape in their
    `element_spec`. Other data are checked by `check_length` as they are read.

    Args:
        trunk: Keras model from inputs to features.
        data: checked data, preprocessed.
        layer_name: name in the error message; by default the trunk's name.
    """
    outputs = getattr(trunk, "outputs", None) or ()  # of models with a graph
    shape = outputs[0].shape[1:] if len(outputs) == 1 else ()
    if None not in shape or not isinstance(data, tf.data.Dataset):
        return
    specs = keras.tree.flatten(data.element_spec[0])
    open_inputs = [
        list(spec.shape)
        for spec in specs
        if isinstance(spec, tf.TensorSpec) and None in list(spec.shape)[1:]
    ]
    if open_inputs:
        raise ValueError(
            f"The features at {layer_name or trunk.name!r} have shape "
            f"{list(shape)}, and the dataset yields inputs of shape {open_inputs[0]}, "
            f"whose length may vary between batches. {_ADVICE}"
        )


def check_length(name, features, first):
    """Raises if a batch of features has another shape than the first.

    Args:
        name: name of the batch, such as "Batch 3".
        features: `[B, ...]`.
        first: shape of the features of the first batch, without B.
    """
    if features.shape[1:] != first:
        raise ValueError(
            f"{name}: its features have shape {list(features.shape[1:])}, those of "
            f"the first batch {list(first)}. {_ADVICE}"
        )


_ADVICE = (
    "A Gaussian needs features of one shape: split after a pooling layer, or pad all "
    "inputs to one length, dataset.padded_batch(size, padded_shapes=...)."
)
