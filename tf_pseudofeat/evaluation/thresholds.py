"""Decision thresholds, a bias for each class, and what they decide.

They change decisions alone, not the ranking or the probabilities.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from tf_pseudofeat.core.finite import check_finite
from tf_pseudofeat.core.tables import Page, Table
from tf_pseudofeat.evaluation.findings import (
    class_label,
    describe_classes,
    describe_few,
    format_score,
    score_label,
)
from tf_pseudofeat.evaluation.predictions import Predictions, output_kind
from tf_pseudofeat.splitting.readings import Reading

__all__ = ["Thresholds", "above_threshold"]

_LARGEST_LOG_ODDS = -math.log(np.finfo(np.float32).tiny)  # of a probability of 1
_BELOW_1 = float(np.nextafter(np.float32(1), np.float32(0)))
_NEAR_1 = 0.999


@dataclasses.dataclass(frozen=True)
class Thresholds(Page):
    """A bias for the logits of each class; prints as a table.

    `decide` and `calibrate` take what `model.predict` returns, and `threshold` is a
    probability of these outputs. `export_classifier` serves the same decisions.

    Attributes:
        bias: added to the logit of each class, a tuple of C; 0 for class 0.
        temperature: divisor of the logits for calibrated probabilities; 1 for none. It
            does not change decisions.
        metric: name of the score that was maximized.
        before: score of the original decisions.
        estimate: cross-fitted estimate of the score on new data: each fold of the
            validation data is decided by the choice on the others.
        standard_error: standard error of the estimate.
        counts: validation examples per class, a list of C.
        class_names: of the C classes, or None.
        improves: whether the estimate is better than `before`.
        from_logits: whether the model's outputs are logits instead of probabilities.
        minority: list of class ids, if `metric` is a score of the minority.
    """

    bias: tuple[float, ...]
    temperature: float
    metric: str
    before: float
    estimate: float
    standard_error: float
    counts: list[int]
    class_names: tuple[str, ...] | None = None
    improves: bool = True
    from_logits: bool = False
    minority: list[int] | None = None

    @property
    def threshold(self) -> float | None:
        """The probability above which class 1 of two is predicted; else None.

        It is a probability of the model, before calibration, and a float32. It is 1 if
        class 1 is never predicted, and -1 if it always is.
        """
        if len(self.bias) != 2:
            return None
        if abs(self._edge) >= _LARGEST_LOG_ODDS:
            return math.copysign(1.0, self._edge)
        return min(float(np.float32(special.expit(self._edge))), _BELOW_1)

    @property
    def _edge(self):
        """The log-odds above which class 1 of two is predicted."""
        return self.bias[0] - self.bias[1]

    def decide(self, outputs: npt.ArrayLike) -> np.ndarray:
        """Predicts classes.

        Args:
            outputs: of the model, as `model.predict` returns them: probabilities, or
                logits if `from_logits`; `[N, C]`, or `[N, 1]` of class 1 of two.

        Returns:
            classes: int64 `[N]`.

        Raises:
            ValueError: If the number of classes differs, or outputs are not
                probabilities where they should be, or are NaN or infinite.
        """
        outputs = self._checked(outputs)
        if len(self.bias) == 2 and not self.from_logits:
            return above_threshold(self, outputs).astype(np.int64)
        return (self._class_logits(outputs) + self.bias).argmax(axis=1)

    def calibrate(self, outputs: npt.ArrayLike) -> np.ndarray:
        """Calibrated probabilities: the softmax of `logits / temperature`.

        Args:
            outputs: see `decide`.

        Returns:
            probabilities: float64 `[N, C]`.

        Raises:
            ValueError: See `decide`.
        """
        logits = self._class_logits(self._checked(outputs))
        return special.softmax(logits / self.temperature, axis=1)

    def _checked(self, outputs):
        """Outputs, float64 `[N, C]` or `[N, 1]`."""
        y, classes = np.asarray(outputs, float), len(self.bias)
        if y.ndim != 2 or y.shape[1] not in ((1, 2) if classes == 2 else (classes,)):
            raise ValueError(
                f"`outputs` must be those of the model, of shape [N, {classes}]; "
                f"received {list(y.shape)}."
            )
        check_finite(y, "`outputs`")
        kind = output_kind(Reading("probabilities", 0.5, ""), y)
        if not self.from_logits and kind is None:
            raise ValueError(
                f"`outputs` must be probabilities from 0 to 1 whose rows sum to 1, as "
                f"the model gives them; received numbers from {y.min():.4g} to "
                f"{y.max():.4g}. Pass what `model.predict` returns."
            )
        return y

    def _class_logits(self, outputs):
        if self.from_logits:
            return Predictions(None, outputs, "linear").class_logits
        if outputs.shape[1] == 1:
            outputs = np.concatenate([1 - outputs, outputs], axis=1)
        return np.log(np.maximum(outputs, np.finfo(np.float32).tiny))

    def _parts(self):
        before, estimate, error = (
            format_score(score, self.metric)
            for score in (self.before, self.estimate, self.standard_error)
        )
        lines = [
            f"{score_label(self.metric)}: {before} as it is; expect {estimate} +- "
            f"{error} on new data "
            f"(cross-fitted on {sum(self.counts):,} validation examples)."
        ]
        if self.minority and len(self.bias) > 2:
            lines.append(
                f"The minority: {describe_classes(self.minority, self.class_names)}."
            )
        if not self.improves:
            lines.append("No improvement is expected: keep the decisions as they are.")
        lines.append(self._rule())
        if self.temperature != 1:
            lines.append(
                f"For calibrated probabilities divide the logits by "
                f"{self.temperature:.4g}, as `calibrate` does; decisions are made "
                f"without."
            )
        names = self.class_names or map(str, range(len(self.bias)))
        rows = [
            (name, f"{count:,}", f"{bias:+.3f}")
            for name, count, bias in zip(names, self.counts, self.bias, strict=True)
        ]
        few = describe_few(self.counts, self.class_names)
        lines += [few] if few else []
        return [
            "\n".join(lines),
            Table(("class", "examples", "added to the logit"), rows),
        ]

    def _rule(self):
        """A sentence about what decides."""
        if self.threshold is None:
            return "`decide` takes what model.predict returns, and adds to its logits:"
        first, second = (class_label(place, self.class_names) for place in (0, 1))
        threshold = _shortest(self.threshold)
        if self.from_logits:
            return (
                f"Decide for {second} where its logit of model.predict exceeds that of "
                f"{first}, 0 for a single output, by more than {_shortest(self._edge)}."
            )
        if abs(self.threshold) == 1:
            chosen = first if self.threshold == 1 else second
            return f"Decide for {chosen}, whatever model.predict returns."
        rule = f"Decide for {second} where model.predict gives it more than {threshold}"
        if self.threshold <= _NEAR_1:
            return f"{rule}."
        least = _shortest(special.expit(-self._edge))
        return f"{rule}, or if it has two outputs, {first} less than {least}."


def above_threshold(thresholds: Thresholds, probabilities: Any) -> Any:
    """Whether class 1 of two is predicted, a mask `[N]`.

    Probabilities of class 1 near 1 round to each other in float32, so two columns are
    decided by class 0 there.

    Args:
        thresholds: `Thresholds` of two classes.
        probabilities: float64 array or tensor `[N, 1]`, of class 1, or `[N, 2]`.
    """
    threshold = thresholds.threshold
    if probabilities.shape[1] == 2 and _NEAR_1 < threshold < 1:
        least = float(
            np.float32(special.expit(thresholds.bias[1] - thresholds.bias[0]))
        )
        return probabilities[:, 0] < least
    return probabilities[:, -1] > threshold


def _shortest(number):
    """The fewest digits that are the same number in float32."""
    return str(np.float32(number))
