"""Standard deviations of diagonal covariances, "diag" and "spherical"."""

import collections

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.gaussians.sample_covariance import SampleCovariance

__all__ = ["DiagonalScale", "Independent", "distances_by_class", "sums_by_class"]

# Deviations per example that are in memory at a time.
_DEVIATIONS = 2**16


class Independent:
    """Base class of scales with independent noise, `diag`."""

    sample_class = SampleCovariance
    eigenvalues = staticmethod(np.sort)
    rounding = 0.0  # of eigenvalues

    @staticmethod
    def products(rows, starts):
        """Sums of squares of centered rows between consecutive starts; changes them."""
        return sums_by_class(np.square(rows, out=rows), starts)

    @staticmethod
    def add(scatter, classes, products):
        """Adds the products of each of `classes`."""
        scatter[classes] += products

    @staticmethod
    def add_between(scatter, classes, weighted, delta):
        """Adds the diagonals of `weighted_k delta_k^T` `[K, D]`; changes `weighted`."""
        weighted *= delta
        scatter[classes] += weighted

    @staticmethod
    def squares(scatter):
        """The scatter itself."""
        return scatter

    @staticmethod
    def factorize(variance, added):
        """Replaces variances, plus `added`, by standard deviations, in place."""
        np.sqrt(variance + added, out=variance)

    def log_det(self):
        """The log-determinants of the factors, `[C]`."""
        return np.log(self.diag).sum(axis=1)

    def matmul(self, noise, labels):
        """`diag[labels_i] * noise_i` `[B, D]`, of TensorFlow tensors."""
        return noise * tf.gather(self.diag, labels)

    def whiten(self, offset):
        """The inverses of `diag`, and their products with `[C, D]`."""
        whitening = 1 / self.diag
        return whitening, whitening * offset


class DiagonalScale(Independent, collections.namedtuple("DiagonalScale", "diag")):
    """covariance_c = diag(diag_c^2).

    Attributes:
        diag: standard deviations `[C, D]`. The scatter of their moments is `[C, D]`.
    """

    axes = ("CD",)

    @staticmethod
    def distances(centered, whitening, whitened_loc):
        """`|whitening_c centered_i - whitened_loc_c|^2` `[B, C]`, on any backend."""
        ops = keras.ops

        def some(whitening, whitened_loc):
            white = centered * whitening[:, None] - whitened_loc[:, None]  # [K, B, D]
            return ops.sum(ops.square(white), axis=-1)

        return distances_by_class(some, whitening, whitened_loc)

    def to_tfp(self, tfd, loc):
        """The Gaussians as a distribution of `tfd`, `tfp.distributions`."""
        return tfd.MultivariateNormalDiag(loc, scale_diag=self.diag)


def sums_by_class(rows, starts):
    """Sums the rows between consecutive starts, `[starts, D]`."""
    ones = np.ones(len(rows), rows.dtype)
    parts = np.split(rows, starts[1:])
    return np.stack([ones[: len(part)] @ part for part in parts])


def distances_by_class(distances, *variables):
    """Computes distances `[B, C]` for a bounded number of classes at a time.

    `distances` returns `[K, B]` for K classes, given K entries of each variable, a
    tensor or Keras variable `[C, D, ...]`.
    """
    ops = keras.ops
    num_classes, size = variables[0].shape[:2]
    step = max(1, _DEVIATIONS // size)
    whole = num_classes // step if num_classes > step else 0

    def some(start, num):
        tensors = []
        for variable in variables:
            begin = [start] + [0] * (len(variable.shape) - 1)
            tensor = ops.convert_to_tensor(variable)  # jax cannot slice Keras variables
            tensors.append(ops.slice(tensor, begin, (num, *variable.shape[1:])))
        return distances(*tensors)

    parts = []
    if whole:
        part = ops.map(lambda i: some(i, step), step * ops.arange(whole))
        parts.append(ops.reshape(part, (whole * step, -1)))
    if whole * step < num_classes:
        parts.append(some(whole * step, num_classes - whole * step))
    return ops.transpose(ops.concatenate(parts, axis=0))
