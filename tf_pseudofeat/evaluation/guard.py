"""The guard that keeps a retrained head only if a score improves significantly."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import keras
import numpy as np

from tf_pseudofeat.core.keras_internals import metric_falls
from tf_pseudofeat.core.options import did_you_mean
from tf_pseudofeat.core.validation import check_is_object
from tf_pseudofeat.evaluation.comparison import (
    LOWER_IS_BETTER,
    SCORE_NAMES,
    beyond_chance,
    difference_error,
    score_decisions,
)
from tf_pseudofeat.evaluation.probability_scores import (
    PROBABILITY_SCORES,
    probability_score,
)

__all__ = ["Guard"]


@dataclasses.dataclass(frozen=True, eq=False)
class Guard:
    """What a retrained head must gain on validation data, and must not lose.

    Attributes:
        monitor: the score that must rise: its name, see `classification_scores` and
            `probability_scores`, of which "log_loss", "brier_score" and
            "calibration_error" must fall; a function `(labels, outputs) -> float`,
            where higher is better; or a Keras metric. None keeps any head.
        confidence: confidence of the one-sided test of the gain, from 0.5, where every
            gain counts, to below 1. The default takes a gain of 0.88 standard errors: a
            stricter guard rejects more good heads than bad ones [1].
        max_recall_drop: the fraction of its recall that a class may lose at most, if
            the loss is significant, whatever the monitor; None for no limit.

    Raises:
        ValueError: If the monitor is not the name of a score, or a number is out of
            range.
        TypeError: If the monitor is of another type.

    Examples:
        >>> Guard("f1", confidence=0.95).name
        'f1'
        >>> guard = Guard("f1")
        >>> retrain_head(model, "features", data, validation_data=val, monitor=guard)

    References:
        [1] docs/results/deployment, "How sure the guard has to be".
    """

    # The argument that users pass the monitor as, and the names that it can be.
    _argument: ClassVar[str] = "monitor"
    _names: ClassVar[tuple[str, ...]] = SCORE_NAMES

    monitor: object = "balanced_accuracy"
    confidence: float = 0.8
    max_recall_drop: float | None = 0.5

    @classmethod
    def of(cls, monitor: object) -> Self:
        """Returns a `Guard` unchanged, and a new one for any other monitor."""
        return monitor if isinstance(monitor, cls) else cls(monitor)

    def __post_init__(self):
        _check_monitor(self.monitor, self._argument, self._names)
        _check_range("confidence", self.confidence, 0.5)
        if self.max_recall_drop is not None:
            _check_range("max_recall_drop", self.max_recall_drop, 0.0)

    @property
    def is_default(self) -> bool:
        """Whether all fields have their defaults."""
        named = isinstance(self.monitor, str)  # `==` of others may be anything
        return named and dataclasses.astuple(self) == dataclasses.astuple(type(self)())

    @property
    def name(self) -> str | None:
        """The name of the monitor, or None."""
        if self.monitor is None or isinstance(self.monitor, str):
            return self.monitor
        name = getattr(self.monitor, "name", None)
        return name or getattr(self.monitor, "__name__", type(self.monitor).__name__)

    @property
    def sign(self) -> float:
        """1.0 if higher is better, -1.0 if lower is better."""
        if isinstance(self.monitor, keras.metrics.Metric):
            falls = metric_falls(self.monitor)
        else:
            falls = isinstance(self.monitor, str) and self.monitor in LOWER_IS_BETTER
        return -1.0 if falls else 1.0

    def score(self, predictions: Any, minority: Sequence[int]) -> float:
        """The monitored score of `Predictions`, NaN if it is undefined."""
        monitor = self.monitor
        if isinstance(monitor, str):
            return _named_score(monitor, predictions, minority)
        if isinstance(monitor, keras.metrics.Metric):
            return _metric_score(monitor, predictions)
        score = monitor(predictions.labels, predictions.outputs)
        try:
            return float(score)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`{self._argument}` {self.name!r} must return one number, "
                f"where higher is better; received {score!r}."
            ) from error

    def gain(self, before: Any, after: Any, minority: Sequence[int]) -> float:
        """How much better `after` scores than `before`, positive for better."""
        old, new = (self.score(each, minority) for each in (before, after))
        return self.sign * (new - old)

    def gain_error(self, before: Any, after: Any, minority: Sequence[int]) -> float:
        """The standard error of the gain, see `difference_error`."""

        def difference(rows):
            pair = (each.select(rows) for each in (before, after))
            return np.array(self.gain(*pair, minority))

        return float(difference_error(difference, before.ids))

    def try_on(self, predictions: Any) -> None:
        """Checks that a custom function or metric works on `Predictions`.

        Raises:
            ValueError: If it fails, with its exception as the cause.
        """
        if self.monitor is None or isinstance(self.monitor, str):
            return
        try:
            self.score(predictions, [])
        except Exception as error:
            raise ValueError(
                f"`{self._argument}` {self.name!r} failed on labels of shape "
                f"{list(np.shape(predictions.labels))} and outputs of shape "
                f"{list(predictions.outputs.shape)}: {error}"
            ) from error

    def check(self, predictions: Any, minority: Sequence[int]) -> None:
        """Raises ValueError if the monitored score of `Predictions` is undefined."""
        if self.monitor is None:
            return
        present = np.unique(predictions.ids)
        if present.size < 2:
            raise ValueError(
                f"`{self._argument}` {self.name!r} needs examples of two "
                f"classes or more to score on; all {predictions.ids.size} are "
                f"of class {present[0]}."
            )
        if not math.isnan(self.score(predictions, minority)):
            return
        if not isinstance(self.monitor, str):
            raise ValueError(
                f"`{self._argument}` {self.name!r} is NaN for the data to score "
                f"on, {predictions.ids.size} examples of {present.size} classes."
            )
        unknown = isinstance(self.monitor, str) and predictions.probabilities is None
        if unknown and self.name in PROBABILITY_SCORES:
            raise ValueError(
                f"`{self._argument}` {self.name!r} needs probabilities, but the "
                f"model's outputs are neither probabilities nor logits. Choose a "
                f"score of decisions."
            )
        raise ValueError(
            f"`{self._argument}` {self.name!r} is undefined: the data to score "
            f"on have no example of the minority classes {minority}, or no others. Add "
            f"some, or choose another score."
        )

    def rollback_reason(self, before: Any, after: Any, minority: Sequence[int]) -> str:
        """Why the retrained head must not replace the original one, or "".

        Args:
            before: `Predictions` on validation data.
            after: the same with the retrained head.
            minority: list of class ids.
        """
        if self.monitor is None:
            return ""
        return self._no_gain(before, after, minority) or self.collapse(before, after)

    def _no_gain(self, before, after, minority):
        old, new = self.score(before, minority), self.score(after, minority)
        words = f"{self.name} on the validation data"
        change = f"from {old:.4f} to {new:.4f}"
        gain = self.sign * (new - old)
        if math.isnan(gain):
            return f"{words} went {change}"
        if round(gain, 12) == 0:
            return f"{words} did not change ({old:.4f}), which is a tie"
        if gain < 0:
            return f"{words} {'fell' if new < old else 'rose'} {change}"

        if self.confidence == 0.5:
            return ""
        error = self.gain_error(before, after, minority)
        if beyond_chance(gain, error, self.confidence):
            return ""
        return (
            f"{words} went {change}, which may be chance: the standard error of the "
            f"difference is {'not known' if math.isnan(error) else f'{error:.4f}'}"
        )

    def collapse(self, before: Any, after: Any) -> str:
        """Describes the class that loses too much recall; "" if none does."""
        if self.max_recall_drop is None:
            return ""
        old, new = _recalls(before), _recalls(after)
        lost = np.flatnonzero(new < (1 - self.max_recall_drop) * old)
        if not lost.size:
            return ""

        def difference(rows):
            return _recalls(before.select(rows)) - _recalls(after.select(rows))

        error = difference_error(difference, before.ids)
        for place in lost:
            if beyond_chance(old[place] - new[place], error[place]):
                return (
                    f"the recall of class {place} on the validation data fell from "
                    f"{100 * old[place]:.1f} to {100 * new[place]:.1f} percent"
                )
        return ""


def _recalls(predictions):
    return np.array(
        score_decisions(predictions, [])["recall"], float
    )  # None becomes NaN


def _named_score(name, predictions, minority):
    if name in PROBABILITY_SCORES:
        score = probability_score(name, predictions, minority)
    else:
        score = score_decisions(predictions, minority)[name]
    return math.nan if score is None else score


def _metric_score(metric, predictions):
    metric.reset_state()
    try:
        metric.update_state(
            predictions.labels,
            predictions.outputs,
            sample_weight=predictions.sample_weight,
        )
        return float(keras.ops.convert_to_numpy(metric.result()))
    finally:
        metric.reset_state()


def _check_monitor(monitor, argument, names):
    also = "a Keras metric, or None" if argument == "monitor" else "or a Keras metric"
    if isinstance(monitor, str):
        if monitor not in names:
            raise ValueError(
                f"`{argument}` must be one of {names}, a function (labels, outputs) "
                f"-> float, {also}; received {monitor!r}.{did_you_mean(monitor, names)}"
            )
        return
    check_is_object(argument, monitor, "...")
    if isinstance(monitor, keras.losses.Loss) or _is_loss_function(monitor):
        instead = (
            "Pass 'log_loss' or 'brier_score', or" if "log_loss" in names else "Pass"
        )
        raise ValueError(
            f"`{argument}` must be a score, where higher is better, but this is a "
            f"loss; received {monitor!r:.200}. {instead} a function that "
            f"negates it."
        )
    is_metric = isinstance(monitor, keras.metrics.Metric)
    if monitor is not None and not is_metric and not callable(monitor):
        raise TypeError(
            f"`{argument}` must be the name of a score, a function (labels, outputs) "
            f"-> float, {also}; received {monitor!r:.200}."
        )


def _is_loss_function(monitor):
    """Whether `monitor` is a loss function of Keras or scikit-learn."""
    name, module = (getattr(monitor, at, "") for at in ("__name__", "__module__"))
    if str(module).startswith("keras."):
        return ".losses." in str(module)
    of_sklearn = str(module).startswith("sklearn.metrics")
    return of_sklearn and str(name).endswith(("_loss", "_error"))


def _check_range(name, value, lowest):
    try:
        fits = lowest <= value < 1 and not isinstance(value, bool)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"`{name}` must be a number from {lowest:g} to below 1; received {value!r}."
        )
