"""Lower triangular factors of full covariances, "full" and "tied"."""

import collections

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from tf_pseudofeat.core.matrix_workers import matrix_workers
from tf_pseudofeat.gaussians.sample_covariance import SampleCovariance

__all__ = ["TriangularScale", "matmul_by_class"]

# Features whose factor is inverted in one call of LAPACK.
_INVERTED_AT_ONCE = 128
# One product per class takes about 1 ms per epoch to start, a loop 20 ms.
_UNROLLED_CLASSES = 64


class TriangularScale(collections.namedtuple("TriangularScale", "tril")):
    """covariance_c = tril_c tril_c^T.

    Attributes:
        tril: lower triangular `[C, D, D]`, or `[1, D, D]` if all classes share one. The
            scatter of their moments is `[C, D, D]` or, pooled over classes, `[D, D]`.
    """

    axes = ("CDD",)
    sample_class = SampleCovariance
    eigenvalues = staticmethod(np.linalg.eigvalsh)
    rounding = np.finfo(np.float32).eps  # of eigenvalues, times D

    @staticmethod
    def products(rows, starts):
        """`rows^T rows` `[D, D]` of centered rows; exactly symmetric."""
        del starts
        return rows.T @ rows

    @staticmethod
    def add(scatter, classes, products):
        """Adds the products of each of `classes`, or pooled ones."""
        if scatter.ndim == 2:
            scatter += products
            return
        class_ids = np.arange(len(scatter))[classes]
        products = products.reshape(-1, *scatter.shape[1:])
        for class_id, of_class in zip(class_ids, products, strict=True):
            scatter[class_id] += of_class

    @staticmethod
    def add_between(scatter, classes, weighted, delta):
        """Adds `weighted_k delta_k^T`, of `[K, D]` each, for `classes`, an index."""
        if scatter.ndim == 2:
            scatter += weighted.T @ delta
            return
        # In a loop, since all at once would take another [K, D, D].
        class_ids = np.arange(len(scatter))[classes]
        for k in np.flatnonzero(weighted.any(axis=1)):
            scatter[class_ids[k]] += np.outer(weighted[k], delta[k])

    @staticmethod
    def squares(scatter):
        """The diagonal of a scatter `[..., D]`."""
        return np.diagonal(scatter, axis1=-2, axis2=-1)

    @staticmethod
    def factorize(matrix, added):
        """Replaces a covariance, with variance added, by its factor, in place."""
        matrix[np.diag_indices(len(matrix))] += added
        matrix[...] = np.linalg.cholesky(matrix.T)  # the transpose is in LAPACK's order

    @property
    def diag(self):
        """Standard deviations conditional on the previous features `[C, D]`."""
        return np.diagonal(self.tril, axis1=1, axis2=2)

    def log_det(self):
        """The log-determinants of the factors, `[C]`, or `[1]` if shared."""
        return np.log(self.diag).sum(axis=1)

    def matmul(self, noise, labels):
        """`tril[labels_i] noise_i` `[B, D]`, of TensorFlow tensors."""
        if self.tril.shape[0] == 1:
            return tf.matmul(noise, self.tril[0], transpose_b=True)
        return matmul_by_class(noise, self.tril, labels)

    def whiten(self, offset):
        """The inverses, float32 to save memory, and their products with `[C, D]`."""
        size = offset.shape[1]
        whitening = np.zeros(self.tril.shape, np.float32)
        whitened = offset.reshape(len(self.tril), -1, size).copy()

        def whiten(triangle, inverse, rows):
            exact = np.zeros([size, size])
            with np.errstate(over="ignore", invalid="ignore"):  # the caller checks
                _invert(triangle, exact)
                inverse[...] = exact
                rows[...] = rows @ exact.T

        with matrix_workers(len(self.tril), size**3) as map_in_order:
            list(map_in_order(whiten, self.tril, whitening, whitened))
        return whitening, whitened.reshape(offset.shape)

    @staticmethod
    def distances(centered, whitening, whitened_loc):
        """`|whitening_c centered_i - whitened_loc_c|^2` `[B, C]`, on any backend."""
        ops = keras.ops
        # Factors side by side, so that all classes take one product.
        side_by_side = ops.reshape(whitening, (-1, whitening.shape[-1]))
        white = ops.matmul(centered, ops.transpose(side_by_side))
        white = ops.reshape(white, (-1, *whitening.shape[:2]))  # [B, C|1, D]
        return ops.sum(ops.square(white - whitened_loc), axis=-1)

    def to_tfp(self, tfd, loc):
        """The Gaussians as a distribution of `tfd`, `tfp.distributions`."""
        return tfd.MultivariateNormalTriL(loc, scale_tril=self.tril)


def _invert(triangle, out):
    """Inverts a lower triangle, by NumPy's products where SciPy would hold the GIL."""
    size = len(triangle)
    if size <= _INVERTED_AT_ONCE:
        out[...] = scipy.linalg.lapack.dtrtri(triangle.T)[0].T
        return
    first, last = slice(size // 2), slice(size // 2, size)
    _invert(triangle[first, first], out[first, first])
    _invert(triangle[last, last], out[last, last])
    between = triangle[last, first] @ out[first, first]
    np.matmul(out[last, last], -between, out=out[last, first])


def matmul_by_class(noise, scale, labels):
    """`scale[labels_i] noise_i` `[B, D]`, of TensorFlow tensors."""
    num_classes = scale.shape[0]
    if num_classes > _UNROLLED_CLASSES:
        return _matmul_in_a_loop(noise, scale, labels)
    labels, rows = tf.cast(labels, tf.int32), tf.range(tf.size(labels))
    parts = tf.dynamic_partition(noise, labels, num_classes)
    products = [tf.matmul(x, scale[c], transpose_b=True) for c, x in enumerate(parts)]
    return tf.dynamic_stitch(tf.dynamic_partition(rows, labels, num_classes), products)


def _matmul_in_a_loop(noise, scale, labels):
    """Like `matmul_by_class`, with a graph of constant size."""
    order = tf.argsort(labels, stable=True)
    classes, _, sizes = tf.unique_with_counts(tf.gather(labels, order))
    stops = tf.cumsum(sizes)
    sorted_noise = tf.gather(noise, order)
    shape = [None, scale.shape[1]]
    products = tf.TensorArray(
        noise.dtype, tf.size(classes) + 1, element_shape=shape, infer_shape=False
    )

    def one_class(i, products):
        rows = sorted_noise[stops[i] - sizes[i] : stops[i]]
        product = tf.matmul(rows, scale[classes[i]], transpose_b=True)
        return i + 1, products.write(i, product)

    last, products = tf.while_loop(
        lambda i, _: i < tf.size(classes), one_class, (0, products)
    )
    # `concat` needs at least one element.
    products = products.write(last, tf.zeros([0, scale.shape[1]], noise.dtype))
    return tf.gather(products.concat(), tf.math.invert_permutation(order))
