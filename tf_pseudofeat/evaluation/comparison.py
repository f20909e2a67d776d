"""One classifier before and after: every score, and how sure the difference is."""

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
    "score_decisions",
    "difference_error",
    "folds_of",
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


def standard_errors(before, after, minority):
    """The standard error of each score's difference, of two classifiers on one set.

    Args:
        before: `Predictions` of one.
        after: of the other, for the same examples.
        minority: list of class ids.

    Returns:
        errors: dict of the names in `SCORE_NAMES`, and of the scores of each class,
            with a number, or a list of C, in place of each score; None where too few
            examples tell.
    """

    def difference(rows):
        pair = (score_predictions(p.select(rows), minority) for p in (before, after))
        first, second = map(_flat, pair)
        return second - first

    error = difference_error(difference, before.ids)
    classes = before.num_classes
    errors = dict(zip(SCORE_NAMES, map(_or_none, error), strict=False))
    for place, name in enumerate(_OF_CLASSES):
        start = len(SCORE_NAMES) + place * classes
        errors[name] = [_or_none(value) for value in error[start : start + classes]]
    return errors


def difference_error(difference, ids):
    """The jackknife's standard error of what a function says of examples.

    With K groups, each class spread over all, and d_k without the k-th of them,

        error = sqrt((K - 1) / K * sum_k (d_k - mean(d)) ** 2)

    Args:
        difference: function of the numbers of examples `[M]`, to a number or `[S]`.
        ids: class of each example `[N]`.

    Returns:
        error: as from the function, NaN where it was NaN without some group.

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
    """Whether a gain is above 0 by more than chance, in a one-sided test.

    Args:
        gain: what was gained, above 0 for better.
        error: its standard error, from `difference_error`; not known where None or NaN.
        confidence: from 0.5 to 1.
    """
    if error is None or not gain > 0:
        return False
    return bool(gain > stats.t.ppf(confidence, _GROUPS - 1) * error)


def folds_of(ids, folds, rng):
    """A fold, from 0, for each example, each class spread over all."""
    order = rng.permutation(ids.size)
    order = order[np.argsort(ids[order], kind="stable")]
    fold = np.empty(ids.size, int)
    fold[order] = np.arange(ids.size) % folds
    return fold


def _flat(scores):
    numbers = [scores[name] for name in SCORE_NAMES]
    numbers += [value for name in _OF_CLASSES for value in scores[name]]
    return np.array([np.nan if value is None else value for value in numbers], float)


def _or_none(value):
    return None if np.isnan(value) else float(value)
