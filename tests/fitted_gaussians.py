"""Gaussians that are fitted to made-up features, and what they should compute."""

import keras
import numpy as np
import pytest
from scipy import stats

from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.covariance import COVARIANCE_TYPES, estimate_covariance

__all__ = [
    "NUM_CLASSES",
    "assert_same_layer",
    "every_type",
    "fitted",
    "make_data",
    "parameters",
    "scipy_log_density",
    "weights_of",
]

NUM_CLASSES = 3
every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def make_data(counts=(60, 25, 12), size=4, seed=0, mean=0.0, condition=1.0):
    """Float32 features of classes with means and correlations of their own."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    spread = np.geomspace(1, condition**-0.5, size) if size > 1 else np.ones(1)
    x = rng.normal(size=(len(labels), size)) * spread
    turns = np.linalg.qr(rng.normal(size=(len(counts), size, size)))[0]
    x = np.einsum("nd,nde->ne", x, turns[labels])
    x += mean + rng.normal(size=(len(counts), size))[labels]
    return x.astype("float32"), labels


def fitted(data=None, covariance_type="full", num_classes=NUM_CLASSES, **kwargs):
    gaussian = ClassConditionalGaussian(num_classes, covariance_type, **kwargs)
    gaussian.adapt(*(data or make_data()))
    return gaussian


def parameters(gaussian):
    """`(means [C, D], covariances [C, D, D])` that the layer should have, float64."""
    moments, covariance_type = gaussian.moments, gaussian.covariance_type
    scale = estimate_covariance(
        moments, covariance_type, gaussian.shrinkage, gaussian.covariance_scale
    ).scale
    if covariance_type == "low_rank":
        blocks = scale.diag[:, :, np.newaxis] * np.eye(scale.diag.shape[1])
        scale = np.concatenate([blocks, scale.factor], axis=2)
    elif scale.ndim == 2:
        scale = scale[:, :, np.newaxis] * np.eye(scale.shape[1])
    covariance = scale @ scale.transpose(0, 2, 1)
    shape = (moments.num_classes, *covariance.shape[1:])
    return moments.mean, np.broadcast_to(covariance, shape)


def scipy_log_density(gaussian, features):
    features = np.asarray(features, np.float64).reshape(len(features), -1)
    columns = []
    for mean, covariance in zip(*parameters(gaussian), strict=True):
        factored = stats.Covariance.from_cholesky(np.linalg.cholesky(covariance))
        columns.append(stats.multivariate_normal(mean, factored).logpdf(features))
    return np.stack(columns, axis=1).reshape(len(features), -1)


def weights_of(layer):
    return [keras.ops.convert_to_numpy(weight) for weight in layer.weights]


def assert_same_layer(first, second, rtol=0.0):
    """The same parameters, statistics, densities and samples."""
    for mine, theirs in zip(weights_of(first), weights_of(second), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol)
    for field in ("count", "mean", "scatter"):
        mine, theirs = (getattr(each.moments, field) for each in (first, second))
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol)
    if first.covariance_type == "low_rank":
        mine, theirs = (each.moments.sketch for each in (first, second))
        mine, theirs = (x.transpose(0, 2, 1) @ x for x in (mine, theirs))
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * mine.max())
    assert first.feature_shape == second.feature_shape
    samples = [each.sample([0, 1, 1], (3, 4)) for each in (first, second)]
    np.testing.assert_allclose(*samples, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(first(samples[0]), second(samples[0]), 10 * rtol)
