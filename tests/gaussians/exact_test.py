"""Moments against rational arithmetic, densities and small variances against float64.

The bounds follow from the rounding of each operation, to the first order: u is half
the distance from 1 to the next number, 2**-24 in float32 and 2**-53 in float64, and a
sum of n terms is within n u of the sum of their magnitudes. So they say how well the
numbers can be known, and data that are badly conditioned have wide ones.
"""

import fractions
import functools
import itertools

import ml_dtypes
import numpy as np
import pytest
from scipy import stats

from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.covariance import COVARIANCE_TYPES, estimate_covariance
from tf_pseudofeat.gaussians.covariance_types import as_scale
from tf_pseudofeat.gaussians.moments_estimation import moments_of, moments_of_batches
from tf_pseudofeat.gaussians.moments_merge import merge_moments

KINDS = ("full", "tied", "diag")
# The rounding of "low_rank" is not reckoned here; gaussian_test.py has its densities.
FACTORED = [kind for kind in COVARIANCE_TYPES if kind != "low_rank"]
U32, U64 = 2.0**-24, 2.0**-53
RNG = np.random.default_rng(0)

# ---- Moments. ------------------------------------------------------------------------


def steps(size, rng=RNG):
    """Whole numbers `[N, 3]`, not of one mean: distances in units of the last place."""
    return rng.integers(-4, 9, size=(size, 3)).astype("float64")


def signs(size):
    return np.where(np.arange(size) % 2, 1.0, -1.0)[:, np.newaxis]


def comb(size, every):
    """Every so many rows lie far away: just those that a centre is guessed from."""
    rows = RNG.normal(size=(size, 3))
    rows[::every] += 1e3
    return rows


ADVERSARIAL = {
    "mean 1e6, float32": (1e6 + steps(41) / 16, "float32"),
    "mean 1e8, float32": (1e8 + 8 * steps(41), "float32"),
    "mean 1e6, float64": (1e6 + steps(41) * 2.0**-33, "float64"),
    "mean 1e8, float64": (1e8 + steps(41) * 2.0**-26, "float64"),
    "mean 1e3, float64": (1e3 + steps(41) * 2.0**-43, "float64"),
    "means of both signs": (signs(41) * 1e6 + steps(41) / 16, "float32"),
    "alternating signs": (signs(41) * (1 + steps(41) * 2.0**-23), "float32"),
    "alternating signs, float64": (signs(41) * (1 + steps(41) * 2.0**-50), "float64"),
    "widely mixed": (steps(41) * 10.0 ** RNG.integers(-12, 13, (41, 3)), "float32"),
    "widely mixed, float64": (
        steps(41) * 10.0 ** RNG.integers(-99, 100, (41, 3)),
        "float64",
    ),
    "features of other units": (steps(41) * [1e-9, 1.0, 1e9], "float32"),
    "squares beneath float32": (steps(41) * 1e-23, "float32"),
    "squares half beneath": (steps(41) * 1e-18, "float32"),
    "denormal float32": (steps(41) * 1e-44, "float32"),
    "constant": (np.full((41, 3), 1 / 3), "float32"),
    "constant, float64": (np.full((41, 3), 1e8 / 3), "float64"),
    "one row": (steps(1) / 3, "float32"),
    "two rows": (1e8 + 8 * steps(2), "float32"),
    "one row far away": (
        np.concatenate([RNG.normal(size=(40, 3)), np.full((1, 3), 1e6)]),
        "float32",
    ),
    "float16": (100 + steps(41), "float16"),
    "bfloat16": (256 + 2 * steps(41), ml_dtypes.bfloat16),
    "long whole numbers": (2.0**30 + steps(41), "int64"),
    "comb": (comb(5120, 20), "float32"),
}


def classes_of(size):
    """Labels of three classes of which one has one row, and of one that has none."""
    labels = np.arange(size) % 2 * 3
    labels[0] = 1
    return labels


