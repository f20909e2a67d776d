"""Step 4: pseudo-features of many classes, from Gaussians that are fitted."""

import functools
import importlib

import imblearn.over_sampling
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from benchmarks.made_up import features_of, fitted, rare_labels
from benchmarks.race import Contender, race

__all__ = ["measure"]

_QUESTION = "sample pseudo-features"
# Peers that hold a `[B, D, D]` of gathered factors get no more than this of it.
_LARGEST_GATHER = 2**30
_OPTIONAL = "torch"  # measured where it is installed


def measure(num_samples=40_500, sizes=(64, 512, 2048), num_classes=10, rounds=5):
    """Measurements for each feature size."""
    measured = []
    for size in sizes:
        setting = f"{num_samples:,} x {size}, {num_classes - 1} classes"
        contenders = _contenders(num_samples, size, num_classes)
        measured += race(_QUESTION, setting, contenders, rounds=rounds)
    return measured


def _contenders(num_samples, size, num_classes):
    gaussian = fitted(size, num_classes)
    labels = rare_labels(num_samples, num_classes)
    counts = {c: int(n) for c, n in enumerate(np.bincount(labels)) if n}
    distribution = gaussian.distribution
    loc, scale = distribution.loc, distribution.scale_tril
    contenders = [
        Contender("ours", lambda: gaussian.sample(labels, seed=(1, 2)), "ours"),
        Contender(
            "normals and one matmul per class",
            functools.partial(_floor, loc, scale, counts),
            "floor",
        ),
        Contender(
            "TFP on the batch of classes",
            functools.partial(_by_batch, loc, scale, counts),
        ),
        Contender(
            "NumPy `svd`",
            functools.partial(_by_numpy, loc.numpy(), scale.numpy(), counts, "svd"),
        ),
        Contender(
            "NumPy `cholesky`",
            functools.partial(
                _by_numpy, loc.numpy(), scale.numpy(), counts, "cholesky"
            ),
        ),
        Contender(
            "SMOTE (another law)",
            functools.partial(_by_smote, *_imbalanced(size, num_classes, counts)),
        ),
    ]
    # All at once, [40500, D, D] would be 42 GB at D = 512.
    chunk = max(1, _LARGEST_GATHER // (8 * size * size))
    gathered = functools.partial(_by_gather, loc, scale, labels, chunk)
    contenders.insert(3, Contender("TFP on gathered parameters", gathered))
    try:
        torch = importlib.import_module(_OPTIONAL)
    except ImportError:
        return contenders
    by_torch = functools.partial(_by_torch, torch, loc.numpy(), scale.numpy(), counts)
    contenders.insert(4, Contender("PyTorch", by_torch))
    return contenders


def _floor(loc, scale, counts):
    """Class after class, not in the order that was asked for."""
    for class_id, count in counts.items():
        noise = tf.random.stateless_normal([count, loc.shape[1]], [class_id, 1])
        tf.matmul(noise, scale[class_id], transpose_b=True)


def _by_batch(loc, scale, counts):
    """As many of every class as the largest needs."""
    classes = list(counts)
    distribution = tfp.distributions.MultivariateNormalTriL(
        tf.gather(loc, classes), scale_tril=tf.gather(scale, classes)
    )
    distribution.sample(max(counts.values()), seed=[1, 2])


def _by_gather(loc, scale, labels, chunk):
    @tf.function  # else every piece leaves its gathered factors to the collector
    def draw(rows, seed):
        return tfp.distributions.MultivariateNormalTriL(
            tf.gather(loc, rows), scale_tril=tf.gather(scale, rows)
        ).sample(seed=seed)

    for start in range(0, len(labels), chunk):
        rows = labels[start : start + chunk]
        draw(tf.constant(rows), tf.constant([start, 2]))


def _by_numpy(loc, scale, counts, method):
    """It takes covariances, and factors them itself."""
    rng = np.random.default_rng(0)
    for class_id, count in counts.items():
        covariance = scale[class_id].astype(np.float64)
        covariance = covariance @ covariance.T
        rng.multivariate_normal(loc[class_id], covariance, count, method=method)


def _by_torch(torch, loc, scale, counts):
    for class_id, count in counts.items():
        torch.distributions.MultivariateNormal(
            torch.from_numpy(loc[class_id]),
            scale_tril=torch.from_numpy(scale[class_id]),
            validate_args=False,
        ).sample((count,))


def _imbalanced(size, num_classes, counts):
    """Real features for SMOTE: class 0 is common, the others have 500 examples."""
    features, labels = features_of(2 * 500 * num_classes, size, num_classes, ratio=1)
    kept = [np.flatnonzero(labels == c)[:500] for c in range(1, num_classes)]
    kept = np.concatenate([np.flatnonzero(labels == 0), *kept])
    return features[kept], labels[kept], counts


def _by_smote(features, labels, counts):
    have = np.bincount(labels)
    wanted = {c: int(have[c]) + count for c, count in counts.items()}
    imblearn.over_sampling.SMOTE(sampling_strategy=wanted).fit_resample(
        features, labels
    )
