"""Chooses a decision threshold, or a bias for each class, on validation data.

This is the baseline for retraining that only changes decisions. It does not change the
ranking or the probabilities.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from tf_pseudofeat.core.finite import check_finite
from tf_pseudofeat.core.labels import check_class_names
from tf_pseudofeat.core.seeds import rng_for
from tf_pseudofeat.core.tables import Page, Table
from tf_pseudofeat.data.batches import batches_of
from tf_pseudofeat.data.checks import check_data
from tf_pseudofeat.data.map_batches import with_class_ids
from tf_pseudofeat.data.preprocessing import as_arrays, predict_batch
from tf_pseudofeat.evaluation.bias_search import fit_bias
from tf_pseudofeat.evaluation.candidates import score_error
from tf_pseudofeat.evaluation.comparison import folds_of
from tf_pseudofeat.evaluation.findings import (
    class_label,
    describe_few,
    format_score,
    score_label,
)
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.predictions import Predictions, output_kind
from tf_pseudofeat.evaluation.probability_scores import PROBABILITY_SCORES
from tf_pseudofeat.evaluation.scores import DECISION_SCORES, check_minority
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.sampling.counts import minority_classes
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.graph import check_is_keras_3, check_stateless
from tf_pseudofeat.splitting.readings import Reading, reading_of

__all__ = [
    "Thresholds",
    "above_threshold",
    "choose_thresholds",
    "cross_fitted_decisions",
    "fit_temperature",
    "predictions_of",
]

_FOLDS = 5
_LOG_TEMPERATURES = (-3.0, 3.0)
_LARGEST_LOG_ODDS = -math.log(np.finfo(np.float32).tiny)  # of a probability of 1
_BELOW_1 = float(np.nextafter(np.float32(1), np.float32(0)))
_NEAR_1 = 0.999


class _Metric(Guard):
    """The `metric` to choose thresholds by, a score of decisions."""

    _argument, _names = "metric", DECISION_SCORES

    def __post_init__(self):
        if self.monitor is None or self.monitor in PROBABILITY_SCORES:
            raise ValueError(
                f"`metric` must be a score of decisions, one of {DECISION_SCORES}, a "
                f"function or a Keras metric; received {self.monitor!r}, which "
                f"thresholds do not change."
            )
        super().__post_init__()


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


def choose_thresholds(
    model: keras.Model,
    validation_data: object,
    metric: object = "balanced_accuracy",
    *,
    minority: Sequence[int] | None = None,
    temperature: bool = False,
    class_names: Iterable[str] | Mapping[int, str] | None = None,
    seed: Sequence[int] = (1, 2),
) -> Thresholds:
    """Chooses the decision thresholds of a trained classifier.

    For two classes this is a threshold, for more a bias that is added to the logit of
    each class. The model does not change. Deploy the result with
    `export_classifier(..., thresholds=...)`.

    Args:
        model: trained Keras classifier with one output `[B, C]`, or `[B, 1]` for two
            classes.
        validation_data: held-out data, in the forms that `retrain_head` takes.
        metric: name of the score of decisions to maximize; or a function
            `(labels, outputs) -> float` or a Keras metric, which gets shifted outputs.
        minority: minority class ids, for scores of the minority; by default the rare
            classes of the validation data.
        temperature: whether to also calibrate the probabilities by temperature scaling.
        class_names: names of the C classes, for the table; labels may then be these
            names.
        seed: two integers, for the folds.

    Returns:
        thresholds: `Thresholds`.

    Raises:
        ValueError: If the data do not fit the model; the metric is one of ranking or
            probabilities, which thresholds do not change; or outputs are NaN, infinite,
            or neither probabilities nor logits.
        TypeError: If `model` is not a Keras 3 model, or `validation_data` is not
            supported.

    Examples:
        >>> thresholds = choose_thresholds(model, val_ds, "f1", temperature=True)
        >>> print(thresholds)
        >>> decided = thresholds.decide(model.predict(val_ds))
        >>> names = [f"digit {number}" for number in range(10)]
        >>> export_classifier(model, "served", class_names=names, thresholds=thresholds)

    References:
        Guo et al., "On calibration of modern neural networks", ICML 2017, for the
        temperature; Platt, "Probabilistic outputs for support vector machines", 1999,
        for its regularization.
    """
    guard = _Metric(metric.monitor if isinstance(metric, Guard) else metric)
    if class_names is not None:
        class_names = check_class_names(class_names)
    predictions = predictions_of(model, validation_data, class_names)
    if class_names is not None:
        check_class_names(class_names, predictions.num_classes)
    counts = np.bincount(predictions.ids, minlength=predictions.num_classes)
    if minority is None:
        minority = minority_classes(counts)
    else:
        minority = check_minority(minority, predictions.num_classes)
    guard.check(predictions, minority)
    fitted = cross_fitted_decisions(predictions, guard, minority, seed)
    before, estimate = (guard.score(of, minority) for of in (predictions, fitted))
    bias = fit_bias(predictions, guard, minority).astype(np.float32)  # as printed
    return Thresholds(
        bias=tuple(bias.tolist()),
        temperature=fit_temperature(predictions) if temperature else 1.0,
        metric=guard.name,
        before=before,
        estimate=estimate,
        standard_error=score_error(fitted, guard, minority),
        counts=counts.tolist(),
        class_names=class_names,
        improves=bool(guard.sign * (estimate - before) > 0),
        from_logits=predictions.kind == "linear",
    )


def predictions_of(model, data, class_names=None):
    """Computes the `Predictions` of a classifier; labels may be class names.

    Raises:
        ValueError: If the data do not fit, or the kind of outputs is unknown.
        TypeError: If `model` is not a Keras 3 model, or `data` is not supported.
    """
    check_is_keras_3(model)
    check_stateless(model)
    data = with_class_ids(as_arrays(model, data), class_names)
    check_data(data)
    outputs, labels, weights = [], [], []
    for x, y, weight in batches_of(data, Extraction(batch_size=1024)):
        start = sum(map(len, outputs))
        outputs.append(_checked_outputs(model, predict_batch(model, x), x, start))
        labels.append(y)
        weights.append(weight)
    outputs = np.concatenate(outputs)
    reading = reading_of(output_activation(model), getattr(model, "loss", None))
    kind = output_kind(reading, outputs)
    if kind is None:
        raise ValueError(
            f"The outputs of {model.name!r} are neither probabilities nor logits, "
            f"since {reading.reason}: there is no threshold to choose."
        )
    weight = None if weights[0] is None else np.concatenate(weights)
    predictions = Predictions(np.concatenate(labels), outputs, kind, weight)
    if weight is None:
        return predictions
    return predictions.select(np.flatnonzero(weight))


def _checked_outputs(model, outputs, x, start):
    """Outputs `[B, C]` of a batch of inputs `x`, which starts at row `start`."""
    outputs = np.asarray(outputs)
    if outputs.ndim != 2:
        raise ValueError(
            f"A classifier with one output [B, C] is needed; {model.name!r} has "
            f"outputs of shape {list(outputs.shape)}."
        )
    check_finite(outputs, f"The outputs of {model.name!r}", x, start)
    return outputs


def cross_fitted_decisions(predictions, guard, minority, seed):
    """`Predictions` where each fold is decided by the bias of the other folds."""
    fold = folds_of(predictions.ids, _FOLDS, rng_for("folds", seed))
    outputs = predictions.outputs.copy()
    for k in range(_FOLDS):
        rows = fold == k
        if rows.any() and not rows.all():
            bias = fit_bias(predictions.select(~rows), guard, minority)
            outputs[rows] = predictions.select(rows).shifted(-bias).outputs
    return dataclasses.replace(predictions, outputs=outputs)


def fit_temperature(predictions):
    """The temperature with the smallest log loss, from 1/20 to 20.

    As in Platt (1999), a pseudo-example with a uniform label is added; otherwise the
    best temperature for data without errors would be 0.
    """
    logits, weight = predictions.class_logits, predictions.sample_weight
    rows, one = np.arange(len(logits)), 1 / len(logits)

    def loss(log_temperature):
        z = logits * math.exp(-log_temperature)
        top = z.max(axis=1)
        total = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
        losses = total - z[rows, predictions.ids]
        return (
            np.average(losses, weights=weight) + np.mean(total - z.mean(axis=1)) * one
        )

    found = optimize.minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded")
    return float(math.exp(found.x))