class Exact:
    """Mean and scatter of rows in rational arithmetic, and the magnitudes behind them.

    Attributes:
        mean: [D] fractions.
        scatter: {(j, k): sum of products of deviations}.
        magnitude: float64 [D, D], sums of products of |deviations| as they are rounded:
            those of the row from a centre which is near the mean.
    """

    def __init__(self, rows, unit, every_row_in_centre):
        columns = [
            [fractions.Fraction(x) for x in column] for column in rows.T.tolist()
        ]
        n = len(rows)
        self.mean = [sum(column) / n for column in columns]
        deviations = [
            [x - mean for x in column]
            for column, mean in zip(columns, self.mean, strict=True)
        ]
        self.scatter = {
            (j, k): sum(map(fractions.Fraction.__mul__, deviations[j], deviations[k]))
            for j, k in itertools.product(range(len(columns)), repeat=2)
        }
        far = np.abs([[float(x) for x in column] for column in deviations])  # [D, N]
        mean = np.abs([float(mean) for mean in self.mean])
        off_centre = unit * mean if every_row_in_centre else far.max(axis=1)
        far = far + off_centre[:, np.newaxis]
        self.mean_error = (n + 6) * unit * far.sum(axis=1) / n + 2 * U64 * mean
        self.magnitude = far @ far.T


