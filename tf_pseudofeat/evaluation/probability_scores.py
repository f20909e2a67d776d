"""Scores of the ranking and the calibration of a classifier.

Ranking scores measure whether examples of a class get higher probabilities of it than
other examples, whatever the threshold. For two classes, a change of prior or threshold
does not change them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_pseudofeat.evaluation.ranking import rank_class
from tf_pseudofeat.evaluation.scores import known_mean, rare_places

__all__ = [
    "PROBABILITY_SCORES",
    "RANKING_SCORES",
    "expected_calibration_error",
    "probability_score",
    "probability_scores",
    "ranking_scores",
]

RANKING_SCORES = ("average_precision", "roc_auc")
PROBABILITY_SCORES = (
    *RANKING_SCORES,
    "log_loss",
    "brier_score",
    "calibration_error",
)

# Number of probabilities to rank; more take minutes.
_MOST_RANKED = 10_000_000


def probability_scores(predictions: Any, minority: Sequence[int]) -> dict[str, Any]:
    """Computes the scores of ranking and calibration.

    Args:
        predictions: `Predictions`.
        minority: list of class ids.

    Returns:
        scores: dict of "average_precision", the mean over the minority classes, and
            "roc_auc", the mean over all classes, each class against the rest;
            "log_loss", in nats; "brier_score", the mean square of all C differences
            of an example, from 0 to 2; "calibration_error", see
            `expected_calibration_error`. "class_average_precision", a list of C.
            None if undefined: for unknown probabilities, a class without examples or
            without others, or more than ten million probabilities to rank.
    """
    scores = dict.fromkeys(PROBABILITY_SCORES)
    scores["class_average_precision"] = [None] * predictions.num_classes
    return (
        scores
        | ranking_scores(predictions, minority)
        | _calibration_scores(predictions)
    )


def probability_score(name, predictions, minority):
    """Computes a single score by name, without the cost of the others."""
    if name in RANKING_SCORES:
        return ranking_scores(predictions, minority).get(name)
    return _calibration_scores(predictions).get(name)


def _calibration_scores(predictions):
    """Scores of probabilities; {} if unknown."""
    p, weight = predictions.probabilities, predictions.sample_weight
    if p is None:
        return {}
    ids = predictions.ids
    squares = np.square(p - np.eye(predictions.num_classes)[ids]).sum(axis=1)
    known = p[np.arange(ids.size), ids]
    losses = -np.log(np.maximum(known, np.finfo(p.dtype).eps))  # as scikit-learn's
    return {
        "log_loss": float(np.average(losses, weights=weight)),
        "brier_score": float(np.average(squares, weights=weight)),
        "calibration_error": expected_calibration_error(predictions),
    }


def expected_calibration_error(predictions: Any, bins: int = 15) -> float:
    """The expected calibration error (ECE) of the most likely class.

    The mean over examples of |confidence - accuracy| in the bin of their confidence,
    for `bins` equal bins of [0, 1].

    References:
        Guo et al., "On calibration of modern neural networks", ICML 2017.
    """
    p, weight = predictions.probabilities, predictions.sample_weight
    weight = np.ones(len(p)) if weight is None else weight
    right = p.argmax(axis=1) == predictions.ids
    confidence = p.max(axis=1)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weight * (confidence - right), minlength=bins)
    return float(np.abs(gaps).sum() / weight.sum())


def ranking_scores(predictions, minority):
    """The ranking scores alone; {} if there is nothing to rank, or too much."""
    if predictions.kind is None or predictions.outputs.size > _MOST_RANKED:
        return {}
    odds, ids, weight = predictions.log_odds, predictions.ids, predictions.sample_weight
    weight = np.ones(len(ids)) if weight is None else np.asarray(weight, np.float64)
    odds, ids, weight = odds[weight > 0], ids[weight > 0], weight[weight > 0]
    classes = predictions.num_classes
    examples = np.bincount(ids, minlength=classes)
    precisions, areas = np.full((2, classes), np.nan)
    for c in np.flatnonzero((examples > 0) & (examples < ids.size)):
        precisions[c], areas[c] = rank_class(odds[:, c], ids == c, weight)
    if np.isnan(areas).all():
        return {}
    mean = float(known_mean(precisions[rare_places(minority, classes)]))
    return {
        "average_precision": None if np.isnan(mean) else mean,
        "roc_auc": float(np.nanmean(areas)),
        "class_average_precision": [
            None if np.isnan(value) else float(value) for value in precisions
        ],
    }
