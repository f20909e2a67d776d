"""Low-rank covariances from a sketch of the examples.

For `[C, D, D]` that does not fit in memory, if variances alone would lose the
correlations: each class keeps `2 rank` rows whose products approximate those of all its
examples, and its covariance is a diagonal plus `rank` directions.

References:
    [1] Liberty, "Simple and Deterministic Matrix Sketching", KDD 2013.
    [2] Ghashami, Liberty, Phillips and Woodruff, "Frequent Directions: Simple and
        Deterministic Matrix Sketching", SIAM Journal on Computing 45(5), 2016.
    [3] Ghashami, Desai and Phillips, "Improved Practical Matrix Sketching with
        Guarantees", ESA 2014.
    [4] Tipping and Bishop, "Probabilistic Principal Component Analysis", Journal of
        the Royal Statistical Society B 61(3), 1999.
"""

import collections
import functools

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.gaussians.diagonal import Independent, distances_by_class
from tf_pseudofeat.gaussians.sample_covariance import SampleCovariance
from tf_pseudofeat.gaussians.triangular import matmul_by_class

__all__ = [
    "LowRankScale",
    "add_rows",
    "low_rank_part",
    "rotated_factor",
    "rows_at_a_time",
]

# Squared singular values below this fraction of the largest are rounding errors.
_NOTHING = 1e-12
# So are, in a float32 sketch, parts of a variance below this fraction.
_ROUNDING = 1e-6
# Rows at a time for few features, whose products are a small matrix and exact.
_CHUNK_ROWS = 4096


class _SampleDirections(SampleCovariance):
    """A sample covariance as a factor `[D, K]` and a diagonal `[D]`.

    The matrix `[D, D]` is never formed.
    """

    def __init__(
        self,
        scale_class,
        scatter,
        count,
        shrinkage,
        fallback_variance,
        class_id,
        sketch,
    ):
        self.variance = scatter / (count - 1)
        rows = sketch / np.sqrt(count - 1)
        self.directions, self.residual_variance = low_rank_part(self.variance, rows)
        self.eigenvalues = np.square(self.directions).sum(axis=0)  # [K]
        self.rank = self.eigenvalues.size
        super().__init__(
            scale_class, scatter, count, shrinkage, fallback_variance, class_id
        )
        # The independent variances after shrinkage, [D].
        target = self.shrinkage * self.target
        self.independent = (1 - self.shrinkage) * self.residual_variance + target

    def factor(self, diag, factor):
        """Writes the deviations `[D]` and the factor `[D, rank]`."""
        np.sqrt(self.independent + self.jitter, out=diag)
        directions = rotated_factor(np.sqrt(1 - self.shrinkage) * self.directions, diag)
        factor[:, : directions.shape[1]] = directions

    @functools.cached_property
    def bounds(self):
        largest = (1 - self.shrinkage) * self.eigenvalues.max(initial=0.0)
        return np.array([self.independent.min(), self.independent.max() + largest])

    def _mean_variance(self):
        return self.variance.mean()

    def _mean_square(self):
        held = np.square(self.directions).sum(axis=1)  # [D]
        # The columns of the factor are orthogonal.
        squares = np.square(self.eigenvalues).sum()
        squares += (self.residual_variance * (2 * held + self.residual_variance)).sum()
        return squares / self.size**2

    def _note(self):
        share = self.eigenvalues.sum() / (self.target * self.size)
        return f"{100 * share:.0f} % of the variance in {self.rank} directions"


class LowRankScale(Independent, collections.namedtuple("LowRankScale", "diag factor")):
    """covariance_c = diag(diag_c^2) + factor_c factor_c^T.

    Attributes:
        diag: standard deviations of the independent noise `[C, D]`. The moments have a
            scatter `[C, D]` and a sketch.
        factor: directions `[C, D, rank]`, orthogonal in units of `diag`, with zeros if
            a class has fewer than `rank`.
    """

    axes = ("CD", "CDR")
    sample_class = _SampleDirections

    def log_det(self):
        """The log-determinants of the factors, `[C]`."""
        # In a loop, since all at once would take twice [C, D, rank] in float64.
        classes = zip(self.diag, self.factor, strict=True)
        squares = [np.square(u / d[:, None]).sum(axis=0) for d, u in classes]
        return super().log_det() + np.log1p(squares).sum(axis=1) / 2

    def matmul(self, noise, labels):
        """`[diag(diag_c), factor_c] noise_i` `[B, D]`, c = labels_i (TensorFlow)."""
        size = self.diag.shape[-1]
        deviation = super().matmul(noise[:, :size], labels)
        return deviation + matmul_by_class(noise[:, size:], self.factor, labels)

    @staticmethod
    def distances(centered, whitening, whitened_loc, factor):
        """Squared Mahalanobis distances `[B, C]`, on any backend.

            y        = (x - loc) / diag
            distance = |y - U U^T y|^2 + sum_k (U^T y)_k^2 / (1 + s_k^2)

        with diag^-1 factor = U s and orthonormal columns of U. This is Woodbury's
        formula without the difference of two large numbers.
        """
        ops = keras.ops

        def some(whitening, whitened_loc, factor):
            white = centered * whitening[:, None] - whitened_loc[:, None]  # [K, B, D]
            basis = factor * whitening[:, :, None]  # U s, [K, D, rank]
            squares = ops.sum(ops.square(basis), axis=1)[:, None]  # s^2, [K, 1, rank]
            inverse = ops.where(squares > 0, 1 / ops.where(squares > 0, squares, 1), 0)
            along = ops.matmul(white, basis)  # s U^T y, [K, B, rank]
            white -= ops.matmul(along * inverse, ops.transpose(basis, (0, 2, 1)))
            along = ops.square(along) * inverse / (1 + squares)
            return ops.sum(ops.square(white), axis=-1) + ops.sum(along, axis=-1)

        return distances_by_class(some, whitening, whitened_loc, factor)

    def to_tfp(self, tfd, loc):
        """The Gaussians as a distribution of `tfd`, `tfp.distributions`."""
        return tfd.MultivariateNormalDiagPlusLowRankCovariance(
            loc, tf.square(self.diag), self.factor
        )


