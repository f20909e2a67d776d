"""Scores of the decisions of a classifier: recall, precision, F1, and their means.

They include the four scores of Konno and Iwazume (2018), functions of the recall of
each class. Accuracy alone hides a rare class that is never predicted; recall alone
hides the false positives.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.finite import check_weights
from tf_pseudofeat.core.labels import class_ids

__all__ = [
    "DECISION_SCORES",
    "MINORITY_SCORES",
    "accuracy",
    "balanced_accuracy",
    "check_minority",
    "class_recalls",
    "classification_scores",
    "decision_errors",
    "decision_scores",
    "effective_sizes",
    "geometric_mean",
    "known_mean",
    "mean_minority_accuracy",
    "min_class_accuracy",
    "rare_places",
]

DECISION_SCORES = (
    "accuracy",
    "balanced_accuracy",
    "geometric_mean",
    "mean_minority_accuracy",
    "min_class_accuracy",
    "macro_f1",
    "f1",
)
# Of these, what depends on which classes are the minority.
MINORITY_SCORES = ("mean_minority_accuracy", "f1")

_DRAWS = 500  # for a standard error


def class_recalls(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, num_classes: int | None = None
) -> np.ndarray:
    """Computes the recall of each class.

    Args:
        y_true: true labels, `[N]`, `[N, 1]` or one-hot `[N, C]`.
        y_pred: predicted class ids `[N]`.
        num_classes: C; by default the highest id seen plus one.

    Returns:
        recalls: float64 `[C]`, NaN for a class without examples.
    """
    return decision_scores(*_counts(_confusion(y_true, y_pred, num_classes)), [])[
        "recall"
    ]


def accuracy(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> float:
    """The fraction of correct predictions."""
    return float(np.mean(np.equal(*_id_pairs(y_true, y_pred))))


def balanced_accuracy(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> float:
    """The mean of the class recalls."""
    return float(known_mean(class_recalls(y_true, y_pred)))


def geometric_mean(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> float:
    """The geometric mean of the class recalls (Kubat and Matwin 1997).

    Zero if the recall of any class is zero.
    """
    scores = decision_scores(*_counts(_confusion(y_true, y_pred)), [])
    return float(scores["geometric_mean"])


def mean_minority_accuracy(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, minority: Sequence[int]
) -> float:
    """The mean recall of the `minority` classes (a list of class ids).

    NaN if there is no example of them.
    """
    recalls = class_recalls(y_true, y_pred)
    return float(known_mean(recalls[rare_places(minority, recalls.size)]))


def min_class_accuracy(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> float:
    """The smallest class recall."""
    return float(np.nanmin(class_recalls(y_true, y_pred)))


def classification_scores(
    y_true: npt.ArrayLike,
    y_pred: npt.ArrayLike,
    num_classes: int,
    minority: Sequence[int],
    sample_weight: npt.ArrayLike | None = None,
) -> dict[str, Any]:
    """Computes all scores of decisions.

    Args:
        y_true: true labels, `[N]`, `[N, 1]` or one-hot `[N, C]`.
        y_pred: predicted class ids `[N]`.
        num_classes: C.
        minority: list of class ids.
        sample_weight: weights of the examples `[N]`; by default 1.

    Returns:
        scores: dict of the scores by name, each in [0, 1]: "accuracy",
            "balanced_accuracy", "geometric_mean", "mean_minority_accuracy",
            "min_class_accuracy", "macro_f1", and "f1", the mean F1 of the minority
            classes. For each class, lists of C with None for undefined values:
            "recall", "precision", "class_f1", "true_share" and "predicted_share", the
            fractions of examples that are, and that are predicted as, the class.
            "confusion_matrix", a list of C lists of C: rows are true classes, columns
            predicted ones.
    """
    confusion = _confusion(y_true, y_pred, num_classes, sample_weight)
    scores = decision_scores(*_counts(confusion), minority)
    return {
        **{name: _or_none(score) for name, score in scores.items()},
        "confusion_matrix": confusion.tolist(),
    }


def decision_scores(hits, examples, guesses, minority):
    """Computes the scores of decisions of many classifiers at once.

    Classes without examples are left out of means, even if they are predicted.

    Args:
        hits: number of correct predictions of each class, `[..., C]`.
        examples: number of examples of each class, `[C]` or `[..., C]`.
        guesses: number of predictions of each class, `[..., C]`.
        minority: list of class ids.

    Returns:
        scores: dict by name, each `[...]`, or `[..., C]` for scores of classes; NaN if
            undefined.
    """
    everything = examples.sum(axis=-1, keepdims=True)
    rare = rare_places(minority, hits.shape[-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = hits / examples, hits / guesses
        f1 = np.where(examples > 0, 2 * hits / (examples + guesses), np.nan)
        logs = np.log(recall)  # log(0) = -inf, and exp gives back the zero
        return {
            "accuracy": hits.sum(axis=-1) / everything[..., 0],
            "balanced_accuracy": known_mean(recall),
            "geometric_mean": np.exp(known_mean(logs)),
            "mean_minority_accuracy": known_mean(recall[..., rare]),
            "min_class_accuracy": np.nanmin(recall, axis=-1),
            "macro_f1": known_mean(f1),
            "f1": known_mean(f1[..., rare]),
            "recall": recall,
            "precision": precision,
            "class_f1": f1,
            "true_share": examples / everything,
            "predicted_share": guesses / everything,
        }


def decision_errors(confusion, minority, sizes=None):
    """The standard error of each score of decisions, as from new data of the same kind.

    Each class's recall is drawn from its Beta distribution given the hits, under
    Jeffreys' prior, for 7 hits of 7 are not 100 +- 0 percent; its misses are spread
    over the other classes as they were.

    Args:
        confusion: `[C, C]`, what examples of true classes, the rows, were taken for.
        minority: list of class ids.
        sizes: how many examples of each class there are, `[C]`, where the confusion
            matrix is one of weights; see `effective_sizes`.

    Returns:
        errors: dict by name, for scores that are single numbers.
    """
    hits, examples, _ = _counts(confusion)
    misses = examples - hits
    rng = np.random.default_rng(0)
    each = 1.0 if sizes is None else sizes / np.where(examples > 0, examples, 1)
    recalls = rng.beta(hits * each + 0.5, misses * each + 0.5, (_DRAWS, hits.size))
    spread = confusion * (1 - np.eye(hits.size))
    even = (1 - np.eye(hits.size)) / max(1, hits.size - 1)
    with np.errstate(invalid="ignore"):
        spread = np.where(misses[:, None] > 0, spread / misses[:, None], even)
    drawn = recalls * examples
    guesses = drawn + ((1 - recalls) * examples) @ spread
    scores = decision_scores(drawn, examples, guesses, minority)
    return {name: float(np.nanstd(scores[name])) for name in DECISION_SCORES}


def effective_sizes(ids, sample_weight, num_classes):
    """The effective sample size of each class (Kish 1965), `[C]`."""
    sums = np.bincount(ids, sample_weight, num_classes)
    squares = np.bincount(ids, np.square(sample_weight), num_classes)
    return np.square(sums) / np.where(squares > 0, squares, 1)


def _counts(confusion):
    """Hits, examples and guesses `[C]` of a confusion matrix `[C, C]`."""
    return np.diagonal(confusion), confusion.sum(axis=1), confusion.sum(axis=0)


def known_mean(values):
    """The mean over the last axis without NaN; NaN if all are NaN."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1)


