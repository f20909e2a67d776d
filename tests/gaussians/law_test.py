"""The law of the draws: normal, of the mean and the covariance that were fitted.

Every row is whitened by the mean and the covariance it should have, in float64. Then
the first and second moments are held against those of a standard normal, with their
error bars, and the shape against Mardia's skewness and kurtosis and the Henze-Zirkler
test. Each of the tests refuses a law that is wrong in its way.

References:
    Mardia (1970), "Measures of Multivariate Skewness and Kurtosis with Applications".
    Henze and Zirkler (1990), "A Class of Invariant Consistent Tests for Multivariate
        Normality".
"""

import functools

import numpy as np
import pytest
from scipy import stats

from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.covariance import COVARIANCE_TYPES, estimate_covariance
from tf_pseudofeat.gaussians.low_rank import LowRankScale
from tf_pseudofeat.sampling.interleave import interleave

SIZE, NUM = 6, 30_000
SHAPE_ROWS = 1200  # the tests of shape compare every row with every other
LABELS = np.repeat([0, 1, 2], [300, 60, 25])
# Of a false alarm in this file: 5 types, 2 ways to draw, 3 classes, 6 tests.
FAMILY_WISE_ERROR, NUM_TESTS = 1e-3, 180


@functools.cache
def fitted(covariance_type):
    """Gaussians of correlated features, and the `[(mean, covariance)]` they hold."""
    rng = np.random.default_rng(0)
    turns = rng.normal(size=(3, SIZE, SIZE))
    features = np.einsum("nd,nde->ne", rng.normal(size=(385, SIZE)), turns[LABELS])
    features += 5 * rng.normal(size=(3, SIZE))[LABELS]
    rank = 2 if covariance_type == "low_rank" else None
    gaussian = ClassConditionalGaussian(3, covariance_type, rank=rank)
    gaussian.adapt(features, LABELS)
    scale = estimate_covariance(gaussian.moments, covariance_type).scale
    covariances = np.broadcast_to(products(scale), (3, SIZE, SIZE))
    laws = list(zip(gaussian.moments.mean, covariances, strict=True))
    return gaussian, laws


def products(scale):
    """The covariances of factors of any type."""
    if isinstance(scale, LowRankScale):
        diag, factor = scale
        return products(diag) + factor @ factor.transpose(0, 2, 1)
    if scale.ndim == 2:
        scale = scale[:, np.newaxis] * np.eye(SIZE)
    return scale @ scale.transpose(0, 2, 1)


def sampled(gaussian):
    labels = np.random.default_rng(1).permutation(np.repeat([0, 1, 2], NUM))
    return gaussian.sample(labels, (3, 4)).numpy(), labels


def streamed(gaussian):
    """As a head sees them, without the real features."""
    far = np.full((1, SIZE), 1e9, "float32")
    counts = dict.fromkeys(range(3), NUM)
    batches = zip(*interleave(far, [0], gaussian, counts, 4096, (3, 4)), strict=True)
    rows, labels = (np.concatenate([np.asarray(b) for b in part]) for part in batches)
    return rows[rows[:, 0] != 1e9], labels[rows[:, 0] != 1e9]


# The tests. Each takes rows that should be standard normal, and gives a chance.


def chance_of_mean(white):
    """Of the largest mean of a feature, of n: its error is 1 / sqrt(n)."""
    z = np.abs(white.mean(axis=0)).max() * np.sqrt(len(white))
    return white.shape[1] * 2 * stats.norm.sf(z)


def chance_of_covariance(white):
    """Of the largest entry off the diagonal; its error is 1 / sqrt(n)."""
    products = white.T @ white / np.sqrt(len(white))
    largest = np.abs(products[np.triu_indices(len(products), 1)]).max()
    return len(products) * (len(products) - 1) * stats.norm.sf(largest)


def chance_of_scale(white):
    """Of the sum of all squares: chi-square with n D degrees of freedom."""
    law = stats.chi2(white.size)
    total = np.square(white).sum()
    return 2 * min(law.cdf(total), law.sf(total))


def standardised(white):
    """By their own mean and covariance, of the first rows."""
    rows = white[:SHAPE_ROWS] - white[:SHAPE_ROWS].mean(axis=0)
    factor = np.linalg.cholesky(rows.T @ rows / len(rows))
    return np.linalg.solve(factor, rows.T).T


def chance_of_skewness(white):
    """n / 6 mean((z_i . z_j)^3) is chi-square with D (D + 1) (D + 2) / 6 degrees."""
    z = standardised(white)
    n, d = z.shape
    skewness = np.mean((z @ z.T) ** 3)
    return stats.chi2(d * (d + 1) * (d + 2) / 6).sf(n * skewness / 6)


def chance_of_kurtosis(white):
    """mean(|z|^4) is normal around D (D + 2), with variance 8 D (D + 2) / n."""
    z = standardised(white)
    n, d = z.shape
    kurtosis = np.mean(np.square(z).sum(axis=1) ** 2)
    expected = d * (d + 2) * (n - 1) / (n + 1)
    return 2 * stats.norm.sf(abs(kurtosis - expected) / np.sqrt(8 * d * (d + 2) / n))


