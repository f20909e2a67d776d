"""The four scores of Konno and Iwazume (2018), as functions and as Keras metrics.

All of them are functions of the recall of each class. Accuracy alone hides a rare
class that is never found; these do not.
"""

import keras
import numpy as np

from tf_pseudofeat.arguments import whole_number
from tf_pseudofeat.labels import class_ids

__all__ = [
    "SCORE_NAMES",
    "accuracy",
    "balanced_accuracy",
    "check_monitor",
    "check_scored",
    "class_recalls",
    "classification_scores",
    "geometric_mean",
    "mean_minority_accuracy",
    "min_class_accuracy",
    "recall_scores",
    "BalancedAccuracy",
    "GeometricMean",
    "MeanMinorityAccuracy",
    "MinClassAccuracy",
]

SCORE_NAMES = (
    "accuracy",
    "balanced_accuracy",
    "geometric_mean",
    "mean_minority_accuracy",
    "min_class_accuracy",
)


def class_recalls(y_true, y_pred, num_classes=None):
    """The share of each class's examples that are found.

    Args:
        y_true: true labels, `[N]`, `[N, 1]` or one-hot `[N, C]`.
        y_pred: predicted class ids `[N]`.
        num_classes: C; by default the highest id seen plus one.

    Returns:
        recalls: float64 `[C]`, NaN for a class without examples.
    """
    return _recalls(*_id_pairs(y_true, y_pred, num_classes), num_classes)


def accuracy(y_true, y_pred):
    """The share of all examples that are right."""
    return float(np.mean(np.equal(*_id_pairs(y_true, y_pred))))


def balanced_accuracy(y_true, y_pred):
    """The mean of the class recalls: accuracy, if classes were equally common."""
    return float(_mean_of_known(class_recalls(y_true, y_pred)))


def geometric_mean(y_true, y_pred):
    """The geometric mean of the class recalls (Kubat and Matwin 1997).

    Zero as soon as one class is never found.
    """
    recalls = class_recalls(y_true, y_pred)
    return float(recall_scores(recalls, np.ones(recalls.size), [])["geometric_mean"])


def mean_minority_accuracy(y_true, y_pred, minority):
    """The mean recall of the `minority` classes (a list of class ids).

    NaN if the labels have no example of them.
    """
    recalls = class_recalls(y_true, y_pred)
    scores = recall_scores(recalls, np.ones(recalls.size), minority)
    return float(scores["mean_minority_accuracy"])


def min_class_accuracy(y_true, y_pred):
    """The recall of the class that is found least."""
    return float(np.nanmin(class_recalls(y_true, y_pred)))


def classification_scores(y_true, y_pred, num_classes, minority):
    """All scores at once.

    Args:
        y_true: true labels, `[N]`, `[N, 1]` or one-hot `[N, C]`.
        y_pred: predicted class ids `[N]`.
        num_classes: C.
        minority: list of class ids.

    Returns:
        scores: dict of the five scores by function name, each in [0, 1], and
            `"recall"`, a list of C (None for a class without examples).
    """
    y_true, y_pred = _id_pairs(y_true, y_pred, num_classes)
    recalls = _recalls(y_true, y_pred, num_classes)
    totals = np.bincount(y_true, minlength=num_classes)
    scores = recall_scores(recalls, totals, minority)
    return {
        **{name: float(score) for name, score in scores.items()},
        "recall": [None if np.isnan(recall) else float(recall) for recall in recalls],
    }


def recall_scores(recalls, totals, minority):
    """The five scores of many classifiers at once, from their recalls.

    Args:
        recalls: `[..., C]`, NaN for a class without examples.
        totals: examples of each class `[C]`.
        minority: list of class ids.

    Returns:
        scores: dict of the five scores by name, each `[...]`.
    """
    rare = np.unique(class_ids(list(minority)))
    rare = rare[rare < recalls.shape[-1]]
    with np.errstate(divide="ignore"):  # log(0) = -inf, and exp gives back the zero
        logs = np.log(recalls)
    return {
        "accuracy": np.nansum(recalls * totals, axis=-1) / np.sum(totals),
        "balanced_accuracy": _mean_of_known(recalls),
        "geometric_mean": np.exp(_mean_of_known(logs)),
        "mean_minority_accuracy": _mean_of_known(recalls[..., rare]),
        "min_class_accuracy": np.nanmin(recalls, axis=-1),
    }


