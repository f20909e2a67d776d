"""Runs the trunk on one batch, on one or several devices or workers."""

import keras
import numpy as np

from tf_pseudofeat.core.distribution import (
    batch_multiple,
    model_strategy,
    spans_workers,
)
from tf_pseudofeat.core.tracing import inference
from tf_pseudofeat.data.conversion import as_array

__all__ = ["features_of"]


def features_of(trunk, x):
    """Computes the features of one batch of inputs, as an array.

    Raises:
        ValueError: If the trunk returns more than one tensor.
    """
    outputs = keras.tree.flatten(_outputs(trunk, x))
    if len(outputs) != 1:
        raise ValueError(
            f"{trunk.name!r} returns {len(outputs)} tensors, but the features must be "
            f"one. Pass a model that returns one of them, or their concatenation."
        )
    return as_array(outputs[0])


def _outputs(trunk, x):
    if spans_workers(trunk):
        # `predict` would synchronize with the other workers.
        return trunk(x, training=False)
    strategy = model_strategy(trunk)
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        # A call passes the whole batch to every replica.
        return trunk.predict(x, verbose=0)
    if keras.backend.backend() == "tensorflow":
        return inference(trunk)(x)
    return _on_even_batch(trunk.predict_on_batch, x)


def _on_even_batch(predict, x):
    """Pads a batch to a multiple of the number of devices, and drops the padding."""
    multiple = batch_multiple()
    if multiple == 1:
        return predict(x)
    rows = len(keras.tree.flatten(x)[0])
    row = np.minimum(np.arange(-(-rows // multiple) * multiple), rows - 1)
    even = keras.tree.map_structure(lambda array: np.asarray(array)[row], x)
    return keras.tree.map_structure(lambda array: array[:rows], predict(even))
