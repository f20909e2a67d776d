"""Few directions for many examples: a sketch of rows, and a covariance made of it.

Where `[C, D, D]` does not fit in memory and variances alone lose the correlations: a
class keeps `2 rank` rows whose products are nearly those of all its examples, and its
covariance is a diagonal and `rank` directions.

References:
    [1] Liberty, "Simple and Deterministic Matrix Sketching", KDD 2013.
    [2] Ghashami, Liberty, Phillips and Woodruff, "Frequent Directions: Simple and
        Deterministic Matrix Sketching", SIAM Journal on Computing 45(5), 2016.
    [3] Ghashami, Desai and Phillips, "Improved Practical Matrix Sketching with
        Guarantees", ESA 2014.
    [4] Tipping and Bishop, "Probabilistic Principal Component Analysis", Journal of
        the Royal Statistical Society B 61(3), 1999.
"""

import typing

import numpy as np
import scipy.linalg

__all__ = [
    "LowRankScale",
    "add_rows",
    "low_rank_part",
    "no_sketch",
    "rows_at_a_time",
    "sketch_shape",
    "turned",
]

# Squares of singular values below this share of the largest are rounding.
_NOTHING = 1e-12
# So is, of a sketch in float32, what is less of a variance than this.
_ROUNDING = 1e-6
# Rows of features of few numbers: their products are a small matrix, and exact.
_CHUNK_ROWS = 4096


class LowRankScale(typing.NamedTuple):
    """covariance_c = diag(diag_c^2) + factor_c factor_c^T.

    Attributes:
        diag: standard deviations `[C, D]` of what is independent.
        factor: directions `[C, D, rank]`, orthogonal in units of `diag`, with zeros
            where a class has fewer than `rank`.
    """

    diag: object
    factor: object


def sketch_shape(num_classes, rank, feature_size):
    """`[C, 2 rank, D]`."""
    return num_classes, 2 * rank, feature_size


def no_sketch(num_classes, rank, feature_size):
    """Sketches of no rows, float32 `[C, 2 rank, D]`."""
    return np.zeros(sketch_shape(num_classes, rank, feature_size), np.float32)


def rows_at_a_time(sketch):
    """How many rows `add_rows` had best get at a time."""
    length, size = sketch.shape[-2:]
    return _CHUNK_ROWS if size <= 4 * length else 3 * length


def add_rows(sketch, rows):
    """Adds rows to one sketch, in place.

    Of A, all rows that were added, in any order and grouping and also as rows of other
    sketches, the sketch B keeps

        0 <= A^T A - B^T B <= delta I
        delta <= (|A|^2 - |B|^2) / (s + 1)
        delta <= |A - A_k|^2 / (s + 1 - k)        for every k <= s

    with Frobenius norms, A_k the best approximation of rank k, and s = `rank - rank
    // 2`. The products are exact, delta = 0, as long as A has no more than `2 rank`
    directions. This is Frequent Directions [1, 2] with the `rank` strongest directions
    left whole, as in [3]: what is taken off, delta, is taken off the weak ones.

    Args:
        sketch: `[2 rank, D]`, rows of zeros last.
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
    """Rows `[<= length, D]` with nearly the same products as `rows`."""
    squares, directions = _spectrum(rows)
    rank, kept = length // 2, len(squares)
    if kept > length:
        # Room for some more rows is made at a time, so that not each needs a spectrum.
        kept = max(length - rank // 2, 1)
        lost = squares[kept]
        squares = squares[:kept].copy()
        squares[rank:] -= lost
    return np.sqrt(squares)[:, np.newaxis] * directions[:kept]


def _spectrum(rows):
    """Squared singular values `[K]`, largest first, above 0, and their directions."""
    rows = np.asarray(rows, np.float64)
    wide = len(rows) < rows.shape[1]
    # From SciPy's BLAS, as all that is large here: see `moments._lower_gram`.
    gram = scipy.linalg.blas.dsyrk(1.0, rows.T, trans=int(wide), lower=1)
    squares, vectors = _eigenvalues(gram)
    kept = np.count_nonzero(squares > max(_NOTHING * squares[0], 0.0))
    squares, vectors = squares[:kept], vectors[:, :kept]
    if not kept:
        return squares, np.zeros((0, rows.shape[1]))
    if not wide:
        return squares, vectors.T
    directions = scipy.linalg.blas.dgemm(1.0, rows.T, vectors).T
    return squares, directions / np.sqrt(squares)[:, np.newaxis]


def _eigenvalues(matrix):
    """Of a symmetric matrix, of which the lower half counts: largest first, vectors."""
    # SciPy 1.11 asks for too little memory to divide and conquer a single number.
    driver = "evd" if len(matrix) > 1 else "ev"
    values, vectors = scipy.linalg.eigh(matrix, check_finite=False, driver=driver)
    return values[::-1], vectors[:, ::-1]


def low_rank_part(variance, rows):
    """A covariance as a few directions and what they leave of its diagonal.

        factor   = U (Lambda - noise I)^(1/2)
        diagonal = variance - rowsum(factor^2)
        noise    = (sum(variance) - sum(Lambda)) / (D - rank)

    of the `rank` largest eigenvalues Lambda of `rows^T rows` and their directions U:
    the most likely factor [4] where all other directions are alike. Of `rank` D, the
    last direction is one of the diagonal.

    Args:
        variance: exact diagonal `[D]`.
        rows: a sketch `[2 rank, D]` of the same covariance.

    Returns:
        factor: `[D, K]`, K at most `rank`, float64; columns orthogonal.
        diagonal: `[D]`, from 0.
    """
    size = variance.size
    squares, directions = _spectrum(rows)
    rank = min(len(rows) // 2, size - 1, len(squares))
    shares = np.square(directions) * squares[:, np.newaxis]  # of the variance, [K, D]
    lost = variance - shares.sum(axis=0)  # by the sketch
    lost = np.where(lost > _ROUNDING * variance, lost, 0.0)
    # Sums of what is left, since differences of variances would be all rounding.
    noise = (lost.sum() + squares[rank:].sum()) / (size - rank)
    lengths = squares[:rank] - noise
    kept = np.count_nonzero(lengths > _NOTHING * squares.max(initial=0.0))
    diagonal = lost + shares[kept:].sum(axis=0)
    diagonal += noise * np.square(directions[:kept]).sum(axis=0)
    return (np.sqrt(lengths[:kept])[:, np.newaxis] * directions[:kept]).T, diagonal


def turned(factor, deviation):
    """The same `factor factor^T`, with columns orthogonal in units of `deviation`.

    So the density needs no Cholesky factor: with orthogonal columns of lengths s, the
    covariance in these units has variances 1 + s^2 along them, and 1 elsewhere.

    Args:
        factor: `[D, K]`.
        deviation: standard deviations `[D]`.

    Returns:
        factor: `[D, K]`.
    """
    scaled = factor / deviation[:, np.newaxis]
    _, turn = _eigenvalues(scaled.T @ scaled)
    factor = factor @ turn
    # Of the two signs of a column, the one that makes its largest number positive: the
    # same data, in another order, give the same samples.
    largest = np.take_along_axis(factor, np.abs(factor).argmax(axis=0)[None], axis=0)
    return factor * np.where(largest < 0, -1.0, 1.0)
