"""An augmentation that draws from the seed that it is given."""

import tensorflow as tf

__all__ = ["noisy"]


def noisy(x, seed):
    """The examples as float32, with a standard normal deviate added to each number."""
    x = tf.cast(x, tf.float32)
    return x + tf.random.stateless_normal(tf.shape(x), seed)
