"""Features of five classes, their moments by definition, and how to compare moments."""

import numpy as np
import pytest

from tf_pseudofeat.gaussians.moments import ClassMoments

__all__ = ["NUM_CLASSES", "assert_same", "chunks", "every_kind", "make_data", "naive"]

NUM_CLASSES = 5
every_kind = pytest.mark.parametrize("kind", ["full", "tied", "diag", "low_rank"])


def make_data(size=60, features=4, dtype="float32", mean=0.0, seed=0):
    """Correlated features of classes 0, 1, 2 and 4; class 3 is empty, 4 has one."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.append(rng.integers(0, 3, size=size - 1), 4))
    x = rng.normal(size=(size, features)) @ rng.normal(size=(features, features))
    x += mean + rng.normal(size=(NUM_CLASSES, features))[labels]
    return x.astype(dtype), labels


def naive(features, labels, kind):
    """The definition, one example at a time, in float64."""
    features = np.asarray(features, np.float64).reshape(len(features), -1)
    size = features.shape[1]
    count = np.zeros(NUM_CLASSES)
    mean = np.zeros((NUM_CLASSES, size))
    scatter = np.zeros((NUM_CLASSES, size, size))
    for label in labels:
        count[label] += 1
    for x, label in zip(features, labels, strict=True):
        mean[label] += x / count[label]
    for x, label in zip(features, labels, strict=True):
        scatter[label] += np.outer(x - mean[label], x - mean[label])
    if kind == "tied":
        scatter = scatter.sum(axis=0)
    if kind in ("diag", "low_rank"):
        scatter = np.diagonal(scatter, axis1=1, axis2=2)
    return ClassMoments(count, mean, scatter, kind)


def assert_same(received, expected, rtol=1e-6):
    """Within `rtol` of the largest deviation, so that zeros are no exception."""
    assert received.kind == expected.kind
    np.testing.assert_array_equal(received.count, expected.count)
    spread = np.sqrt(np.max(expected.scatter) / max(expected.count.sum(), 1))
    np.testing.assert_allclose(
        received.mean, expected.mean, rtol=1e-12, atol=rtol * spread
    )
    np.testing.assert_allclose(
        received.scatter,
        expected.scatter,
        rtol=rtol,
        atol=rtol * expected.scatter.max(),
    )
    for field in ("count", "mean", "scatter"):
        assert getattr(received, field).dtype == np.float64
    if received.kind == "low_rank":  # of as many rows as there are features: exact
        squares = np.square(received.sketch, dtype=np.float64).sum(axis=1)
        np.testing.assert_allclose(
            squares, received.scatter, rtol=1e-5, atol=1e-5 * expected.scatter.max()
        )


def chunks(features, labels, sizes):
    stops = np.cumsum(sizes)
    return list(zip(np.split(features, stops), np.split(labels, stops), strict=True))
