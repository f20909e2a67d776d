"""Covariances with all correlations, "full" and "tied": lower triangular factors."""

import collections

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from tf_pseudofeat.gaussians.sample_covariance import SampleCovariance

__all__ = ["TriangularScale", "matmul_by_class"]

# Rows of a matrix that are transposed at a time.
_TILE = 64
# A product for each class costs a stream some 1 ms an epoch to begin, a loop 20 ms.
_UNROLLED_CLASSES = 64


class TriangularScale(collections.namedtuple("TriangularScale", "tril")):
    """covariance_c = tril_c tril_c^T.

    Attributes:
        tril: lower triangular `[C, D, D]`, or `[1, D, D]` that all classes share. The
            scatter of their moments is `[C, D, D]` or, of all classes, `[D, D]`.
    """

    axes = ("CDD",)
    sample_class = SampleCovariance
    eigenvalues = staticmethod(np.linalg.eigvalsh)
    rounding = np.finfo(np.float32).eps  # of eigenvalues, times D

    @staticmethod
    def add_rows(scatter, chunks):
        """Adds `rows^T rows` of `(centred rows, their classes, starts of these)`."""
        for rows, classes, _ in chunks:
            # From SciPy's BLAS, because the factors come from it: the threads of
            # NumPy's own would still be waiting for work then, and be in the way.
            (syrk,) = scipy.linalg.get_blas_funcs(["syrk"], [rows])
            # Where the scatter is not of all classes, each chunk is of one.
            target = scatter if scatter.ndim == 2 else scatter[classes[0]]
            target += syrk(1.0, rows.T).T  # the lower triangle
        for matrix in scatter.reshape(-1, *scatter.shape[-2:]):
            for start in range(0, len(matrix), _TILE):  # at once would miss the cache
                some = slice(start, start + _TILE)
                matrix[some, start:] += np.tril(matrix[start:, some], -1).T

    @staticmethod
    def add_between(scatter, weighted, delta):
        """Adds `weighted_c delta_c^T`, of `[C, D]` each."""
        if scatter.ndim == 2:
            scatter += weighted.T @ delta
            return
        # At once, it would be [C, D, D] more.
        for class_id in np.flatnonzero(weighted.any(axis=1)):
            scatter[class_id] += np.outer(weighted[class_id], delta[class_id])

    @staticmethod
    def squares(scatter):
        """The diagonal of a scatter `[..., D]`."""
        return np.diagonal(scatter, axis1=-2, axis2=-1)

    @staticmethod
    def factorize(matrix, added):
        """Turns a covariance, with variance added, into its factor, in place."""
        matrix[np.diag_indices(len(matrix))] += added
        # The transpose is as LAPACK wants it: no copy is made.
        upper = scipy.linalg.cholesky(matrix.T, overwrite_a=True, check_finite=False)
        matrix[...] = upper.T

    @property
    def diag(self):
        """Standard deviations, each given the features before it `[C, D]`."""
        return np.diagonal(self.tril, axis1=1, axis2=2)

    def log_det(self):
        """`[C]`, or `[1]` of a shared one."""
        return np.log(self.diag).sum(axis=1)

    def matmul(self, noise, labels):
        """`tril[labels_i] noise_i` `[B, D]`, of TensorFlow tensors."""
        if self.tril.shape[0] == 1:
            return tf.matmul(noise, self.tril[0], transpose_b=True)
        return matmul_by_class(noise, self.tril, labels)

    def whiten(self, offset):
        """The inverse, float32 as it is of `C D D` numbers, and it times `[C, D]`."""
        whitening = np.empty(self.tril.shape, np.float32)
        whitened = offset.reshape(len(self.tril), -1, offset.shape[1]).copy()
        for triangle, inverse, rows in zip(self.tril, whitening, whitened, strict=True):
            # An inverse, since what whitens must be one matrix product.
            inverse[...] = scipy.linalg.lapack.dtrtri(triangle.T)[0].T
            rows[...] = scipy.linalg.solve_triangular(
                triangle, rows.T, lower=True, check_finite=False
            ).T
        return whitening, whitened.reshape(offset.shape)

    @staticmethod
    def distances(centred, whitening, whitened_loc):
        """`|whitening_c centred_i - whitened_loc_c|^2` `[B, C]`, on any backend."""
        ops = keras.ops
        # The factors stand side by side, so that all classes are one product.
        side_by_side = ops.reshape(whitening, (-1, whitening.shape[-1]))
        white = ops.matmul(centred, ops.transpose(side_by_side))
        white = ops.reshape(white, (-1, *whitening.shape[:2]))  # [B, C|1, D]
        return ops.sum(ops.square(white - whitened_loc), axis=-1)

    def to_tfp(self, tfd, loc):
        """The Gaussians as a distribution of `tfd`, `tfp.distributions`."""
        return tfd.MultivariateNormalTriL(loc, scale_tril=self.tril)


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
    """The same, in a graph whose size does not grow with the number of classes."""
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
    # `concat` needs a piece even of no rows.
    products = products.write(last, tf.zeros([0, scale.shape[1]], noise.dtype))
    return tf.gather(products.concat(), tf.math.invert_permutation(order))