def _mean_of_known(values):
    """The mean over the last axis of those that are known; NaN where none is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1)


def check_monitor(monitor):
    """Refuses what is no score to watch; None is for no watch at all."""
    if monitor is not None and monitor not in SCORE_NAMES:
        raise ValueError(
            f"`monitor` is one of {SCORE_NAMES} or None; received {monitor!r}."
        )


def check_scored(monitor, score, minority):
    """Raises where a monitored score has no value."""
    if np.isnan(score):
        raise ValueError(
            f"`monitor` {monitor!r} cannot be scored: the data to score on have no "
            f"example of the minority classes {minority}. Give them some, or monitor "
            f"another score."
        )


def _recalls(true_ids, predicted_ids, num_classes=None):
    num_classes = num_classes or 1 + max(true_ids.max(), predicted_ids.max())
    total = np.bincount(true_ids, minlength=num_classes)
    found = np.bincount(true_ids[true_ids == predicted_ids], minlength=num_classes)
    return np.where(total, found / np.maximum(total, 1), np.nan)  # [C]


def _id_pairs(y_true, y_pred, num_classes=None):
    y_true, y_pred = class_ids(y_true, num_classes), class_ids(y_pred, num_classes)
    if y_true.shape != y_pred.shape or not y_true.size:
        raise ValueError(
            f"One prediction per label is needed; received {y_true.size} labels and "
            f"{y_pred.size} predictions."
        )
    return y_true, y_pred


class _RecallMetric(keras.metrics.Metric):
    """Counts examples and hits per class; subclasses reduce the recalls to one score.

    Args:
        num_classes: C.
        threshold: for models with one output, the value above which class 1 is
            predicted: 0.5 for probabilities, 0.0 for logits.
        name: string, optional.
        dtype: string, optional.
    """

    def __init__(self, num_classes, threshold=0.5, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.num_classes = whole_number("num_classes", num_classes)
        self.threshold = threshold
        self.total = self.add_weight(
            shape=(self.num_classes,), initializer="zeros", name="total"
        )
        self.found = self.add_weight(
            shape=(self.num_classes,), initializer="zeros", name="found"
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts a batch: labels in any form, outputs `[B, C]` or `[B, 1]`.

        An example whose label is no class from 0 to C - 1 makes the score NaN until
        `reset_state`, for a graph cannot raise; one of weight 0 is not looked at.
        """
        ops = keras.ops
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        ids = self._ids(y_true, 0.5)
        last = self.num_classes - 1
        known = ops.logical_and(ids >= 0, ids <= last)
        ids = ops.clip(ids, 0, last)  # torch has no row of zeros for those unknown
        truth = ops.one_hot(ids, self.num_classes, dtype=self.dtype)
        truth = ops.where(known[:, None], truth, float("nan"))
        guess = ops.one_hot(
            self._ids(y_pred, self.threshold), self.num_classes, dtype=self.dtype
        )
        if sample_weight is not None:
            weight = ops.reshape(ops.cast(sample_weight, self.dtype), (-1, 1))
            truth = ops.where(weight == 0, 0.0, truth * weight)
        self.total.assign_add(ops.sum(truth, axis=0))
        self.found.assign_add(ops.sum(truth * guess, axis=0))

    def _ids(self, values, threshold):
        ops = keras.ops
        if len(values.shape) > 1 and values.shape[-1] == self.num_classes > 1:
            return ops.argmax(values, axis=-1)
        if len(values.shape) > 1 and values.shape[-1] not in (1, None):
            raise ValueError(
                f"{self.name} counts {self.num_classes} classes; labels and outputs "
                f"must be [B], [B, 1] or [B, {self.num_classes}], received shape "
                f"{tuple(values.shape)}."
            )
        values = ops.reshape(values, (-1,))
        if "float" in keras.backend.standardize_dtype(values.dtype):
            above = ops.cast(values > threshold, "int32")
            return above if self.num_classes == 2 else ops.cast(values, "int32")
        return ops.cast(values, "int32")

    def _recalls(self):
        """`(recalls [C], present [C])`, zero where a class has no example."""
        present = self.total != 0  # NaN is present, too
        return keras.ops.divide_no_nan(self.found, self.total), present

    def get_config(self):
        """The constructor's arguments, as Keras saves them."""
        config = {"num_classes": self.num_classes, "threshold": self.threshold}
        return {**super().get_config(), **config}


def _mean_where(values, mask):
    mask = keras.ops.cast(mask, values.dtype)
    return keras.ops.divide_no_nan(keras.ops.sum(values * mask), keras.ops.sum(mask))


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class BalancedAccuracy(_RecallMetric):
    """`balanced_accuracy` as a Keras metric.

    Args:
        num_classes: C.
        threshold: for models with one output, the value above which class 1 is
            predicted: 0.5 for probabilities, 0.0 for logits.
        name: string, optional.
        dtype: string, optional.
    """

    def result(self):
        """The score so far, a scalar."""
        return _mean_where(*self._recalls())


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class GeometricMean(_RecallMetric):
    """`geometric_mean` as a Keras metric; the Args of `BalancedAccuracy`."""

    def result(self):
        """The score so far, a scalar."""
        recalls, present = self._recalls()
        logs = keras.ops.log(keras.ops.where(present, recalls, 1.0))
        return keras.ops.exp(_mean_where(logs, present))


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class MinClassAccuracy(_RecallMetric):
    """`min_class_accuracy` as a Keras metric; the Args of `BalancedAccuracy`."""

    def result(self):
        """The score so far, a scalar."""
        recalls, present = self._recalls()
        return keras.ops.min(keras.ops.where(present, recalls, 1.0))


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class MeanMinorityAccuracy(_RecallMetric):
    """`mean_minority_accuracy` as a Keras metric.

    Args:
        num_classes: C.
        minority: list of class ids.
        threshold: see `BalancedAccuracy`.
        name: string, optional.
        dtype: string, optional.
    """

    def __init__(self, num_classes, minority, threshold=0.5, name=None, dtype=None):
        super().__init__(num_classes, threshold, name=name, dtype=dtype)
        self.minority = class_ids(list(minority), self.num_classes).tolist()

    def result(self):
        """The score so far, a scalar."""
        recalls, present = self._recalls()
        rare = np.isin(np.arange(self.num_classes), self.minority)
        return _mean_where(recalls, keras.ops.logical_and(present, rare))

    def get_config(self):
        """The constructor's arguments, as Keras saves them."""
        return {**super().get_config(), "minority": self.minority}