def chance_of_shape(white):
    """Henze and Zirkler's distance of characteristic functions, about lognormal."""
    z = standardised(white)
    n, d = z.shape
    b2 = ((2 * d + 1) * n / 4) ** (2 / (d + 4)) / 2  # their beta, squared
    squares = np.square(z).sum(axis=1)
    between = squares[:, np.newaxis] + squares - 2 * z @ z.T
    distance = n * (
        np.exp(-b2 / 2 * between).mean()
        - 2 * (1 + b2) ** (-d / 2) * np.exp(-b2 / (2 + 2 * b2) * squares).mean()
        + (1 + 2 * b2) ** (-d / 2)
    )
    a, w, dd = 1 + 2 * b2, (1 + b2) * (1 + 3 * b2), d * (d + 2)
    mean = 1 - a ** (-d / 2) * (1 + d * b2 / a + dd * b2**2 / (2 * a**2))
    variance = (
        2 * (1 + 4 * b2) ** (-d / 2)
        + 2 * a**-d * (1 + 2 * d * b2**2 / a**2 + 3 * dd * b2**4 / (4 * a**4))
        - 4 * w ** (-d / 2) * (1 + 3 * d * b2**2 / (2 * w) + dd * b2**4 / (2 * w**2))
    )
    spread = np.log(1 + variance / mean**2)
    law = stats.lognorm(np.sqrt(spread), scale=mean * np.exp(-spread / 2))
    return law.sf(distance)


TESTS = {
    "mean": chance_of_mean,
    "covariance": chance_of_covariance,
    "scale": chance_of_scale,
    "skewness": chance_of_skewness,
    "kurtosis": chance_of_kurtosis,
    "shape": chance_of_shape,
}


def refused(rows, mean, covariance):
    """Names of the tests that say the rows are of another law."""
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, (np.asarray(rows, np.float64) - mean).T).T
    allowed = FAMILY_WISE_ERROR / NUM_TESTS
    return {name for name, chance_of in TESTS.items() if chance_of(white) < allowed}


# What is drawn.


@pytest.mark.parametrize("draw", [sampled, streamed])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_draws_of_every_class_are_of_its_law(covariance_type, draw):
    gaussian, laws = fitted(covariance_type)
    rows, labels = draw(gaussian)
    for class_id, law in enumerate(laws):
        mine = rows[labels == class_id]
        assert len(mine) == NUM
        assert refused(mine, *law) == set()


# What would be refused.


def normal(rng, mean, covariance):
    return rng.multivariate_normal(mean, covariance, NUM, method="cholesky")


def wider(rng, mean, covariance):
    """Deviations of 1 % more."""
    return normal(rng, mean, 1.01**2 * covariance)


def without_correlations(rng, mean, covariance):
    return normal(rng, mean, np.diag(np.diag(covariance)))


def without_one_correlation(rng, mean, covariance):
    """The smallest one."""
    factor = np.linalg.cholesky(covariance)
    below = np.where(np.tri(SIZE, k=-1), np.abs(factor), np.inf)
    factor[np.unravel_index(below.argmin(), factor.shape)] = 0
    return normal(rng, mean, factor @ factor.T)


def moved(rng, mean, covariance):
    """One mean by a twentieth of its deviation."""
    mean = mean + 0.05 * np.sqrt(np.diag(covariance)) * np.eye(SIZE)[0]
    return normal(rng, mean, covariance)


def heavy_tails(rng, mean, covariance):
    """Student's t with 10 degrees of freedom, of the same covariance."""
    chi = np.sqrt(rng.chisquare(10, size=(NUM, 1)) / 8)
    return mean + normal(rng, 0 * mean, covariance) / chi


def transformed(noise, mean, covariance):
    return mean + noise @ np.linalg.cholesky(covariance).T


def uniform(rng, mean, covariance):
    return transformed(rng.uniform(-(3**0.5), 3**0.5, (NUM, SIZE)), mean, covariance)


def skewed(rng, mean, covariance):
    """Gamma of shape 25: its skewness is 0.4."""
    noise = (rng.gamma(25, size=(NUM, SIZE)) - 25) / 5
    return transformed(noise, mean, covariance)


def on_shells(rng, mean, covariance):
    """Of the right mean, covariance, skewness and kurtosis, and yet not normal."""
    noise = rng.normal(size=(NUM, SIZE))
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    # Two radii, of which |z|^2 has the mean D and the variance 2 D of chi-square.
    radius = SIZE + np.sqrt(2 * SIZE) * rng.choice([-1, 1], (NUM, 1))
    return transformed(noise * np.sqrt(radius), mean, covariance)


@pytest.mark.parametrize(
    ("law", "by"),
    [
        (normal, None),
        (wider, "scale"),
        (without_correlations, "covariance"),
        (without_one_correlation, "covariance"),
        (moved, "mean"),
        (heavy_tails, "kurtosis"),
        (uniform, "kurtosis"),
        (skewed, "skewness"),
        (on_shells, "shape"),
    ],
)
def test_each_test_rejects_what_is_wrong_in_its_way(law, by):
    _, laws = fitted("full")
    rows = law(np.random.default_rng(7), *laws[1])
    received = refused(rows, *laws[1])
    assert by in received if by else received == set()
