"""A seed as TensorFlow's stateless functions take it."""

import numpy as np
import tensorflow as tf

__all__ = ["stateless_seed"]


def stateless_seed(seed):
    """A seed as TensorFlow's stateless functions take it, int32 `[2]`.

    Of numbers the lowest 31 bits count. A single one is refused: that would be a
    stateful seed, with which a graph and a resumed run draw other numbers.
    """
    if tf.is_tensor(seed):
        fits = seed.dtype.is_integer and seed.shape.is_compatible_with([2])
    else:
        numbers = np.asarray(seed)
        fits = numbers.shape == (2,) and numbers.dtype.kind in "iu"
    if not fits:
        raise ValueError(
            f"`seed` must be two whole numbers, such as (1, 2); received {seed!r}."
        )
    if not tf.is_tensor(seed):
        seed = numbers.astype(np.int64) % 2**31
    return tf.cast(seed, tf.int32)
