"""Step 3: a Gaussian for each class, on an idle machine and on one that others use."""

import numpy as np
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

import tf_pseudofeat as tfpf
from benchmarks.made_up import features_of
from benchmarks.race import Contender, one_core_busy, race

__all__ = ["measure"]

_QUESTION = "fit a Gaussian per class"
_SETTINGS = (
    ("full", 50_000, 64),
    ("full", 50_000, 512),
    ("tied", 50_000, 512),
    ("low_rank", 50_000, 512),
    ("diag", 50_000, 512),
)


def measure(settings=_SETTINGS, num_classes=10, rounds=7):
    """Measurements for each `(covariance type, rows, features)`, idle and busy."""
    measured = []
    for covariance_type, num_rows, size in settings:
        contenders = _contenders(covariance_type, num_rows, size, num_classes)
        setting = f"{num_rows:,} x {size}, {num_classes} classes, {covariance_type}"
        measured += race(_QUESTION, setting, contenders, rounds=rounds)
        with one_core_busy():
            busy = f"{setting}, one core busy"
            measured += race(_QUESTION, busy, contenders, rounds=rounds)
    return measured


def _contenders(covariance_type, num_rows, size, num_classes):
    features, labels = features_of(num_rows, size, num_classes)
    gaussian = tfpf.ClassConditionalGaussian(num_classes, covariance_type)
    gaussian.adapt(features, labels)
    moments = gaussian.moments

    def by_numpy():
        for class_id in range(num_classes):
            rows = features[labels == class_id]
            rows.mean(axis=0)
            np.linalg.cholesky(np.cov(rows, rowvar=False))

    contenders = [
        Contender("ours", lambda: gaussian.adapt(features, labels), "ours"),
        Contender("one float32 `X.T @ X`", lambda: features.T @ features, "floor"),
        Contender(
            "ours: estimate the covariances",
            lambda: tfpf.estimate_covariance(moments, covariance_type),
            "part",
        ),
    ]
    if covariance_type == "full":
        contenders += [
            Contender("NumPy `cov` and `cholesky`", by_numpy),
            Contender(
                "scikit-learn QDA",
                lambda: QuadraticDiscriminantAnalysis().fit(features, labels),
            ),
        ]
    return contenders
