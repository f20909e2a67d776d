"""Finds validation data that are training data."""

import keras
import numpy as np

__all__ = ["sample_weight_of", "share_examples"]

_MOST_WORK = 10_000  # of `np.shares_memory`; views by slices take less


def share_examples(data, validation_data):
    """Whether two sets are one object, or arrays of inputs that share memory.

    Copies of the same examples are not found, such as those of fancy indexing. Sets
    of which no example has a weight in both are parts of one.

    Args:
        data: as `check_data` takes it.
        validation_data: the same, or None.
    """
    if validation_data is None:
        return False
    if data is validation_data:
        return True
    sets = data, validation_data
    if not all(isinstance(each, tuple | list) for each in sets):
        return False
    inputs = [keras.tree.flatten(each[0]) for each in sets]
    if len(inputs[0]) != len(inputs[1]) or not all(map(_share_memory, *inputs)):
        return False
    weights = [sample_weight_of(each) for each in sets]
    if any(w is None for w in weights) or len(weights[0]) != len(weights[1]):
        return True
    return bool(((weights[0] > 0) & (weights[1] > 0)).any())


def sample_weight_of(data):
    """The weights `[N]` in a tuple `(x, y, sample_weight)`.

    None without any, and of a model with several outputs, where each has its own.
    """
    weight = data[2] if len(data) > 2 else None
    if weight is None or keras.tree.is_nested(weight):
        return None
    return np.ravel(weight)


def _share_memory(one, other):
    if one is other:
        return True
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return False
    try:
        return np.shares_memory(one, other, max_work=_MOST_WORK)
    except np.exceptions.TooHardError:
        return False
