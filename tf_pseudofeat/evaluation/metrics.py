"""The four scores of Konno and Iwazume (2018) as Keras metrics.

They are functions of the recall of each class, see `scores.py`.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.core.validation import whole_number

__all__ = [
    "BalancedAccuracy",
    "GeometricMean",
    "MeanMinorityAccuracy",
    "MinClassAccuracy",
]


class RecallMetric(keras.metrics.Metric):
    """Base class that counts examples and hits per class.

    Args:
        num_classes: C.
        threshold: for models with one output, the value above which class 1 is
            predicted: 0.5 for probabilities, 0.0 for logits.
        name: string, optional.
        dtype: string, optional.
    """

    def __init__(
        self,
        num_classes: int,
        threshold: float = 0.5,
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.num_classes = whole_number("num_classes", num_classes)
        self.threshold = threshold
        self.total = self.add_weight(
            shape=(self.num_classes,), initializer="zeros", name="total"
        )
        self.found = self.add_weight(
            shape=(self.num_classes,), initializer="zeros", name="found"
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts a batch: labels in any form, outputs `[B, C]` or `[B, 1]`.

        A label that is not a class from 0 to C - 1 makes the score NaN until
        `reset_state`, since a graph cannot raise; examples of weight 0 are ignored.
        """
        ops = keras.ops
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        ids = self._ids(y_true, 0.5)
        last = self.num_classes - 1
        known = ops.logical_and(ids >= 0, ids <= last)
        ids = ops.clip(ids, 0, last)  # torch cannot encode unknown ids as zeros
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
        """Returns `(recalls [C], present [C])`, recall 0 if a class is not present."""
        present = self.total != 0  # also for NaN
        return keras.ops.divide_no_nan(self.found, self.total), present

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras saves them."""
        config = {"num_classes": self.num_classes, "threshold": self.threshold}
        return {**super().get_config(), **config}


def _mean_where(values, mask):
    mask = keras.ops.cast(mask, values.dtype)
    return keras.ops.divide_no_nan(keras.ops.sum(values * mask), keras.ops.sum(mask))


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class BalancedAccuracy(RecallMetric):
    """`balanced_accuracy` as a Keras metric.

    Args:
        num_classes: C.
        threshold: for models with one output, the value above which class 1 is
            predicted: 0.5 for probabilities, 0.0 for logits.
        name: string, optional.
        dtype: string, optional.
    """

    def result(self) -> Any:
        """The score so far, a scalar."""
        return _mean_where(*self._recalls())


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class GeometricMean(RecallMetric):
    """`geometric_mean` as a Keras metric; the Args of `BalancedAccuracy`."""

    def result(self) -> Any:
        """The score so far, a scalar."""
        recalls, present = self._recalls()
        logs = keras.ops.log(keras.ops.where(present, recalls, 1.0))
        return keras.ops.exp(_mean_where(logs, present))


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class MinClassAccuracy(RecallMetric):
    """`min_class_accuracy` as a Keras metric; the Args of `BalancedAccuracy`."""

    def result(self) -> Any:
        """The score so far, a scalar."""
        recalls, present = self._recalls()
        return keras.ops.min(keras.ops.where(present, recalls, 1.0))


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class MeanMinorityAccuracy(RecallMetric):
    """`mean_minority_accuracy` as a Keras metric.

    Args:
        num_classes: C.
        minority: list of class ids.
        threshold: see `BalancedAccuracy`.
        name: string, optional.
        dtype: string, optional.
    """

    def __init__(
        self,
        num_classes: int,
        minority: Sequence[int],
        threshold: float = 0.5,
        name: str | None = None,
        dtype: object = None,
    ) -> None:
        super().__init__(num_classes, threshold, name=name, dtype=dtype)
        self.minority = class_ids(list(minority), self.num_classes).tolist()

    def result(self) -> Any:
        """The score so far, a scalar."""
        recalls, present = self._recalls()
        rare = np.isin(np.arange(self.num_classes), self.minority)
        return _mean_where(recalls, keras.ops.logical_and(present, rare))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras saves them."""
        return {**super().get_config(), "minority": self.minority}