def rows_at_a_time(sketch):
    """The best number of rows per call of `add_rows`."""
    length, size = sketch.shape[-2:]
    return _CHUNK_ROWS if size <= 4 * length else 3 * length


def add_rows(sketch, rows):
    """Adds rows to one sketch, in place.

    Let A be all rows that were added, in any order and grouping, directly or as rows of
    other sketches. The sketch B satisfies

        0 <= A^T A - B^T B <= delta I
        delta <= (|A|^2 - |B|^2) / (s + 1)
        delta <= |A - A_k|^2 / (s + 1 - k)        for every k <= s

    with Frobenius norms, A_k the best approximation of rank k, and s = `rank - rank
    // 2`. The products are exact, delta = 0, as long as A has no more than `2 rank`
    directions. This is Frequent Directions [1, 2], where delta is subtracted from the
    weak directions only and the `rank` strongest are kept, as in [3].

    Args:
        sketch: `[2 rank, D]`, with rows of zeros last.
        rows: `[M, D]`.
    """
    length, used = len(sketch), np.count_nonzero(sketch.any(axis=1))
    rows = np.asarray(rows, sketch.dtype)
    rows = rows[rows.any(axis=1)]
    if used + len(rows) > length:
        rows = _strongest(np.concatenate([sketch[:used], rows]), length)
        used = 0
        sketch[len(rows) :] = 0
    sketch[used : used + len(rows)] = rows


def _strongest(rows, length):
    """Compresses rows to `[<= length, D]` with nearly the same products."""
    squares, directions = _spectrum(rows)
    rank, kept = length // 2, len(squares)
    if kept > length:
        # Makes room for several rows, so that not every call needs a spectrum.
        kept = max(length - rank // 2, 1)
        lost = squares[kept]
        squares = squares[:kept].copy()
        squares[rank:] -= lost
    return np.sqrt(squares)[:, np.newaxis] * directions[:kept]


def _spectrum(rows):
    """Squared singular values `[K]`, largest first, above 0, and their directions."""
    rows = np.asarray(rows, np.float64)
    wide = len(rows) < rows.shape[1]
    squares, vectors = _eigenvalues(rows @ rows.T if wide else rows.T @ rows)
    kept = np.count_nonzero(squares > max(_NOTHING * squares[0], 0.0))
    squares, vectors = squares[:kept], vectors[:, :kept]
    if not kept:
        return squares, np.zeros((0, rows.shape[1]))
    if not wide:
        return squares, vectors.T
    return squares, (vectors.T @ rows) / np.sqrt(squares)[:, np.newaxis]


def _eigenvalues(matrix):
    """Eigenvalues, largest first, and eigenvectors of a symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1], vectors[:, ::-1]


def low_rank_part(variance, rows):
    """Splits a covariance into a few directions and a residual diagonal.

        factor   = U (Lambda - noise I)^(1/2)
        diagonal = variance - rowsum(factor^2)
        noise    = (sum(variance) - sum(Lambda)) / (D - rank)

    with the `rank` largest eigenvalues Lambda of `rows^T rows` and their directions U:
    the maximum likelihood factor [4] of probabilistic PCA. If `rank` is D, the last
    direction is left to the diagonal.

    Args:
        variance: exact diagonal `[D]`.
        rows: a sketch `[2 rank, D]` of the same covariance.

    Returns:
        factor: `[D, K]`, K at most `rank`, float64; columns orthogonal.
        diagonal: `[D]`, non-negative.
    """
    size = variance.size
    squares, directions = _spectrum(rows)
    rank = min(len(rows) // 2, size - 1, len(squares))
    shares = np.square(directions) * squares[:, np.newaxis]  # of the variance, [K, D]
    lost = variance - shares.sum(axis=0)  # by the sketch
    lost = np.where(lost > _ROUNDING * variance, lost, 0.0)
    # Sums of the remainders, since differences of variances would be rounding errors.
    noise = (lost.sum() + squares[rank:].sum()) / (size - rank)
    eigenvalues = squares[:rank] - noise
    kept = np.count_nonzero(eigenvalues > _NOTHING * squares.max(initial=0.0))
    diagonal = lost + shares[kept:].sum(axis=0)
    diagonal += noise * np.square(directions[:kept]).sum(axis=0)
    return (np.sqrt(eigenvalues[:kept])[:, np.newaxis] * directions[:kept]).T, diagonal


def rotated_factor(factor, deviation):
    """Rotates a factor so that its columns are orthogonal in units of `deviation`.

    `factor factor^T` stays the same. So the density needs no Cholesky factor: with
    orthogonal columns of lengths s, the covariance in these units has variances 1 + s^2
    along them, and 1 elsewhere.
    """
    scaled = factor / deviation[:, np.newaxis]
    _, turn = _eigenvalues(scaled.T @ scaled)
    factor = factor @ turn
    # The sign that makes the largest entry of a column positive, so that samples do not
    # depend on the order of the data.
    largest = np.take_along_axis(factor, np.abs(factor).argmax(axis=0)[None], axis=0)
    return factor * np.where(largest < 0, -1.0, 1.0)
