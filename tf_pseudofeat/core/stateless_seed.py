"""A seed as TensorFlow's stateless functions take it."""

import numpy as np
import tensorflow as tf

__all__ = ["stateless_seed"]


def stateless_seed(seed):
    """Returns a seed as TensorFlow's stateless functions take it, int32 `[2]`.

    Only the lowest 31 bits of each number count. A single number is an error: it would
    be a stateful seed, with which graph mode and a resumed run draw different numbers.
    """
    if tf.is_tensor(seed):
        fits = seed.dtype.is_integer and seed.shape.is_compatible_with([2])
    else:
        numbers = np.asarray(seed)
        fits = numbers.shape == (2,) and numbers.dtype.kind in "iu"
    if not fits:
        raise ValueError(
            f"`seed` must be two integers, such as (1, 2); received {seed!r}."
        )
    if not tf.is_tensor(seed):
        seed = numbers.astype(np.int64) % 2**31
    return tf.cast(seed, tf.int32)
