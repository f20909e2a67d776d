"""Tests for fit_checks.py: moments that a layer is fitted to."""

import dataclasses

import numpy as np
import pytest

from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.fit_checks import (
    described_covariance,
    rank_of,
    shape_of_moments,
)
from tf_pseudofeat.gaussians.moments import zero_moments
from tf_pseudofeat.gaussians.moments_estimation import moments_of

X = np.random.default_rng(0).normal(size=(12, 6))
Y = np.arange(12) % 3
FULL = moments_of(X, Y, 3)


def layer(covariance_type="full", **settings):
    return ClassConditionalGaussian(3, covariance_type, name="layer", **settings)


@pytest.mark.parametrize(
    ("given", "expected"), [(None, (6,)), ((2, 3), (2, 3)), ([6, 1, 1], (6, 1, 1))]
)
def test_the_shape_of_a_feature_is_the_given_one(given, expected):
    assert shape_of_moments(layer(), FULL, given) == expected


def test_a_layer_that_was_fitted_keeps_its_shape():
    fitted = layer()
    fitted.adapt(X.reshape(-1, 2, 3), Y)
    assert shape_of_moments(fitted, FULL, None) == (2, 3)


INFINITE = dataclasses.replace(FULL, scatter=np.full_like(FULL.scatter, np.inf))


@pytest.mark.parametrize(
    ("of", "moments", "shape", "error", "message"),
    [
        (layer(), X, None, TypeError, "must be a ClassMoments; received ndarray"),
        (layer(), moments_of(X, Y, 4), None, ValueError, "has 3 classes.*received 4"),
        (layer("diag"), FULL, None, ValueError, "of kind 'diag'; received 3.*'full'"),
        (layer(), zero_moments(3, 6), None, ValueError, "have no example, or are NaN"),
        (layer(), INFINITE, None, ValueError, "have no example, or are NaN"),
        (layer(), FULL, (4,), ValueError, r"have 6 features; \[4\] has 4"),
        (
            layer("low_rank", rank=2),
            moments_of(X, Y, 3, "low_rank", 3),
            None,
            ValueError,
            "keeps 2 directions of each class, the moments 3. Pass rank=3",
        ),
    ],
)
def test_moments_of_something_else_raise(of, moments, shape, error, message):
    with pytest.raises(error, match=message):
        shape_of_moments(of, moments, shape)


def test_a_covariance_is_named_with_its_rank():
    assert described_covariance(layer("low_rank", rank=2)) == "'low_rank' of rank 2"
    assert described_covariance(layer()) == "'full'"
    assert rank_of(layer("low_rank"), 6) == 6 and rank_of(layer(), 6) is None