def check_minority(minority, num_classes):
    """Checks a list of minority classes; returns distinct ids.

    Raises:
        ValueError: If it is not a list of ids from 0 to C - 1, or empty.
    """
    try:
        ids = np.unique(class_ids(list(minority), num_classes)).tolist()
    except (TypeError, ValueError):
        ids = []
    if not ids:
        raise ValueError(
            f"`minority` must be a list of class ids from 0 to {num_classes - 1}; "
            f"received {minority!r:.200}."
        )
    return ids


def rare_places(minority, num_classes):
    """The distinct minority classes below C, sorted."""
    rare = np.unique(class_ids(list(minority)))
    return rare[rare < num_classes]


def _confusion(y_true, y_pred, num_classes=None, sample_weight=None):
    """Float64 `[C, C]`; rows are true classes."""
    y_true, y_pred = _id_pairs(y_true, y_pred, num_classes)
    if sample_weight is not None:
        sample_weight = np.asarray(sample_weight)
        check_weights(sample_weight, y_true.size)
    classes = num_classes or 1 + max(y_true.max(), y_pred.max())
    places = y_true * classes + y_pred
    counts = np.bincount(places, sample_weight, classes**2)
    return counts.reshape(classes, classes).astype(np.float64)


def _id_pairs(y_true, y_pred, num_classes=None):
    y_true, y_pred = class_ids(y_true, num_classes), class_ids(y_pred, num_classes)
    if y_true.shape != y_pred.shape or not y_true.size:
        raise ValueError(
            f"One prediction per label is needed; received {y_true.size} labels and "
            f"{y_pred.size} predictions."
        )
    return y_true, y_pred


def _or_none(score):
    """Converts to a number, or a list with None for NaN."""
    if np.ndim(score) == 0:
        return float(score)
    return [None if np.isnan(value) else float(value) for value in score]
