"""The mean of a head before and after its training.

Wortsman et al., "Robust fine-tuning of zero-shot models", 2022, arXiv 2109.01903: where
one set of weights was trained from the other, their mean is often better than either.
"""

import keras
import numpy as np

__all__ = ["blend_weights", "check_blend", "weights_of"]


def check_blend(blend, fresh_head):
    """Refuses a share that is none, and a mean with a head of another origin."""
    if not isinstance(blend, int | float | np.number) or not 0 <= blend <= 1:
        raise ValueError(f"`blend` is a share from 0 to 1; received {blend!r}.")
    if blend and fresh_head:
        raise ValueError(
            f"blend={blend} is a mean of the head from before and the one trained from "
            f"it; a fresh head has nothing in common with it. Choose one of the two."
        )


def weights_of(head):
    """A copy of every variable of a head, as numpy arrays."""
    return [keras.ops.convert_to_numpy(variable).copy() for variable in head.variables]


def blend_weights(head, old, new, blend):
    """Gives a head `blend * old + (1 - blend) * new`, where weights are trained.

    Args:
        head: Keras model.
        old: its `weights_of` before training.
        new: its `weights_of` after training.
        blend: share of `old`, from 0 to 1.
    """
    trained = {id(variable) for variable in head.trainable_variables}
    for variable, before, after in zip(head.variables, old, new, strict=True):
        if id(variable) in trained:
            mean = blend * before.astype(np.float64) + (1 - blend) * after
            variable.assign(mean.astype(before.dtype))
