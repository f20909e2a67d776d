"""Features that look like those of an imbalanced set: to time things, not to learn."""

import numpy as np

import tf_pseudofeat as tfpf

__all__ = ["batches_of", "features_of", "fitted", "rare_labels"]


def features_of(num_rows, size, num_classes=10, ratio=10):
    """Features of classes of which half are rare.

    Args:
        num_rows: N.
        size: D.
        num_classes: C.
        ratio: a common class has this many examples for one of a rare class.

    Returns:
        features: float32 `[N, D]`, correlated and of other means in each class.
        labels: int64 `[N]`, shuffled; every class has at least two.
    """
    rng = np.random.default_rng(0)
    share = np.where(np.arange(num_classes) < num_classes / 2, ratio, 1)
    ids = rng.choice(num_classes, num_rows, p=share / share.sum())
    ids[: 2 * num_classes] = np.arange(2 * num_classes) % num_classes
    labels = rng.permutation(ids)
    features = rng.standard_normal((num_rows, size), dtype=np.float32)
    features[:, 1:] += 0.5 * features[:, :-1]
    means = rng.standard_normal((num_classes, size), dtype=np.float32)
    for start in range(0, num_rows, 4096):
        rows = slice(start, start + 4096)
        features[rows] += means[labels[rows]]
    return features, labels


def batches_of(rows_per_class, size, num_classes, batch_size=4096):
    """Yields features of balanced classes, `(features [B, D], labels [B])`.

    They are correlated, of other means in each class, and nowhere held as a whole.

    Args:
        rows_per_class: examples of each class, in a random order.
        size: D.
        num_classes: C.
        batch_size: B.
    """
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(num_classes), rows_per_class))
    for ids in np.split(labels, range(batch_size, labels.size, batch_size)):
        features = rng.standard_normal((ids.size, size), dtype=np.float32)
        features[:, 1:] += 0.5 * features[:, :-1]
        features += np.sin(np.outer(ids + 1, np.arange(1, size + 1)), dtype=np.float32)
        yield features, ids


def fitted(size, num_classes=10, covariance_type="full"):
    """A `ClassConditionalGaussian` for features of D = `size`."""
    features, labels = features_of(max(4 * size, 40 * num_classes), size, num_classes)
    gaussian = tfpf.ClassConditionalGaussian(num_classes, covariance_type)
    gaussian.adapt(features, labels)
    return gaussian


def rare_labels(num_labels, num_classes=10):
    """Labels to sample for, as they come in a shuffled stream: all but class 0."""
    return np.random.default_rng(1).integers(1, num_classes, num_labels)
