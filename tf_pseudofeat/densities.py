"""Log densities of many features under the Gaussians of all classes at once.

A triangular solve for each class is slow, and so is its backward pass. So the factors
are inverted when they are fitted, in float64, and what is left for each batch is a
matrix product.
"""

import typing

import keras
import numpy as np
import scipy.linalg

from tf_pseudofeat.low_rank import LowRankScale

__all__ = ["WhitenedGaussians", "diagonals", "log_densities", "whiten"]

# Deviations from the means, of one example, that are in memory at a time.
_DEVIATIONS = 2**16


class WhitenedGaussians(typing.NamedTuple):
    """Gaussians as their densities need them, arrays or Keras variables.

    Attributes:
        centre: `[D]`, the mean of all examples, to take off before float32 loses it.
        whitening: the inverse of the factors: `[C, D, D]`, `[1, D, D]`, or `[C, D]` of
            standard deviations.
        whitened_loc: `[C, D]`, whitening_c (loc_c - centre).
        log_normaliser: `[C]`, -inf for a class without examples.
        factor: of a `LowRankScale`, `[C, D, rank]`; None of others.
    """

    centre: object
    whitening: object
    whitened_loc: object
    log_normaliser: object
    factor: object = None


def whiten(moments, scale):
    """What densities need, from float64 moments and factors.

        log_normaliser_c = -D/2 log(2 pi) - log det scale_c

    Args:
        moments: `ClassMoments`.
        scale: float64 factors, as `estimate_covariance` gives them.

    Returns:
        whitened: `WhitenedGaussians` of arrays, float64 but for `centre` and what takes
        `C D D` or `C D rank` numbers, which is float32.
    """
    factor, log_det = None, np.log(diagonals(scale)).sum(axis=1)
    if isinstance(scale, LowRankScale):
        scale, factor = scale
        # Class by class: at once, it would be twice [C, D, rank] in float64.
        squares = [
            np.square(columns / deviation[:, None]).sum(axis=0)
            for columns, deviation in zip(factor, scale, strict=True)
        ]
        log_det += np.log1p(squares).sum(axis=1) / 2
    centre = moments.count @ moments.mean / moments.count.sum()  # [D]
    centre = centre.astype(np.float32)
    offset = moments.mean - centre  # as `log_densities` takes it off
    if scale.ndim == 2:
        whitening = 1 / scale  # [C, D]
        whitened_loc = whitening * offset
    else:
        whitening = np.empty(scale.shape, np.float32)
        whitened_loc = np.empty(offset.shape)
        for number, triangle in enumerate(scale):
            whitening[number] = _inverse(triangle)
            owners = [number] if len(scale) == len(offset) else slice(None)
            whitened_loc[owners] = scipy.linalg.solve_triangular(
                triangle, offset[owners].T, lower=True, check_finite=False
            ).T
    normaliser = -moments.feature_size / 2 * np.log(2 * np.pi) - log_det
    normaliser = np.where(moments.count > 0, normaliser, -np.inf)
    return WhitenedGaussians(centre, whitening, whitened_loc, normaliser, factor)


def diagonals(scale):
    """Of factors, `[C, D]` or `[1, D]`: of what is independent, standard deviations."""
    if isinstance(scale, LowRankScale):
        return scale.diag
    return scale if scale.ndim == 2 else np.diagonal(scale, axis1=1, axis2=2)


def log_densities(features, gaussians):
    """Log densities `[B, C]`, on any Keras backend.

        white_c     = whitening_c (x - centre) - whitened_loc_c
        log_density = log_normaliser_c - |white_c|^2 / 2

    Args:
        features: float32 tensor `[B, D]`.
        gaussians: `WhitenedGaussians` of float32.

    Returns:
        log_density: float32 `[B, C]`.
    """
    ops = keras.ops
    centred = features - gaussians.centre
    whitening = gaussians.whitening
    if len(whitening.shape) == 2:
        distance = _distances_by_class(centred, gaussians)
    else:
        # The factors stand side by side, so that all classes are one product.
        side_by_side = ops.reshape(whitening, (-1, whitening.shape[-1]))
        white = ops.matmul(centred, ops.transpose(side_by_side))
        white = ops.reshape(white, (-1, *whitening.shape[:2]))  # [B, C|1, D]
        distance = ops.sum(ops.square(white - gaussians.whitened_loc), axis=-1)
    return gaussians.log_normaliser - 0.5 * distance


def _distances_by_class(centred, gaussians):
    """`[B, C]`, of as many classes at a time as fit, never `[B, C, D]` of many."""
    ops = keras.ops
    num_classes, size = gaussians.whitened_loc.shape
    step = max(1, _DEVIATIONS // size)
    whole = num_classes // step if num_classes > step else 0
    parts = []
    if whole:
        starts = step * ops.arange(whole)
        part = ops.map(lambda i: _distances(centred, gaussians, i, step), starts)
        parts.append(ops.reshape(part, (whole * step, -1)))
    if whole * step < num_classes:
        rest = num_classes - whole * step
        parts.append(_distances(centred, gaussians, whole * step, rest))
    return ops.transpose(ops.concatenate(parts, axis=0))


def _distances(centred, gaussians, start, num):
    """Squared Mahalanobis distances `[K, B]` from `num` classes.

        y        = (x - loc) / diag
        distance = |y - U U^T y|^2 + sum_k (U^T y)_k^2 / (1 + s_k^2)

    with diag^-1 factor = U s, U of orthonormal columns. This is what Woodbury's formula
    comes to, without its difference of two large numbers.
    """
    ops = keras.ops

    def some(variable):
        begin = [start] + [0] * (len(variable.shape) - 1)
        tensor = ops.convert_to_tensor(variable)  # jax slices no Keras variables
        return ops.slice(tensor, begin, (num, *variable.shape[1:]))

    whitening = some(gaussians.whitening)  # [K, D]
    white = centred * whitening[:, None] - some(gaussians.whitened_loc)[:, None]
    if gaussians.factor is None:
        return ops.sum(ops.square(white), axis=-1)
    basis = some(gaussians.factor) * whitening[:, :, None]  # U s, [K, D, rank]
    squares = ops.sum(ops.square(basis), axis=1)[:, None]  # s^2, [K, 1, rank]
    inverse = ops.where(squares > 0, 1 / ops.where(squares > 0, squares, 1), 0)
    along = ops.matmul(white, basis)  # s U^T y, [K, B, rank]
    white -= ops.matmul(along * inverse, ops.transpose(basis, (0, 2, 1)))
    along = ops.square(along) * inverse / (1 + squares)
    return ops.sum(ops.square(white), axis=-1) + ops.sum(along, axis=-1)


def _inverse(factor):
    """Of a lower triangular factor: what whitens must be one matrix product."""
    inverse, _ = scipy.linalg.lapack.dtrtri(factor.T)
    return inverse.T
