"""Where a classifier decides: a threshold, or a bias for each class, chosen on data.

The rival of every retraining that only moves the decision. It leaves the ranking, and
the probabilities, as they are.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from tf_pseudofeat.core.labels import check_class_names
from tf_pseudofeat.core.seeds import numbers_for
from tf_pseudofeat.core.tables import Page, Table
from tf_pseudofeat.data.data_adapters import batches_of, check_data, with_class_ids
from tf_pseudofeat.data.preprocessing import as_arrays, predict_batch
from tf_pseudofeat.evaluation.bias_search import fit_bias
from tf_pseudofeat.evaluation.candidates import score_error
from tf_pseudofeat.evaluation.comparison import folds_of
from tf_pseudofeat.evaluation.findings import class_label, number, score_label, too_few
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.predictions import Predictions, output_kind
from tf_pseudofeat.evaluation.probability_scores import PROBABILITY_SCORES
from tf_pseudofeat.evaluation.scores import DECISION_SCORES, check_minority
from tf_pseudofeat.extraction.extraction import Extraction
from tf_pseudofeat.sampling.budget import minority_classes
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.graph import check_is_keras_3, check_stateless
from tf_pseudofeat.splitting.readings import reading_of

__all__ = [
    "Thresholds",
    "choose_thresholds",
    "fit_temperature",
    "moved",
    "predictions_of",
]

_FOLDS = 5
_LOG_TEMPERATURES = (-3.0, 3.0)


@dataclasses.dataclass(frozen=True)
class Thresholds(Page):
    """What to add to a classifier's logits before it decides; prints as a table.

    Attributes:
        bias: added to the logit of each class, a tuple of C; that of class 0 is 0.
        temperature: what the logits are divided by for calibrated probabilities; 1
            leaves them.
        metric: name of the score that chose.
        before: that score of the decisions as they were.
        estimate: what to expect of it on new data: each fifth of the validation data
            was decided by what the other four chose.
        standard_error: of the estimate.
        counts: validation examples per class, a list of C.
        class_names: of the C classes, or None.
    """

    bias: tuple[float, ...]
    temperature: float
    metric: str
    before: float
    estimate: float
    standard_error: float
    counts: list[int]
    class_names: tuple[str, ...] | None = None

    @property
    def threshold(self) -> float | None:
        """Of two classes the probability above which it is class 1; else None."""
        if len(self.bias) != 2:
            return None
        below = (self.bias[0] - self.bias[1]) / self.temperature
        return float(special.expit(below))

    def decide(self, probabilities: npt.ArrayLike) -> np.ndarray:
        """The class to decide for.

        Args:
            probabilities: of the classifier, with its `temperature`, `[N, C]`; or
                `[N, 1]` of class 1.

        Returns:
            classes: int64 `[N]`.

        Raises:
            ValueError: There are more or fewer classes.
        """
        p = np.asarray(probabilities, float)
        if p.ndim == 2 and p.shape[1] == 1:
            p = np.concatenate([1 - p, p], axis=1)
        if p.ndim != 2 or p.shape[1] != len(self.bias):
            raise ValueError(
                f"`probabilities` has shape [N, {len(self.bias)}]; received "
                f"{list(np.shape(probabilities))}."
            )
        logits = np.log(np.maximum(p, np.finfo(np.float32).tiny)) * self.temperature
        return (logits + self.bias).argmax(axis=1)

    def _parts(self):
        before, estimate, error = (
            number(score, self.metric)
            for score in (self.before, self.estimate, self.standard_error)
        )
        lines = [
            f"{score_label(self.metric)}: {before} as it is; expect {estimate} +- "
            f"{error} on new data "
            f"(cross-fitted on {sum(self.counts):,} validation examples)."
        ]
        if self.threshold is not None:
            label = class_label(1, self.class_names)
            lines.append(
                f"Decide for {label} above a probability of {self.threshold:.4g}."
            )
        if self.temperature != 1:
            lines.append(f"Divide the logits by {self.temperature:.4g} to calibrate.")
        names = self.class_names or map(str, range(len(self.bias)))
        rows = [
            (name, f"{count:,}", f"{bias:+.3f}")
            for name, count, bias in zip(names, self.counts, self.bias, strict=True)
        ]
        few = too_few(self.counts, self.class_names)
        lines += [few] if few else []
        return [
            "\n".join(lines),
            Table(("class", "examples", "added to the logit"), rows),
        ]


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
    """Chooses where a trained classifier decides, and leaves the model as it is.

    For two classes that is a threshold, for more a bias that is added to each class's
    logit, found class by class. Deploy it by `export_classifier(..., thresholds=...)`.

    Args:
        model: trained Keras classifier with one output `[B, C]`, or `[B, 1]` for two
            classes.
        validation_data: what it was not trained on, as data of `retrain_head`.
        metric: the score of decisions to raise, by name; or a function
            `(labels, outputs) -> float`, or a Keras metric, of outputs that decide
            anew.
        minority: class ids of the minority, for the scores of it; by default those
            that are rare in the validation data.
        temperature: whether to calibrate the probabilities, too: the number to divide
            the logits by that gives the least log loss.
        class_names: of the C classes, for the table; labels may be these names, then.
        seed: two whole numbers; of the folds.

    Returns:
        thresholds: `Thresholds`.

    Raises:
        ValueError: The data do not fit the model; the metric is one of ranking or of
            probabilities, which no threshold moves; outputs are neither probabilities
            nor logits.
        TypeError: `model` is not a Keras 3 model, `validation_data` no data.

    Example:

    >>> thresholds = choose_thresholds(model, val_ds, "f1", temperature=True)
    >>> print(thresholds)
    >>> names = [f"digit {number}" for number in range(10)]
    >>> export_classifier(model, "served", class_names=names, thresholds=thresholds)

    References:
        Guo et al., "On calibration of modern neural networks", ICML 2017, for the
        temperature; Platt, "Probabilistic outputs for support vector machines", 1999,
        for what keeps it above 0.
    """
    guard = Guard.of(metric)
    if guard.monitor is None or guard.monitor in PROBABILITY_SCORES:
        raise ValueError(
            f"`metric` is a score of decisions, one of {DECISION_SCORES}, a function "
            f"or a Keras metric; received {metric!r}, which no threshold moves."
        )
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
    fitted = moved(predictions, guard, minority, seed)
    return Thresholds(
        bias=tuple(fit_bias(predictions, guard, minority).tolist()),
        temperature=fit_temperature(predictions) if temperature else 1.0,
        metric=guard.name,
        before=guard.score(predictions, minority),
        estimate=guard.score(fitted, minority),
        standard_error=score_error(fitted, guard, minority),
        counts=counts.tolist(),
        class_names=class_names,
    )


def predictions_of(model, data, class_names=None):
    """The `Predictions` of a classifier for data, whose labels may be class names.

    Raises:
        ValueError: The data do not fit, or the outputs are of no known kind.
        TypeError: `model` is not a Keras 3 model, `data` no data.
    """
    check_is_keras_3(model)
    check_stateless(model)
    data = with_class_ids(as_arrays(model, data), class_names)
    check_data(data)
    outputs, labels, weights = [], [], []
    for x, y, weight in batches_of(data, Extraction(batch_size=1024)):
        outputs.append(np.asarray(predict_batch(model, x)))
        labels.append(y)
        weights.append(weight)
    outputs = np.concatenate(outputs)
    if outputs.ndim != 2:
        raise ValueError(
            f"A classifier with one output [B, C] is needed; {model.name!r} gives "
            f"outputs of shape {list(outputs.shape)}."
        )
    reading = reading_of(output_activation(model), getattr(model, "loss", None))
    kind = output_kind(reading, outputs)
    if kind is None:
        raise ValueError(
            f"The outputs of {model.name!r} are neither probabilities nor logits, as "
            f"{reading.reason}: there is nothing to move a threshold of."
        )
    weight = None if weights[0] is None else np.concatenate(weights)
    predictions = Predictions(np.concatenate(labels), outputs, kind, weight)
    if weight is None:
        return predictions
    return predictions.select(np.flatnonzero(weight))


def moved(predictions, guard, minority, seed):
    """`Predictions` where each fifth is decided by the bias that the others chose."""
    fold = folds_of(predictions.ids, _FOLDS, numbers_for("folds", seed))
    outputs = predictions.outputs.copy()
    for k in range(_FOLDS):
        rows = fold == k
        if rows.any() and not rows.all():
            bias = fit_bias(predictions.select(~rows), guard, minority)
            outputs[rows] = predictions.select(rows).less(-bias).outputs
    return dataclasses.replace(predictions, outputs=outputs)


def fit_temperature(predictions):
    """What to divide the logits by for the least log loss; from 1/20 to 20.

    One more example, of no class in particular, is added: of data without a mistake
    the best would be 0, which no new data bear out (as in Platt 1999).
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
