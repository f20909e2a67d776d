"""A report with numbers that are made up."""

import numpy as np

from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.gaussians.covariance import estimate_covariance
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.retraining.report import RetrainingReport

__all__ = ["made_up_report"]


def _scores(recall, precision):
    known = [value for value in recall if value is not None]
    return {
        "accuracy": 0.912,
        "balanced_accuracy": float(np.mean(known)),
        "geometric_mean": 0.5,
        "mean_minority_accuracy": float("nan"),
        "min_class_accuracy": min(known),
        "macro_f1": 0.4,
        "f1": 0.3,
        "average_precision": None,
        "roc_auc": 0.875,
        "log_loss": 0.4321,
        "brier_score": 0.25,
        "calibration_error": 0.0625,
        "recall": recall,
        "precision": precision,
        "class_f1": [0.9, 0.25, None],
        "class_average_precision": [0.95, None, None],
        "true_share": [0.75, 0.25, 0.0],
        "predicted_share": [0.9, 0.1, 0.0],
        "confusion_matrix": [[9.0, 1.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
    }


def _covariance_report():
    features = np.random.default_rng(0).normal(size=(20, 3))
    moments = moments_of(features, np.repeat([0, 1], 10), 2, "full")
    return estimate_covariance(moments).report


def made_up_report():
    """A `RetrainingReport` of three classes, of which one is rare and one absent."""
    return RetrainingReport(
        layer_name="features",
        feature_shape=(4,),
        real=[12_000, 30, 0],
        used=[500, 30, 0],
        pseudo=[0, 470, 0],
        minority=[1],
        prior=[0.5, 0.5, float("nan")],
        scored_on="validation data",
        before=_scores([0.987, 0.123, None], [0.8, 0.6, None]),
        after=_scores([0.95, 0.75, None], [0.9, 0.4, 0.0]),
        standard_error={},
        kept=True,
        reason="",
        notes=[],
        loss=[0.9, 0.7, 0.6],
        recipe=HeadRecipe(epochs=12, blend=0.2, tau=0.5),
        extraction=Extraction(per_class=500),
        view_source="small shifts of images",
        monitor=None,
        seed=(1, 2),
        optimizer="Adam",
        learning_rate=0.001,
        seconds={"extract": 1.23, "train": 4.0},
        covariance=_covariance_report(),
    )
