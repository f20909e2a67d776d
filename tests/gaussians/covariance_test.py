"""Tests for covariance.py: against numpy and scikit-learn."""

import json
import re

import numpy as np
import pytest
from sklearn.covariance import OAS, oas
from sklearn.decomposition import PCA

from tf_pseudofeat.gaussians.covariance import (
    COVARIANCE_TYPES,
    estimate_covariance,
    moment_kind,
)
from tf_pseudofeat.gaussians.low_rank import LowRankScale
from tf_pseudofeat.gaussians.moments import zero_moments
from tf_pseudofeat.gaussians.moments_estimation import moments_of

OWN_TYPES = ("full", "diag", "spherical", "low_rank")  # a covariance for each class
every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def make_data(counts=(40, 15, 8), size=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    mixing = rng.normal(size=(len(counts), size, size))
    x = np.einsum("nd,nde->ne", rng.normal(size=(len(labels), size)), mixing[labels])
    return x + 3 * rng.normal(size=(len(counts), size))[labels], labels


def estimate(features, labels, covariance_type="full", num_classes=None, **kwargs):
    num_classes = num_classes or int(np.max(labels)) + 1
    moments = moments_of(features, labels, num_classes, moment_kind(covariance_type))
    return estimate_covariance(moments, covariance_type, **kwargs)


def covariances(estimated):
    """`[C, D, D]` (or `[1, D, D]`), multiplied out."""
    scale = estimated.scale
    if isinstance(scale, LowRankScale):
        blocks = np.stack([np.diag(deviations) for deviations in scale.diag])
        scale = np.concatenate([blocks, scale.factor], axis=2)
    if scale.ndim == 2:
        scale = np.stack([np.diag(deviations) for deviations in scale])
    return scale @ scale.transpose(0, 2, 1)


def sample_covariances(features, labels, covariance_type):
    """The same by numpy, from each class's own rows."""
    classes = np.unique(labels)
    if covariance_type == "tied":
        means = np.stack([features[labels == c].mean(axis=0) for c in classes])
        centred = features - means[labels]
        return centred.T[np.newaxis] @ centred / (len(labels) - len(classes))
    full = np.stack(
        [
            np.cov(features[labels == c].T).reshape(features.shape[1], -1)
            for c in classes
        ]
    )
    if covariance_type in ("full", "low_rank"):  # of all directions
        return full
    variances = np.diagonal(full, axis1=1, axis2=2)
    if covariance_type == "spherical":
        variances = np.broadcast_to(variances.mean(1, keepdims=True), variances.shape)
    return np.stack([np.diag(variance) for variance in variances])


@every_type
@pytest.mark.parametrize("size", [1, 4])
def test_without_shrinkage_it_is_the_sample_covariance(covariance_type, size):
    features, labels = make_data(size=size)
    received = estimate(features, labels, covariance_type, shrinkage=0.0)
    expected = sample_covariances(features, labels, covariance_type)
    digits = 1e-6 if covariance_type == "low_rank" else 1e-9  # its sketch is float32
    atol = digits * np.abs(expected).max()
    np.testing.assert_allclose(covariances(received), expected, digits, atol)
    assert {row.jitter for row in received.report.classes} == {0.0}


@pytest.mark.parametrize("counts", [(40, 15, 8), (5, 2, 3), (400, 300, 200)])
@pytest.mark.parametrize("size", [1, 2, 12])
def test_oas_is_that_of_scikit_learn(counts, size):
    features, labels = make_data(counts, size)
    received = estimate(features, labels)
    for class_id, row in enumerate(received.report.classes):
        reference = OAS().fit(features[labels == class_id])
        unbiased = counts[class_id] / (counts[class_id] - 1)
        if size > 1:  # with one feature, the target is the covariance itself
            assert row.shrinkage == pytest.approx(reference.shrinkage_, rel=1e-9)
        np.testing.assert_allclose(
            covariances(received)[class_id],
            reference.covariance_ * unbiased,
            rtol=1e-8,
            atol=1e-9,
        )


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, "oas"])
@pytest.mark.parametrize(
    ("counts", "size", "rank"),
    [
        ((40, 30), 6, 5),  # all directions but one
        ((40, 30), 6, 6),
        ((4, 5), 30, 4),  # as many as the examples have
        ((4, 0, 2), 30, 16),
    ],
)
def test_where_the_rank_suffices_it_is_the_full_covariance(
    counts, size, rank, shrinkage
):
    features, labels = make_data(counts, size)
    kwargs = {"num_classes": len(counts), "shrinkage": shrinkage}
    expected = estimate(features, labels, "full", **kwargs)
    moments = moments_of(features, labels, len(counts), "low_rank", rank)
    received = estimate_covariance(moments, "low_rank", shrinkage)
    for mine, theirs in zip(
        received.report.classes, expected.report.classes, strict=True
    ):
        assert mine.shrinkage == pytest.approx(theirs.shrinkage, rel=1e-5)
    expected = covariances(expected)
    atol = 1e-5 * expected.max()
    np.testing.assert_allclose(covariances(received), expected, 1e-5, atol)


