"""Tests for covariance_types.py: every scale against its matrix, and a fifth one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.covariance import COVARIANCE_TYPES, estimate_covariance
from tf_pseudofeat.gaussians.covariance_types import CovarianceType, as_scale, plain
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.gaussians.triangular import TriangularScale
from tf_pseudofeat.sampling.interleave import interleave
from tf_pseudofeat.sampling.oversamplers import GaussianOverSampler

SIZE = 4
LABELS = np.repeat([0, 1, 2], [40, 25, 12])
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(3, SIZE))[LABELS] + RNG.normal(
    size=(len(LABELS), SIZE)
) @ RNG.normal(size=(SIZE, SIZE))
every_type = pytest.mark.parametrize("name", COVARIANCE_TYPES)


def estimated(name):
    """The scale of a type, and its matrices `[3, D, width]`."""
    rank = 2 if name == "low_rank" else None
    moments = moments_of(FEATURES, LABELS, 3, COVARIANCE_TYPES[name].kind, rank)
    scale = as_scale(estimate_covariance(moments, name).scale)
    matrix = scale.diag[:, :, np.newaxis] * np.eye(SIZE)
    if name in ("full", "tied"):
        matrix = scale.tril
    elif name == "low_rank":
        matrix = np.concatenate([matrix, scale.factor], axis=2)
    return scale, np.broadcast_to(matrix, (3, *matrix.shape[1:]))


@every_type
def test_a_scale_times_noise_is_its_matrix_times_noise(name):
    scale, matrix = estimated(name)
    labels = np.array([2, 0, 1, 1, 2], "int32")
    noise = RNG.normal(size=(5, matrix.shape[2]))
    expected = np.einsum("nde,ne->nd", matrix[labels], noise)
    constants = type(scale)(*(tf.constant(array, tf.float64) for array in scale))
    received = constants.matmul(tf.constant(noise), labels)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


@every_type
def test_determinants_and_distances_are_those_of_the_covariance(name):
    scale, matrix = estimated(name)
    covariance = matrix @ matrix.transpose(0, 2, 1)
    expected = np.broadcast_to(scale.log_det(), 3)
    np.testing.assert_allclose(expected, np.linalg.slogdet(covariance)[1] / 2)
    loc, points = RNG.normal(size=(3, SIZE)), RNG.normal(size=(7, SIZE))
    whitened = [np.float32(array) for array in (*scale.whiten(loc), *scale[1:])]
    offset = points[:, np.newaxis] - loc  # [B, C, D]
    expected = np.einsum("bcd,cde,bce->bc", offset, np.linalg.inv(covariance), offset)
    received = scale.distances(np.float32(points), *whitened)
    np.testing.assert_allclose(received, expected, rtol=1e-4)


@every_type
def test_the_distribution_of_tfp_has_the_covariance(name):
    scale, matrix = estimated(name)
    loc = RNG.normal(size=(3, SIZE)).astype("float32")
    constants = type(scale)(*(tf.constant(array, tf.float32) for array in scale))
    received = constants.to_tfp(tfp.distributions, loc)
    assert received.batch_shape == [3]
    expected = matrix @ matrix.transpose(0, 2, 1)
    covariance = np.broadcast_to(received.covariance(), expected.shape)
    np.testing.assert_allclose(covariance, expected, rtol=1e-4, atol=1e-5)


@every_type
def test_a_scale_comes_back_from_what_the_user_sees(name):
    scale, _ = estimated(name)
    again = as_scale(plain(scale))
    assert type(again) is type(scale) is COVARIANCE_TYPES[name].scale_class
    assert all(mine is theirs for mine, theirs in zip(again, scale, strict=True))


class SymmetricScale(TriangularScale):
    """The root of the covariance that is symmetric: what a new type has to bring."""

    @staticmethod
    def factorize(matrix, added):
        values, vectors = np.linalg.eigh(matrix)
        matrix[...] = (vectors * np.sqrt(values + added)) @ vectors.T

    def log_det(self):
        return np.linalg.slogdet(self.tril)[1]

    def whiten(self, offset):
        inverse = np.linalg.inv(self.tril)
        return np.float32(inverse), np.einsum("cde,ce->cd", inverse, offset)

    def to_tfp(self, tfd, loc):
        tril = tf.linalg.cholesky(tf.matmul(self.tril, self.tril))
        return tfd.MultivariateNormalTriL(loc, scale_tril=tril)


def test_another_type_is_a_class_and_an_entry(monkeypatch, tmp_path):
    another = CovarianceType("full", SymmetricScale)
    monkeypatch.setitem(COVARIANCE_TYPES, "symmetric", another)
    gaussian = ClassConditionalGaussian(3, "symmetric")
    full = ClassConditionalGaussian(3, "full")
    for layer in (gaussian, full):
        layer.adapt(FEATURES, LABELS)
    loc, scale = gaussian.parameters()
    assert isinstance(scale, SymmetricScale)
    np.testing.assert_allclose(scale.tril, tf.linalg.matrix_transpose(scale.tril))
    np.testing.assert_allclose(gaussian(FEATURES), full(FEATURES), rtol=1e-3)
    received = gaussian.distribution.log_prob(np.float32(FEATURES[:, np.newaxis]))
    np.testing.assert_allclose(received, full(FEATURES), rtol=1e-3)
    assert gaussian.report.classes == full.report.classes

    rows = gaussian.sample(np.full(4000, 1), (1, 2)) - loc[1]
    white = np.linalg.solve(full.parameters()[1][1], np.transpose(rows)).T
    assert all(stats.kstest(column, "norm").pvalue > 1e-3 for column in white.T)
    stream = interleave(np.float32(FEATURES), LABELS, gaussian, {2: 30}, batch_size=107)
    ((features, labels),) = stream
    assert features.shape == (107, SIZE) and np.sum(labels == 2) == 42
    drawn, _ = GaussianOverSampler(
        covariance_type="symmetric", random_state=0
    ).fit_resample(FEATURES, LABELS)
    assert drawn.shape == (120, SIZE)

    keras.Sequential([keras.Input((SIZE,)), gaussian]).save(tmp_path / "model.keras")
    (again,) = keras.models.load_model(tmp_path / "model.keras").layers
    np.testing.assert_array_equal(again(FEATURES), gaussian(FEATURES))
