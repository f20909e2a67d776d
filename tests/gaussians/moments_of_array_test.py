"""Tests for moments_of_array.py: against NumPy in float64 and a loop over examples."""

import functools

import numpy as np
import pytest

from tests.moments_data import (
    NUM_CLASSES,
    assert_same,
    every_kind,
    make_data,
    naive,
)
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.gaussians.moments_merge import merge_moments


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments_are_what_their_definition_says(kind, dtype):
    features, labels = make_data(dtype=dtype)
    moments = moments_of(features, labels, NUM_CLASSES, kind)
    assert_same(moments, naive(features, labels, kind))
    assert (moments.num_classes, moments.feature_size) == (NUM_CLASSES, 4)


@pytest.mark.parametrize("size", [100, 20_000])  # less than a chunk, several chunks
def test_far_from_the_origin_the_covariance_is_that_of_numpy(size):
    features, labels = make_data(size, mean=1000.0)
    moments = moments_of(features, labels, NUM_CLASSES)
    for class_id in (0, 1, 2):
        rows = features[labels == class_id].astype(np.float64)
        covariance = moments.scatter[class_id] / (len(rows) - 1)
        expected = np.cov(rows, rowvar=False)
        atol = 1e-6 * expected.diagonal().max()
        np.testing.assert_allclose(covariance, expected, rtol=1e-6, atol=atol)
        np.testing.assert_allclose(moments.mean[class_id], rows.mean(0), rtol=1e-12)


@every_kind
def test_an_empty_class_and_a_single_example_have_no_scatter(kind):
    features, labels = make_data()
    moments = moments_of(features, labels, NUM_CLASSES, kind)
    assert moments.count[3] == 0
    assert not moments.mean[3].any()
    np.testing.assert_array_equal(moments.mean[4], features[labels == 4][0])
    if kind != "tied":
        assert not moments.scatter[3].any()
        assert not moments.scatter[4].any()


@every_kind
def test_one_example_of_one_feature_is_enough(kind):
    moments = moments_of([[2.5]], [1], 2, kind)
    np.testing.assert_array_equal(moments.count, [0, 1])
    np.testing.assert_array_equal(moments.mean, [[0], [2.5]])
    assert not moments.scatter.any()


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1000.1])
def test_rows_that_are_all_the_same_have_no_scatter_at_all(kind, dtype, value):
    features, labels = np.full((29, 3), value, dtype), np.zeros(29, int)
    parts = [(features[:5], labels[:5]), (features[5:12], labels[5:12])]
    parts = [moments_of(*part, 1, kind) for part in [*parts, (features, labels)]]
    moments = functools.reduce(merge_moments, parts)
    assert not moments.scatter.any()
    np.testing.assert_array_equal(moments.mean, features[:1])


@pytest.mark.filterwarnings("error::RuntimeWarning")
@every_kind
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_found(kind, value):
    features, labels = np.zeros((6, 2), "float32"), [0, 1, 1, 0, 1, 1]
    features[4, 1] = features[5, 0] = value
    message = r"Class 1 has 2 of 4 examples with NaN or infinite .* first in row 4\."
    with pytest.raises(ValueError, match=message):
        moments_of(features, labels, 2, kind)


def test_opposite_infinities_do_not_cancel():
    with pytest.raises(ValueError, match=r"Class 0 has 2 of 3 examples with NaN"):
        moments_of([[np.inf], [-np.inf], [0.0]], [0, 0, 0], 1)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@every_kind
@pytest.mark.parametrize(("dtype", "size"), [("float32", 3e38), ("float64", 1.5e308)])
def test_features_too_large_to_square_raise(kind, dtype, size):
    features = np.array([[size], [size], [-size]], dtype)
    message = rf"Products of features overflow {dtype}: the largest magnitude is {size}"
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        moments_of(features, [0, 0, 0], 1, kind)
