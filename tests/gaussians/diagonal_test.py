"""Tests for diagonal.py: standard deviations, by loops over classes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.gaussians import diagonal
from tf_pseudofeat.gaussians.diagonal import (
    DiagonalScale,
    distances_by_class,
    sums_by_class,
)

RNG = np.random.default_rng(0)
DIAG = RNG.random((5, 4)) + 0.5


def test_rows_are_summed_between_the_starts():
    rows = RNG.normal(size=(9, 3))
    expected = [rows[:2].sum(axis=0), rows[2:3].sum(axis=0), rows[3:].sum(axis=0)]
    np.testing.assert_allclose(sums_by_class(rows, [0, 2, 3]), expected)


@pytest.mark.parametrize("deviations", [1, 8, 12, 2**16])
def test_some_classes_at_a_time_give_what_all_at_once_do(monkeypatch, deviations):
    monkeypatch.setattr(diagonal, "_DEVIATIONS", deviations)
    scale, loc = DiagonalScale(DIAG), RNG.normal(size=(5, 4))
    whitening, whitened_loc = scale.whiten(loc)
    arrays = (array.astype("float32") for array in (whitening, whitened_loc))
    x = RNG.normal(size=(7, 4)).astype("float32")
    received = scale.distances(x, *map(keras.ops.convert_to_tensor, arrays))
    expected = np.square((x[:, np.newaxis] - loc) / DIAG).sum(axis=-1)
    np.testing.assert_allclose(received, expected, rtol=1e-4)


def test_variables_are_sliced_by_class_whatever_their_rank(monkeypatch):
    monkeypatch.setattr(diagonal, "_DEVIATIONS", 2)
    values = RNG.normal(size=(5, 1, 2)).astype("float32")
    received = distances_by_class(
        lambda part: keras.ops.sum(part, axis=-1), keras.Variable(values)
    )
    np.testing.assert_allclose(received, values.sum(axis=-1).T, rtol=1e-5)


def test_variances_become_deviations_in_place():
    variance = np.array([3.5, 0.0])
    DiagonalScale.factorize(variance, 0.5)
    np.testing.assert_allclose(variance, np.sqrt([4.0, 0.5]))


def test_noise_is_scaled_by_the_deviations_of_its_class():
    noise, labels = RNG.normal(size=(6, 4)), [4, 0, 0, 1, 2, 4]
    scale = DiagonalScale(tf.constant(DIAG))
    np.testing.assert_allclose(scale.matmul(noise, labels), noise * DIAG[labels])


def test_sums_are_added_to_their_classes():
    scatter, rows = np.zeros((3, 2)), np.array([[1.0, 2.0], [3.0, 4.0]])
    products = DiagonalScale.products(rows.copy(), [0])
    DiagonalScale.add(scatter, np.array([1]), products)
    weighted, delta = np.array([[2.0, 0.0]]), np.array([[5.0, 7.0]])
    DiagonalScale.add_between(scatter, np.array([1]), weighted, delta)
    np.testing.assert_allclose(scatter, [[0, 0], [20, 20], [0, 0]])
    np.testing.assert_allclose(DiagonalScale(DIAG).log_det(), np.log(DIAG).sum(axis=1))
