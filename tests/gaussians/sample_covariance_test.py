"""Tests for sample_covariance.py: how one covariance is regularized and described."""

import numpy as np
import pytest

from tf_pseudofeat.gaussians.diagonal import DiagonalScale
from tf_pseudofeat.gaussians.sample_covariance import SampleCovariance
from tf_pseudofeat.gaussians.triangular import TriangularScale

RNG = np.random.default_rng(0)


def of_rows(rows, shrinkage=0.0, scale_class=TriangularScale, **settings):
    centered = rows - rows.mean(axis=0)
    scatter = centered.T @ centered
    if scale_class is DiagonalScale:
        scatter = scatter.diagonal().copy()
    return SampleCovariance(scale_class, scatter, len(rows), shrinkage, 1.0, **settings)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_the_factor_is_that_of_the_shrunk_covariance(shrinkage):
    rows = RNG.normal(size=(50, 3)) * [1.0, 5.0, 0.2]
    sample = of_rows(rows, shrinkage)
    factor = np.empty((3, 3))
    sample.factor(factor)
    cov = np.cov(rows, rowvar=False)
    expected = (1 - shrinkage) * cov + shrinkage * np.trace(cov) / 3 * np.eye(3)
    np.testing.assert_allclose(factor @ factor.T, expected)
    eigenvalues = np.linalg.eigvalsh(expected)
    row = sample.row()
    assert (row.rank, row.jitter, row.note) == (3, 0.0, "")
    np.testing.assert_allclose(row.condition, eigenvalues[-1] / eigenvalues[0])


def test_a_singular_covariance_gets_the_least_jitter_that_suffices():
    sample = of_rows(RNG.normal(size=(3, 5)), class_id=7)
    row = sample.row()
    assert row.rank == 2 and 0 < row.jitter <= 1e-8 * sample.target
    assert row.condition <= 1e12
    assert row.note == "sample covariance is singular (2 of 5)"
    factor = np.empty((5, 5))
    sample.factor(factor)
    assert np.isfinite(factor).all()


def test_equal_examples_get_a_part_of_the_fallback_variance():
    sample = of_rows(np.ones((4, 3)))
    assert sample.row().note == "all examples are the same point"
    assert sample.rank == 0 and 0 < sample.jitter <= 1e-3


@pytest.mark.parametrize("class_id", [3, None])
def test_variances_too_far_apart_are_told_with_their_class(class_id):
    rows = RNG.normal(size=(9, 2)) * [1e-20, 1.0]
    scatter = np.array([1e-300, 1e300])
    owner = "all classes" if class_id is None else "class 3"
    sample = of_rows(rows, scale_class=DiagonalScale, class_id=class_id)
    assert sample.jitter > 0
    sample = SampleCovariance(DiagonalScale, -scatter, 9, 0.0, 1.0, class_id)
    with pytest.raises(ValueError, match=f"covariance of {owner} spans variances"):
        sample.jitter  # noqa: B018


def test_a_diagonal_is_shrunk_to_its_own_mean():
    rows = RNG.normal(size=(50, 3)) * [1.0, 5.0, 0.2]
    deviations = np.empty(3)
    of_rows(rows, 0.4, DiagonalScale).factor(deviations)
    variance = rows.var(axis=0, ddof=1)
    np.testing.assert_allclose(deviations**2, 0.6 * variance + 0.4 * variance.mean())
