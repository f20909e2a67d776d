"""Tests for triangular.py: factors of full covariances, by loops over classes."""

import numpy as np
import pytest
import scipy.linalg
import tensorflow as tf

from tf_pseudofeat.gaussians.triangular import (
    TriangularScale,
    _invert,
    matmul_by_class,
)

RNG = np.random.default_rng(0)


def factors(num_classes, size):
    matrices = RNG.normal(size=(num_classes, size, 2 * size))
    return np.linalg.cholesky(matrices @ np.swapaxes(matrices, 1, 2) / size)


@pytest.mark.parametrize("size", [1, 5, 129, 300])
def test_a_triangle_is_inverted_at_once_and_by_halves(size):
    (triangle,) = factors(1, size)
    inverse = np.zeros_like(triangle)
    _invert(triangle, inverse)
    expected = scipy.linalg.solve_triangular(triangle, np.eye(size), lower=True)
    np.testing.assert_allclose(inverse, expected, atol=1e-9 * abs(expected).max())
    assert not np.triu(inverse, 1).any()


@pytest.mark.parametrize("num_classes", [1, 3, 64, 65, 200])
def test_each_row_is_multiplied_by_the_factor_of_its_class(num_classes):
    tril = factors(num_classes, 4).astype("float32")
    labels = RNG.integers(num_classes, size=50)
    noise = RNG.normal(size=(50, 4)).astype("float32")
    expected = np.einsum("bij,bj->bi", tril[labels], noise)
    received = matmul_by_class(tf.constant(noise), tf.constant(tril), labels)
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    none = matmul_by_class(tf.zeros([0, 4]), tf.constant(tril), labels[:0])
    assert none.shape == (0, 4)


@pytest.mark.parametrize("shared", [False, True])
def test_distances_are_those_of_the_inverse_covariances(shared):
    tril, loc = factors(1 if shared else 3, 5), RNG.normal(size=(3, 5))
    scale = TriangularScale(tril)
    whitening, whitened_loc = scale.whiten(loc)
    x = RNG.normal(size=(7, 5)).astype("float32")
    received = np.asarray(scale.distances(x, whitening, whitened_loc.astype("float32")))
    for c in range(3):
        precision = np.linalg.inv(tril[0 if shared else c] @ tril[0 if shared else c].T)
        expected = np.einsum("bi,ij,bj->b", x - loc[c], precision, x - loc[c])
        np.testing.assert_allclose(received[:, c], expected, rtol=1e-3)
    np.testing.assert_allclose(scale.log_det(), np.linalg.slogdet(tril)[1])


def test_a_covariance_is_factored_in_place_with_variance_added():
    matrix = np.array([[4.0, 2.0], [2.0, 3.0]])
    expected = np.linalg.cholesky(matrix + 0.5 * np.eye(2))
    TriangularScale.factorize(matrix, 0.5)
    np.testing.assert_allclose(matrix, expected)


@pytest.mark.parametrize("pooled", [False, True])
def test_sums_are_added_to_each_class_or_to_all(pooled):
    scatter = np.zeros((2, 2) if pooled else (3, 2, 2))
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])
    TriangularScale.add(scatter, np.array([2]), TriangularScale.products(rows, [0]))
    mean_a, mean_b = np.array([[1.0, 0.0]]), np.array([[5.0, 7.0]])
    TriangularScale.add_between(scatter, np.array([2]), mean_a, mean_b)
    expected = rows.T @ rows + np.outer(mean_a, mean_b)
    np.testing.assert_allclose(scatter if pooled else scatter[2], expected)
    assert pooled or not scatter[:2].any()
