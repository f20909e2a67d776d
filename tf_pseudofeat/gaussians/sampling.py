"""Step 4 of Konno and Iwazume (2018): samples from the Gaussians of the classes."""

import tensorflow as tf

from tf_pseudofeat.gaussians.covariance_types import as_scale

__all__ = ["sample_gaussians"]


def sample_gaussians(loc, scale, labels, seed):
    """Draws one feature per label.

        x_i = loc_c + scale_c noise_i,    c = labels_i,    noise_i ~ N(0, I)

    Rows are grouped by class, so a batch takes one matrix product per class in it. The
    noise of row i depends only on `seed` and i.

    Args:
        loc: float tensor `[C, D]`.
        scale: lower triangular factors `[C, D, D]`, one shared factor `[1, D, D]`,
            standard deviations `[C, D]`, or a `LowRankScale`.
        labels: integer tensor `[B]`.
        seed: int32 `[2]`, stateless: the same seed gives the same draws.

    Returns:
        samples: `[B, D]`, dtype of `loc`.
    """
    scale = as_scale(scale)
    width = sum(array.shape[-1] for array in scale)
    noise = tf.random.stateless_normal([tf.size(labels), width], seed, dtype=loc.dtype)
    return tf.gather(loc, labels) + scale.matmul(noise, labels)
