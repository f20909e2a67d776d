"""Step 3: a Gaussian for each class, from features in memory."""

import numpy as np
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

import tf_pseudofeat as tfpf
from benchmarks.made_up import features_of
from benchmarks.race import Contender, race

__all__ = ["measure"]

_QUESTION = "fit a Gaussian per class"


def measure(num_rows=50_000, sizes=(64, 512), num_classes=10, rounds=7):
    """Measurements for each feature size."""
    measured = []
    for size in sizes:
        features, labels = features_of(num_rows, size, num_classes)
        setting = f"{num_rows:,} x {size}, {num_classes} classes"
        contenders = _contenders(features, labels, num_classes)
        measured += race(_QUESTION, setting, contenders, rounds=rounds)
    return measured


def _contenders(features, labels, num_classes):
    gaussian = tfpf.ClassConditionalGaussian(num_classes)

    def anew():
        tfpf.ClassConditionalGaussian(num_classes).adapt(features, labels)

    def by_numpy():
        for class_id in range(num_classes):
            rows = features[labels == class_id]
            rows.mean(axis=0)
            np.linalg.cholesky(np.cov(rows, rowvar=False))

    return [
        Contender("ours", lambda: gaussian.adapt(features, labels), "ours"),
        Contender("ours with a new layer", anew),
        Contender("one float32 `X.T @ X`", lambda: features.T @ features, "floor"),
        Contender("NumPy `cov` and `cholesky`", by_numpy),
        Contender(
            "scikit-learn QDA",
            lambda: QuadraticDiscriminantAnalysis().fit(features, labels),
        ),
    ]