@pytest.mark.parametrize("weight", [0.0, 0.3, "oas"])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_a_low_rank_covariance_is_that_of_pca_with_exact_variances(rank, weight):
    features, labels = make_data((300, 200), size=8)
    moments = moments_of(features, labels, 2, "low_rank", rank)
    received = estimate_covariance(moments, "low_rank", weight)
    sample = sample_covariances(features, labels, "full")
    for class_id, row in enumerate(received.report.classes):
        # 8 features are sketched exactly by rows of 4 directions, else nearly.
        reference = PCA(rank, svd_solver="full").fit(features[labels == class_id])
        expected = reference.get_covariance()
        np.fill_diagonal(expected, sample[class_id].diagonal())
        if weight == "oas":  # of a matrix, whatever the examples
            root = np.linalg.cholesky(expected) * np.sqrt(8)
            crosses = np.tile(np.concatenate([root.T, -root.T]), (99, 1))
            factor = oas(crosses, assume_centered=True)[1] * (len(crosses) + 1)
            assert row.shrinkage == pytest.approx(
                factor / (row.count + 1), rel=1e-5 if rank == 4 else 0.3
            )
        target = row.shrinkage * np.trace(expected) / 8 * np.eye(8)
        expected = (1 - row.shrinkage) * expected + target
        error = covariances(received)[class_id] - expected
        tolerance = 1e-5 if rank == 4 else 0.05
        assert np.abs(error).max() < tolerance * expected.max()
        assert np.abs(error.diagonal()).max() < 1e-5 * expected.max()
        assert row.rank == rank
        words = rf"^\d+ % of the variance in {rank} directions$"
        assert re.match(words, row.note)


def test_oas_of_a_diagonal_covariance_is_that_of_its_matrix():
    features, labels = make_data()
    received = estimate(features, labels, "diag")
    assert 0 < received.report.classes[0].shrinkage < 1
    for class_id, row in enumerate(received.report.classes):
        # Rows whose covariance is exactly diagonal, with the variances of the class.
        deviation = features[labels == class_id].std(axis=0)
        crosses = np.tile(np.concatenate([np.eye(4), -np.eye(4)]), (99, 1))
        weight = oas(crosses * deviation, assume_centered=True)[1]
        # The formula's n is that of the class, not of the crosses: n + 1 divides.
        expected = min(weight * (len(crosses) + 1) / (row.count + 1), 1.0)
        assert row.shrinkage == pytest.approx(expected, rel=1e-9)


def test_oas_of_a_tied_covariance_counts_degrees_of_freedom():
    features, labels = make_data()
    received = estimate(features, labels, "tied")
    means = np.stack([features[labels == c].mean(axis=0) for c in range(3)])
    weight = oas(features - means[labels], assume_centered=True)[1]
    (row,) = received.report.classes
    assert row.class_id is None
    assert row.count == len(labels) - 3 + 1
    expected = weight * (len(labels) + 1) / (row.count + 1)
    assert row.shrinkage == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("weight", [0, 0.3, 1, 1.0])
@pytest.mark.parametrize("covariance_type", ["full", "diag", "tied"])
def test_a_given_shrinkage_mixes_in_the_mean_variance(covariance_type, weight):
    features, labels = make_data()
    received = estimate(features, labels, covariance_type, shrinkage=weight)
    sample = sample_covariances(features, labels, covariance_type)
    target = np.trace(sample, axis1=1, axis2=2)[:, np.newaxis, np.newaxis] / 4
    expected = (1 - weight) * sample + weight * target * np.eye(4)
    np.testing.assert_allclose(covariances(received), expected, rtol=1e-9, atol=1e-9)
    assert {row.shrinkage for row in received.report.classes} == {float(weight)}


@every_type
@pytest.mark.parametrize("factor", [0.25, 4, 100.0])
def test_the_scale_magnifies_every_covariance(covariance_type, factor):
    data = make_data()
    plain = estimate(*data, covariance_type)
    magnified = estimate(*data, covariance_type, covariance_scale=factor)
    expected = factor * covariances(plain)
    rtol = 1e-6 if covariance_type == "low_rank" else 1e-12
    np.testing.assert_allclose(covariances(magnified), expected, rtol=rtol)


