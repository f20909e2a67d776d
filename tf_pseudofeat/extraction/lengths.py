"""Features of one length: where the trunk leaves it open, the data have to fix it."""

import keras
import tensorflow as tf

__all__ = ["check_length", "check_lengths"]


def check_lengths(trunk, data, layer_name=None):
    """Raises, before anything is read, for features whose length may vary.

    Arrays are of one length, and so are datasets that say so in their `element_spec`,
    be it by padding; what a `PyDataset` gives is seen when it is read, by
    `check_length`.

    Args:
        trunk: Keras model from inputs to features.
        data: checked data, preprocessed.
        layer_name: for the error; by default the trunk's name.
    """
    shape = getattr(getattr(trunk, "output", None), "shape", (None,))[1:]
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
            f"{list(shape)}, and the dataset gives inputs of shape {open_inputs[0]}, "
            f"whose batches may differ in length. {_WAY_OUT}"
        )


def check_length(name, features, first):
    """Raises where a batch of features has another shape than the first.

    Args:
        name: of the batch, "Batch 3".
        features: `[B, ...]`.
        first: shape of the features of the first batch, without B.
    """
    if features.shape[1:] != first:
        raise ValueError(
            f"{name}: its features have shape {list(features.shape[1:])}, those of "
            f"the first batch {list(first)}. {_WAY_OUT}"
        )


_WAY_OUT = (
    "A Gaussian is of features of one shape: split after a pooling layer, or pad all "
    "inputs to one length, dataset.padded_batch(size, padded_shapes=...)."
)
