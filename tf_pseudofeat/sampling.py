"""Step 4 of Konno and Iwazume (2018): draws from the Gaussians of the classes."""

import tensorflow as tf

from tf_pseudofeat.low_rank import LowRankScale

__all__ = ["sample_gaussians"]

# A product for each class costs a stream some 1 ms an epoch to begin, a loop 20 ms.
_UNROLLED_CLASSES = 64


def sample_gaussians(loc, scale, labels, seed):
    """Draws one feature per label.

        x_i = loc_c + scale_c noise_i,    c = labels_i,    noise_i ~ N(0, I)

    Of a `LowRankScale`, scale_c is `[diag(diag_c), factor_c]`, and a row needs
    D + rank numbers of noise.

    Rows are grouped by class, so that a batch costs one matrix product per class
    that occurs in it. The noise of row i depends on `seed` and i alone.

    Args:
        loc: float tensor `[C, D]`.
        scale: lower triangular factors `[C, D, D]`, one shared factor `[1, D, D]`,
            standard deviations `[C, D]`, or a `LowRankScale`.
        labels: whole number tensor `[B]`.
        seed: int32 `[2]`, stateless: the same seed gives the same draws.

    Returns:
        samples: `[B, D]`, dtype of `loc`.
    """
    size, is_low_rank = loc.shape[-1], isinstance(scale, LowRankScale)
    width = size + scale.factor.shape[-1] if is_low_rank else size
    noise = tf.random.stateless_normal([tf.size(labels), width], seed, dtype=loc.dtype)
    if is_low_rank:
        deviation = noise[:, :size] * tf.gather(scale.diag, labels)
        deviation += _matmul_by_class(noise[:, size:], scale.factor, labels)
    elif scale.shape.rank == 2:
        deviation = noise * tf.gather(scale, labels)
    elif scale.shape[0] == 1:
        deviation = tf.matmul(noise, scale[0], transpose_b=True)
    else:
        deviation = _matmul_by_class(noise, scale, labels)
    return tf.gather(loc, labels) + deviation


def _matmul_by_class(noise, scale, labels):
    """`scale[labels_i] noise_i` `[B, D]`, without gathering the scale for each row."""
    num_classes = scale.shape[0]
    if num_classes > _UNROLLED_CLASSES:
        return _matmul_in_a_loop(noise, scale, labels)
    labels, rows = tf.cast(labels, tf.int32), tf.range(tf.size(labels))
    parts = tf.dynamic_partition(noise, labels, num_classes)
    products = [tf.matmul(x, scale[c], transpose_b=True) for c, x in enumerate(parts)]
    return tf.dynamic_stitch(tf.dynamic_partition(rows, labels, num_classes), products)


def _matmul_in_a_loop(noise, scale, labels):
    """The same, in a graph whose size does not grow with the number of classes."""
    order = tf.argsort(labels, stable=True)
    classes, _, sizes = tf.unique_with_counts(tf.gather(labels, order))
    stops = tf.cumsum(sizes)
    sorted_noise = tf.gather(noise, order)
    products = tf.TensorArray(
        noise.dtype,
        size=tf.size(classes) + 1,
        element_shape=[None, scale.shape[1]],
        infer_shape=False,
    )

    def one_class(i, products):
        rows = sorted_noise[stops[i] - sizes[i] : stops[i]]
        product = tf.matmul(rows, scale[classes[i]], transpose_b=True)
        return i + 1, products.write(i, product)

    last, products = tf.while_loop(
        lambda i, _: i < tf.size(classes), one_class, (0, products)
    )
    # `concat` needs a piece even of no rows.
    products = products.write(last, tf.zeros([0, scale.shape[1]], noise.dtype))
    return tf.gather(products.concat(), tf.math.invert_permutation(order))