@pytest.mark.parametrize("covariance_type", ["full", "diag", "tied", "spherical"])
def test_factors_are_lower_triangular_or_positive_deviations(covariance_type):
    scale = estimate(*make_data(), covariance_type).scale
    assert scale.dtype == np.float64
    if covariance_type in ("full", "tied"):
        assert scale.shape == ((1 if covariance_type == "tied" else 3), 4, 4)
        np.testing.assert_array_equal(scale, np.tril(scale))
        scale = np.diagonal(scale, axis1=1, axis2=2)
    assert (scale > 0).all()


@every_type
def test_the_order_of_the_examples_makes_no_difference(covariance_type):
    features, labels = make_data()
    order = np.random.default_rng(3).permutation(len(labels))
    first = estimate(features, labels, covariance_type)
    second = estimate(features[order], labels[order], covariance_type)
    first, second = covariances(first), covariances(second)
    rtol = 1e-6 if covariance_type == "low_rank" else 1e-9
    np.testing.assert_allclose(first, second, rtol, atol=rtol * first.max())


# Where the sample covariance is singular.


@every_type
@pytest.mark.parametrize("shrinkage", [0.0, 0.1, "oas"])
@pytest.mark.parametrize("trouble", ["few", "dead", "copied", "repeated"])
def test_a_singular_sample_still_gives_a_covariance_to_sample_from(
    covariance_type, shrinkage, trouble
):
    features, labels = make_data(size=6)
    if trouble == "few":  # fewer examples than features
        features, labels = make_data((3, 2, 4), size=6)
    elif trouble == "dead":  # a unit that never fires
        features[:, 2] = 0.0
    elif trouble == "copied":  # two features are one
        features[:, 2] = features[:, 5]
    else:  # copies of two examples
        features = np.concatenate([features[labels == c][:2] for c in range(3)] * 4)
        labels = np.tile(np.repeat(range(3), 2), 4)
    received = estimate(features, labels, covariance_type, shrinkage=shrinkage)
    eigenvalues = np.linalg.eigvalsh(covariances(received))
    assert eigenvalues.min() > 0
    condition = np.array([row.condition for row in received.report.classes])
    expected = eigenvalues[:, -1] / eigenvalues[:, 0]
    if covariance_type == "low_rank":  # what it is at most
        assert (condition > (1 - 1e-3) * expected).all()
        condition = np.minimum(condition, expected)
    np.testing.assert_allclose(condition, expected, rtol=1e-3)
    # What was added is small next to what is there.
    sample = sample_covariances(features, labels, covariance_type)
    trace = np.trace(sample, axis1=1, axis2=2)
    np.testing.assert_allclose(eigenvalues.sum(axis=1), trace, rtol=6e-3)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize("counts", [(3, 2, 5), (40, 15, 8)])
