"""Scores of the ranking and the calibration of a classifier.

Ranking scores measure whether examples of a class get higher probabilities of it than
other examples, whatever the threshold. For two classes, a change of prior or threshold
does not change them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_pseudofeat.evaluation.ranking import ranking_of
from tf_pseudofeat.evaluation.scores import known_mean, rare_places

__all__ = ["PROBABILITY_SCORES", "expected_calibration_error", "probability_scores"]

PROBABILITY_SCORES = (
    "average_precision",
    "roc_auc",
    "log_loss",
    "brier_score",
    "calibration_error",
)

# Number of probabilities to rank; more take minutes.
_MOST_RANKED = 10_000_000
_EPSILON = np.finfo(np.float64).eps


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
        | _ranking_scores(predictions, minority)
        | _calibration_scores(predictions)
    )


def probability_score(name, predictions, minority):
    """Computes a single score by name, without the cost of the others."""
    of_ranking = name in ("average_precision", "roc_auc")
    if of_ranking:
        return _ranking_scores(predictions, minority).get(name)
    return _calibration_scores(predictions).get(name)


def _calibration_scores(predictions):
    """Scores of probabilities; {} if unknown."""
    p, weight = predictions.probabilities, predictions.sample_weight
    if p is None:
        return {}
    if not np.isfinite(p).all():
        raise ValueError("Probabilities contain NaN or infinity; expected numbers.")
    squares = np.square(p - np.eye(predictions.num_classes)[predictions.ids])
    squares = squares.sum(axis=1)
    of_label = p[np.arange(len(p)), predictions.ids]
    losses = -np.log(np.clip(of_label, _EPSILON, 1 - _EPSILON))  # as scikit-learn
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


def _ranking_scores(predictions, minority):
    """Scores of ranking; {} if there is nothing to rank, or too much."""
    if predictions.kind is None or predictions.outputs.size > _MOST_RANKED:
        return {}
    ids, odds, weight = predictions.ids, predictions.log_odds, predictions.sample_weight
    if weight is not None:
        counted = weight > 0
        ids, odds, weight = ids[counted], odds[counted], weight[counted]
    classes = predictions.num_classes
    examples = np.bincount(ids, minlength=classes)
    known = np.flatnonzero((examples > 0) & (examples < len(ids)))
    if not known.size:
        return {}
    precisions, areas = np.full(classes, np.nan), np.full(classes, np.nan)
    for c in known:
        precisions[c], areas[c] = ranking_of(ids == c, odds[:, c], weight)
    mean = float(known_mean(precisions[rare_places(minority, classes)]))
    return {
        "average_precision": None if np.isnan(mean) else mean,
        "roc_auc": float(areas[known].mean()),
        "class_average_precision": [
            None if np.isnan(value) else float(value) for value in precisions
        ],
    }
