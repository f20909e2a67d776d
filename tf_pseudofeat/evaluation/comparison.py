"""Scores of a classifier before and after, and standard errors of the differences."""

import numpy as np
from scipy import stats

from tf_pseudofeat.evaluation.probability_scores import (
    PROBABILITY_SCORES,
    probability_scores,
)
from tf_pseudofeat.evaluation.scores import DECISION_SCORES, classification_scores

__all__ = [
    "LOWER_IS_BETTER",
    "SCORE_NAMES",
    "beyond_chance",
    "difference_error",
    "folds_of",
    "score_decisions",
    "score_predictions",
    "standard_errors",
]

SCORE_NAMES = DECISION_SCORES + PROBABILITY_SCORES
LOWER_IS_BETTER = frozenset({"log_loss", "brier_score", "calibration_error"})

_OF_CLASSES = ("recall", "precision", "class_f1", "class_average_precision")
_GROUPS = 10


def score_predictions(predictions, minority):
    """`classification_scores` and `probability_scores` of `Predictions`, as one dict.

    Args:
        predictions: `Predictions`.
        minority: list of class ids.
    """
    ranking = probability_scores(predictions, minority)
    return score_decisions(predictions, minority) | ranking


def score_decisions(predictions, minority):
    """`classification_scores` of `Predictions`."""
    return classification_scores(
        predictions.ids,
        predictions.predicted,
        predictions.num_classes,
        minority,
        predictions.sample_weight,
    )


def standard_errors(before, after, minority, score=score_predictions):
    """Standard errors of the score differences of two classifiers on the same examples.

    Args:
        before: `Predictions` of one.
        after: `Predictions` of the other.
        minority: list of class ids.
        score: `score_decisions` to leave out the other scores, which take longer.

    Returns:
        errors: dict with a number for each of `SCORE_NAMES`, and a list of C for each
            score of classes; None if there are too few examples, or it is left out.
    """
    classes = before.num_classes

    def difference(rows):
        pair = (score(p.select(rows), minority) for p in (before, after))
        first, second = (_flat(scores, classes) for scores in pair)
        return second - first

    error = difference_error(difference, before.ids)
    errors = dict(zip(SCORE_NAMES, map(_or_none, error), strict=False))
    for place, name in enumerate(_OF_CLASSES):
        start = len(SCORE_NAMES) + place * classes
        errors[name] = [_or_none(value) for value in error[start : start + classes]]
    return errors


def difference_error(difference, ids):
    """The jackknife standard error of a statistic of examples.

    With K stratified groups, and d_k without the k-th group,

        error = sqrt((K - 1) / K * sum_k (d_k - mean(d)) ** 2)

    Args:
        difference: function from row numbers `[M]` to a number or `[S]`.
        ids: class of each example `[N]`.

    Returns:
        error: of the shape of the function's value; NaN if that is NaN for some group.

    References:
        Efron and Stein, "The jackknife estimate of variance", Annals of Statistics,
        1981.
    """
    fold = folds_of(ids, min(_GROUPS, ids.size), np.random.default_rng(0))
    if ids.size < 2:
        return np.full_like(difference(np.arange(ids.size)), np.nan)
    groups = fold.max() + 1
    left = np.stack([difference(np.flatnonzero(fold != k)) for k in range(groups)])
    squares = np.square(left - left.mean(axis=0)).sum(axis=0)
    return np.sqrt((groups - 1) / groups * squares)


def beyond_chance(gain, error, confidence=0.95):
    """Whether a gain is significantly positive, in a one-sided t-test.

    Args:
        gain: the gain, positive for better.
        error: its standard error, from `difference_error`; None or NaN if unknown.
        confidence: from 0.5 to 1.
    """
    if error is None or not gain > 0:
        return False
    return bool(gain > stats.t.ppf(confidence, _GROUPS - 1) * error)


def folds_of(ids, folds, rng):
    """Assigns each example to one of the stratified folds 0, 1, ..."""
    order = rng.permutation(ids.size)
    order = order[np.argsort(ids[order], kind="stable")]
    fold = np.empty(ids.size, int)
    fold[order] = np.arange(ids.size) % folds
    return fold


def _flat(scores, classes):
    numbers = [scores.get(name) for name in SCORE_NAMES]
    unknown = [None] * classes
    numbers += [value for name in _OF_CLASSES for value in scores.get(name, unknown)]
    return np.array([np.nan if value is None else value for value in numbers], float)


def _or_none(value):
    return None if np.isnan(value) else float(value)