def test_the_report_knows_the_rank(covariance_type, counts):
    features, labels = make_data(counts, size=6)
    received = estimate(features, labels, covariance_type, shrinkage=0.0)
    sample = sample_covariances(features, labels, covariance_type)
    for row, matrix in zip(received.report.classes, sample, strict=True):
        assert row.rank == np.linalg.matrix_rank(matrix)
        assert (row.jitter > 0) == (row.rank < 6)
        assert ("singular" in row.note) == (row.rank < 6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("covariance_type", OWN_TYPES)
def test_a_class_of_equal_examples_gets_a_sliver_of_the_others_variance(
    covariance_type, dtype
):
    features, labels = make_data((40, 11))
    features[labels == 1] = 0.1
    received = estimate(features.astype(dtype), labels, covariance_type)
    row = received.report.classes[1]
    assert row.note == "all examples are the same point"
    assert row.rank == 0
    variances = np.linalg.eigvalsh(covariances(received)[1])
    others = np.trace(covariances(received)[0]) / 4
    np.testing.assert_allclose(variances, row.jitter, rtol=1e-6)
    assert 0 < row.jitter < 1e-3 * others


@every_type
def test_examples_that_are_all_equal_get_a_tiny_variance(covariance_type):
    received = estimate(np.full((30, 3), 0.1), np.repeat([0, 1], 15), covariance_type)
    variances = np.linalg.eigvalsh(covariances(received))
    assert (variances > 0).all()
    assert (variances < 1e-2).all()
    assert np.ptp(variances) < 1e-12
    assert {row.rank for row in received.report.classes} == {0}


@pytest.mark.parametrize("covariance_type", OWN_TYPES)
def test_an_empty_class_is_a_standard_normal_and_the_report_says_so(covariance_type):
    features, labels = make_data((9, 0, 9))
    received = estimate(features, labels, covariance_type)
    np.testing.assert_array_equal(covariances(received)[1], np.eye(4))
    assert (received.report.classes[1].count, received.report.classes[1].note) == (
        0,
        "no example",
    )


def test_a_tied_covariance_takes_single_examples_and_empty_classes():
    features, labels = make_data((9, 0, 1, 5))
    received = estimate(features, labels, "tied", shrinkage=0.0)
    rows = labels != 2  # a single example does not deviate from its mean
    labels = np.unique(labels[rows], return_inverse=True)[1]
    expected = sample_covariances(features[rows], labels, "tied")
    np.testing.assert_allclose(covariances(received), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
@pytest.mark.parametrize("magnitude", [1e-12, 1.0, 1e12])
def test_the_unit_of_the_features_makes_no_difference(covariance_type, magnitude):
    features, labels = make_data((40, 3, 8), size=6)
    plain = estimate(features, labels, covariance_type, shrinkage=0.0)
    scaled = estimate(magnitude * features, labels, covariance_type, shrinkage=0.0)
    np.testing.assert_allclose(
        scaled.scale / magnitude, plain.scale, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_the_condition_is_kept_within_reach_of_float32(covariance_type):
    features, labels = make_data((40, 30))
    features = features * [1e9, 1.0, 1e-3, 1e-9]
    received = estimate(features, labels, covariance_type, shrinkage=0.0)
    for row in received.report.classes:
        assert row.jitter > 0
        assert row.condition <= 1e12


# The report.


@every_type
def test_the_report_prints_a_line_per_covariance(covariance_type):
    report = estimate(*make_data(), covariance_type).report
    lines = str(report).splitlines()
    assert lines[0] == f"{covariance_type} covariance of 4 features"
    names = [line.split()[0] for line in lines[2:]]
    assert names == (["all"] if covariance_type == "tied" else ["0", "1", "2"])
    assert [int(line.split()[1]) for line in lines[2:]] == [
        row.count for row in report.classes
    ]


@every_type
def test_the_report_goes_through_json(covariance_type):
    report = estimate(*make_data((9, 5, 3)), covariance_type).report
    again = json.loads(json.dumps(report.to_dict()))
    assert again["covariance_type"] == covariance_type
    assert [row["condition"] for row in again["classes"]] == [
        row.condition for row in report.classes
    ]


# Errors.


@pytest.mark.parametrize("covariance_type", OWN_TYPES)
def test_a_single_example_has_no_covariance_of_its_own(covariance_type):
    message = (
        rf"Class 1 has 1 example; a '{covariance_type}' covariance .* at least 2 "
        r"\(classes with 1 example: \[1, 3\]\)\. Pass covariance_type='tied'"
    )
    with pytest.raises(ValueError, match=message):
        estimate(*make_data((9, 1, 5, 1)), covariance_type)


@pytest.mark.parametrize("counts", [(1,), (1, 0, 1)])
def test_a_tied_covariance_needs_one_class_with_two_examples(counts):
    message = rf"{sum(counts)} examples of {sum(counts)} classes leave no deviation"
    with pytest.raises(ValueError, match=message):
        estimate(*make_data(counts), "tied")


@pytest.mark.parametrize("shrinkage", [-0.1, 1.1, "auto", None, np.nan])
def test_shrinkage_is_a_weight(shrinkage):
    with pytest.raises(ValueError, match=r"must be 'oas' or a number from 0 to 1; rec"):
        estimate(*make_data(), shrinkage=shrinkage)


@pytest.mark.parametrize("covariance_scale", [0, -1.0, np.nan, np.inf])
def test_the_scale_is_positive(covariance_scale):
    with pytest.raises(ValueError, match=r"`covariance_scale` must be a positive numb"):
        estimate(*make_data(), covariance_scale=covariance_scale)


def test_an_unknown_type_raises():
    with pytest.raises(ValueError, match=r"must be one of \['full', .*received 'half'"):
        moment_kind("half")


@pytest.mark.parametrize(
    ("covariance_type", "kind"),
    [("full", "diag"), ("spherical", "full"), ("tied", "full"), ("diag", "tied")],
)
def test_moments_of_another_kind_raise(covariance_type, kind):
    with pytest.raises(
        ValueError, match=rf"needs moments of .* received kind '{kind}'"
    ):
        estimate_covariance(zero_moments(2, 3, kind), covariance_type)