def check(received, features, labels, parts=1):
    """Asserts the bounds, class by class.

    Args:
        received: `ClassMoments` of kind "full", "tied" or "diag".
        features: `[N, D]`, as they went in.
        labels: `[N]`.
        parts: how many were merged.
    """
    unit = U32 if features.dtype.itemsize <= 4 else U64
    rows = features.astype(np.float64)
    size = rows.shape[1]
    exact, bound = {}, {}
    for c in np.unique(labels):
        mine = rows[labels == c]
        exact[c] = Exact(mine, unit, len(mine) < 512)
        # Rounding of n products and their sum, and of the merges: each adds a product
        # of differences of means, which are known as well as the means.
        largest = np.abs(mine).max(axis=0)
        spread = np.sqrt(np.diag(exact[c].magnitude) * len(mine))
        merging = exact[c].magnitude + np.outer(largest, spread)
        merging = 4 * parts * U64 * (merging + merging.T)
        bound[c] = (len(mine) + 6) * unit * exact[c].magnitude + merging
        # What is 2**-50 of the largest square may be lost in float32.
        lost = 2.0**-50 if unit == U32 else 0.0
        bound[c] += lost * len(mine) * exact[c].magnitude.max()
        assert received.count[c] == len(mine)
        error = [
            float(abs(fractions.Fraction(mean) - true))
            for mean, true in zip(received.mean[c].tolist(), exact[c].mean, strict=True)
        ]
        assert (error <= exact[c].mean_error + 4 * parts * U64 * largest).all(), error
    absent = np.setdiff1d(np.arange(received.num_classes), labels)
    assert not received.count[absent].any() and not received.mean[absent].any()
    for j, k in itertools.product(range(size), repeat=2):
        if received.kind == "tied":
            pairs = [(received.scatter[j, k], list(exact))]
        elif received.kind == "full":
            pairs = [(received.scatter[c, j, k], [c]) for c in exact]
        else:
            pairs = [(received.scatter[c, j], [c]) for c in exact if j == k]
        for scatter, owners in pairs:
            true = sum(exact[c].scatter[j, k] for c in owners)
            error = float(abs(fractions.Fraction(float(scatter)) - true))
            assert error <= sum(bound[c][j, k] for c in owners), (j, k, error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_moments_are_within_their_rounding_of_the_exact_ones(name, kind):
    features = ADVERSARIAL[name][0].astype(ADVERSARIAL[name][1])
    labels = classes_of(len(features))
    check(moments_of(features, labels, 5, kind), features, labels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["constant", "constant, float64", "one row"])
def test_what_does_not_scatter_has_no_scatter_at_all(name, kind):
    features = ADVERSARIAL[name][0].astype(ADVERSARIAL[name][1])
    assert not moments_of(features, np.zeros(len(features), int), 1, kind).scatter.any()


def one_by_one(parts):
    return functools.reduce(merge_moments, parts)


def backwards(parts):
    return functools.reduce(
        lambda total, part: merge_moments(part, total), reversed(parts)
    )


def in_a_tree(parts):
    while len(parts) > 1:
        pairs = itertools.zip_longest(parts[::2], parts[1::2])
        parts = [
            one if other is None else merge_moments(one, other) for one, other in pairs
        ]
    return parts[0]


def from_the_ends(parts):
    order = [i for pair in zip(range(99), range(98, -1, -1), strict=True) for i in pair]
    order = [i for i in order if i < len(parts)]
    return functools.reduce(merge_moments, [parts[i] for i in dict.fromkeys(order)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [one_by_one, backwards, in_a_tree, from_the_ends])
@pytest.mark.parametrize(
    "name", ["mean 1e8, float32", "mean 1e8, float64", "widely mixed", "constant"]
)
def test_merges_in_odd_orders_are_within_their_rounding(name, way, kind):
    features = ADVERSARIAL[name][0].astype(ADVERSARIAL[name][1])
    labels = classes_of(len(features))
    # The first parts are of one row, the others of seven.
    stops = [*range(1, 9), *range(15, len(features), 7)]
    pieces = zip(np.split(features, stops), np.split(labels, stops), strict=True)
    parts = [moments_of(*piece, 5, kind) for piece in pieces]
    check(way(parts), features, labels, parts=len(parts))


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_pieces_is_within_its_rounding(kind, monkeypatch):
    monkeypatch.setattr("tf_pseudofeat.gaussians.moments_estimation._BUFFER_ROWS", 10)
    features = (1e8 + 8 * steps(41)).astype("float32")
    labels = classes_of(41)
    batches = zip(np.split(features, [3, 4, 20]), np.split(labels, [3, 4, 20]))  # noqa: B905
    moments = moments_of_batches(batches, 5, kind)
    check(moments, features, labels, parts=4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["mean", "scatter"])
def test_the_bounds_are_narrow_enough_to_find_a_mistake(kind, field):
    """Of a ten-thousandth, or the plain formula, mean(x^2) - mean(x)^2."""
    features = ADVERSARIAL["mean 1e6, float32"][0].astype("float32")
    labels = np.zeros(len(features), int)
    moments = moments_of(features, labels, 5, kind)
    check(moments, features, labels)
    deviation = getattr(moments, field)
    deviation += 1e-4 * np.sqrt(moments.scatter.max()) * (deviation != 0)
    with pytest.raises(AssertionError):
        check(moments, features, labels)
    if field == "scatter":
        x = features.astype(np.float32)
        plain = x.T @ x - np.outer(x.sum(axis=0), x.mean(axis=0))
        deviation[...] = np.diag(plain) if kind == "diag" else plain
        with pytest.raises(AssertionError):
            check(moments, features, labels)


# ---- Densities. ----------------------------------------------------------------------

DIMENSIONS = 6


def conditioned(condition, mean=0.0, covariance_type="full"):
    """A fitted layer whose covariances have that condition, and features of it."""
    rng = np.random.default_rng(1)
    spread = np.geomspace(1, condition**-0.5, DIMENSIONS)
    labels = np.arange(600) % 2
    noise = rng.normal(size=(600, DIMENSIONS)) * spread
    if covariance_type in ("full", "tied"):
        turn = np.linalg.qr(rng.normal(size=(DIMENSIONS, DIMENSIONS)))[0]
        noise = noise @ turn
    features = noise + mean + labels[:, np.newaxis] * rng.normal(size=DIMENSIONS)
    gaussian = ClassConditionalGaussian(2, covariance_type, shrinkage=0.0)
    gaussian.adapt(features, labels)
    return gaussian, features.astype("float32")


def factors(gaussian):
    """`(mean [C, D], factor [C, D, D])` that the layer was fitted to, float64."""
    scale = estimate_covariance(
        gaussian.moments, gaussian.covariance_type, gaussian.shrinkage
    ).scale
    if scale.ndim == 2:
        scale = scale[:, np.newaxis] * np.eye(scale.shape[1])
    shape = (gaussian.num_classes, *scale.shape[1:])
    return gaussian.moments.mean, np.broadcast_to(scale, shape)


def solved(factor, columns):
    """factor^-1 columns, in the 64 bits of a long double."""
    factor, columns = np.longdouble(factor), np.longdouble(columns)
    rows = []
    for i, line in enumerate(factor):
        known = sum(line[j] * row for j, row in enumerate(rows))
        rows.append((columns[i] - known) / line[i])
    return np.stack(rows)


def true_log_density(mean, factor, features):
    white = solved(factor, (np.longdouble(features) - np.longdouble(mean)).T)  # [D, N]
    normalizer = len(mean) / 2 * np.log(2 * np.longdouble(np.pi))
    normalizer += np.log(np.longdouble(np.diag(factor))).sum()
    return -normalizer - np.square(white).sum(axis=0) / 2


def bound_of_call(gaussian, mean, factor, features):
    """What float32 arithmetic may do to `call`.

    white = W (x - centre) - W (mean - centre), with W = factor^-1 rounded: each is a
    sum of D products. That it turns into the distance costs 2 |white| of the error.
    """
    centre = np.asarray(gaussian.center, np.float64)
    inverse = np.abs(solved(factor, np.eye(len(mean))).astype(np.float64))
    terms = inverse @ np.abs(features - centre).T + np.abs(
        solved(factor, (mean - centre)[:, np.newaxis]).astype(np.float64)
    )
    error = (len(mean) + 3) * U32 * terms  # of white [D, N]
    return _bound_of_distance(error, mean, factor, features)


def bound_of_tfp(gaussian, mean, factor, features):
    """The same for TFP: a rounded mean and factor, and forward substitution."""
    inverse = np.abs(solved(factor, np.eye(len(mean))).astype(np.float64))
    white = np.abs(solved(factor, (features - mean).T).astype(np.float64))
    terms = np.abs(factor) @ white + np.abs(features - mean).T + np.abs(mean)[:, None]
    error = (len(mean) + 3) * U32 * inverse @ terms
    return _bound_of_distance(error, mean, factor, features)


def _bound_of_distance(error, mean, factor, features):
    white = np.abs(solved(factor, (features - mean).T).astype(np.float64))
    distance = (white + error) ** 2
    size = len(mean)
    logs = np.abs(np.log(np.diag(factor))).sum() + size
    rounding = (size + 4) * U32 * (distance.sum(axis=0) + 2 * logs)
    return (white * error + error**2 / 2).sum(axis=0) + rounding


@pytest.mark.parametrize("covariance_type", FACTORED)
@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("exponent", [0, 2, 4, 6, 8, 10])
def test_log_densities_are_within_their_rounding(exponent, mean, covariance_type):
    gaussian, features = conditioned(10.0**exponent, mean, covariance_type)
    x = features.astype(np.float64)
    received = np.asarray(gaussian(features))
    by_tfp = gaussian.distribution.log_prob(features[:, np.newaxis]).numpy()
    for class_id, law in enumerate(zip(*factors(gaussian), strict=True)):
        true = true_log_density(*law, x)
        bound = bound_of_call(gaussian, *law, x)
        error = np.abs(received[:, class_id] - true).astype(np.float64)
        assert (error <= bound).all(), (error / bound).max()
        bound = bound_of_tfp(gaussian, *law, x)
        error = np.abs(by_tfp[:, class_id] - true).astype(np.float64)
        assert (error <= bound).all(), (error / bound).max()


@pytest.mark.parametrize(("exponent", "most"), [(4, 2e-5), (8, 2e-3), (10, 0.02)])
@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_log_densities_of_the_own_class_are_as_exact_as_call_says(exponent, most, mean):
    gaussian, features = conditioned(10.0**exponent, mean)
    own = features[::2]
    law = next(zip(*factors(gaussian), strict=True))
    error = np.abs(np.asarray(gaussian(own))[:, 0] - true_log_density(*law, own))
    assert error.max() < most


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("exponent", [0, 2, 4, 6])
def test_log_densities_of_classes_far_apart_are_as_exact_as_call_says(
    exponent, covariance_type
):
    """Deviations are 1, class means lie 10**exponent from the center of all."""
    rng = np.random.default_rng(2)
    directions = np.linalg.qr(rng.normal(size=(DIMENSIONS, 3)))[0].T
    labels = np.arange(600) % 3
    noise = rng.normal(size=(600, DIMENSIONS))
    features = (10.0**exponent * directions[labels] + noise).astype("float32")
    gaussian = ClassConditionalGaussian(3, covariance_type, shrinkage=0.0)
    gaussian.adapt(features, labels)
    received = np.asarray(gaussian(features))
    for class_id in range(3):
        own = labels == class_id
        law = stats.multivariate_normal(
            gaussian.moments.mean[class_id], covariance_of(gaussian, class_id)
        )
        error = received[own, class_id] - law.logpdf(features[own].astype("float64"))
        assert np.abs(error).max() < max(2e-5, 4e-7 * 10.0**exponent)


def covariance_of(gaussian, class_id):
    """`[D, D]`, float64."""
    scale = as_scale(
        estimate_covariance(
            gaussian.moments, gaussian.covariance_type, gaussian.shrinkage
        ).scale
    )
    parts = [part[class_id % len(part)].astype("float64") for part in scale]
    squares = [np.diag(part**2) if part.ndim == 1 else part @ part.T for part in parts]
    return sum(squares)


def test_a_factor_that_is_off_by_1e_5_is_found():
    gaussian, features = conditioned(1.0)
    gaussian.whitening.assign(gaussian.whitening * (1 + 1e-5))
    law = next(zip(*factors(gaussian), strict=True))
    received = np.asarray(gaussian(features))[:, 0]
    error = np.abs(received - true_log_density(*law, features))
    assert (error > bound_of_call(gaussian, *law, features)).any()


@pytest.mark.parametrize("exponent", [0, 4, 8])
def test_the_reference_is_that_of_scipy(exponent):
    gaussian, features = conditioned(10.0**exponent)
    for mean, factor in zip(*factors(gaussian), strict=True):
        law = stats.multivariate_normal(mean, factor @ factor.T)
        expected = law.logpdf(features.astype(np.float64))
        received = true_log_density(mean, factor, features.astype(np.float64))
        np.testing.assert_allclose(received.astype(float), expected, rtol=1e-6)


# ---- Samples. ------------------------------------------------------------------------


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
@pytest.mark.parametrize("exponent", [0, 2, 4, 6, 8, 10])
def test_samples_are_as_narrow_as_the_class_in_its_narrowest_direction(
    exponent, covariance_type
):
    """Within 5 standard errors, and what float32 rounds: u of the broadest, for each
    of the D products and the sum."""
    gaussian, _ = conditioned(10.0**exponent, 0.0, covariance_type)
    num = 20_000
    samples = gaussian.sample([0] * num, (5, 6)).numpy().astype(np.float64)
    mean, factor = (each[0] for each in factors(gaussian))
    variances, directions = np.linalg.eigh(factor @ factor.T)
    rounding = (DIMENSIONS + 2) * U32 * np.sqrt(variances.sum())
    for variance, direction in zip(variances, directions.T, strict=True):
        along = (samples - mean) @ direction
        deviation = np.sqrt(np.mean(along**2))
        error = 5 / np.sqrt(2 * num) + rounding / np.sqrt(variance)
        assert abs(deviation / np.sqrt(variance) - 1) < error
        assert abs(np.mean(along)) < 5 * np.sqrt(variance / num) + rounding
