"""Covariances of independent features, "diag" and "spherical": standard deviations."""

import collections

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from tf_pseudofeat.gaussians.sample_covariance import SampleCovariance

__all__ = ["DiagonalScale", "Independent", "distances_by_class", "sums_by_class"]

# Deviations from the means, of one example, that are in memory at a time.
_DEVIATIONS = 2**16


class Independent:
    """What scales with independent noise, `diag`, have in common."""

    sample_class = SampleCovariance
    eigenvalues = staticmethod(np.sort)
    rounding = 0.0  # of eigenvalues

    @staticmethod
    def add_rows(scatter, chunks):
        """Adds squares of `(centred rows, their classes, starts of these)`."""
        for rows, classes, starts in chunks:
            scatter[classes] += sums_by_class(np.square(rows, out=rows), starts)

    @staticmethod
    def add_between(scatter, weighted, delta):
        """Adds the diagonal of `weighted_c delta_c^T`, of `[C, D]` each."""
        scatter += weighted * delta

    @staticmethod
    def squares(scatter):
        """The scatter itself."""
        return scatter

    @staticmethod
    def factorize(variance, added):
        """Turns variances, with `added` to them, into deviations, in place."""
        np.sqrt(variance + added, out=variance)

    def log_det(self):
        """`[C]`."""
        return np.log(self.diag).sum(axis=1)

    def matmul(self, noise, labels):
        """`diag[labels_i] * noise_i` `[B, D]`, of TensorFlow tensors."""
        return noise * tf.gather(self.diag, labels)

    def whiten(self, offset):
        """Inverses of `diag`, and those times `[C, D]`."""
        whitening = 1 / self.diag
        return whitening, whitening * offset


class DiagonalScale(Independent, collections.namedtuple("DiagonalScale", "diag")):
    """covariance_c = diag(diag_c^2).

    Attributes:
        diag: standard deviations `[C, D]`. The scatter of their moments is `[C, D]`.
    """

    axes = ("CD",)

    @staticmethod
    def distances(centred, whitening, whitened_loc):
        """`|whitening_c centred_i - whitened_loc_c|^2` `[B, C]`, on any backend."""
        ops = keras.ops

        def some(whitening, whitened_loc):
            white = centred * whitening[:, None] - whitened_loc[:, None]  # [K, B, D]
            return ops.sum(ops.square(white), axis=-1)

        return distances_by_class(some, whitening, whitened_loc)

    def to_tfp(self, tfd, loc):
        """The Gaussians as a distribution of `tfd`, `tfp.distributions`."""
        return tfd.MultivariateNormalDiag(loc, scale_diag=self.diag)


def sums_by_class(rows, starts):
    """Sums of NumPy rows from one start to the next `[starts, D]`."""
    (gemv,) = scipy.linalg.get_blas_funcs(["gemv"], [rows])
    ones = np.ones(len(rows), rows.dtype)
    parts = np.split(rows, starts[1:])
    return np.stack([gemv(1.0, part.T, ones[: len(part)]) for part in parts])


def distances_by_class(distances, *variables):
    """Distances `[B, C]`, of as many classes at a time as fit, on any backend.

    `distances` gives those `[K, B]` of K classes, from K entries of each variable, a
    tensor or a Keras variable `[C, D, ...]`.
    """
    ops = keras.ops
    num_classes, size = variables[0].shape[:2]
    step = max(1, _DEVIATIONS // size)
    whole = num_classes // step if num_classes > step else 0

    def some(start, num):
        tensors = []
        for variable in variables:
            begin = [start] + [0] * (len(variable.shape) - 1)
            tensor = ops.convert_to_tensor(variable)  # jax slices no Keras variables
            tensors.append(ops.slice(tensor, begin, (num, *variable.shape[1:])))
        return distances(*tensors)

    parts = []
    if whole:
        part = ops.map(lambda i: some(i, step), step * ops.arange(whole))
        parts.append(ops.reshape(part, (whole * step, -1)))
    if whole * step < num_classes:
        parts.append(some(whole * step, num_classes - whole * step))
    return ops.transpose(ops.concatenate(parts, axis=0))
