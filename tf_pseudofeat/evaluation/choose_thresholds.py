"""Chooses a decision threshold, or a bias for each class, on validation data.

This is the baseline for retraining that only changes decisions.
"""

import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np
from scipy import optimize

from tf_pseudofeat.core.finite import check_finite
from tf_pseudofeat.core.labels import check_class_names
from tf_pseudofeat.core.seeds import rng_for
from tf_pseudofeat.data.batches import batches_of
from tf_pseudofeat.data.checks import check_data
from tf_pseudofeat.data.map_batches import with_class_ids
from tf_pseudofeat.data.preprocessing import as_arrays, predict_batch
from tf_pseudofeat.evaluation.bias_search import fit_bias
from tf_pseudofeat.evaluation.candidates import score_error
from tf_pseudofeat.evaluation.comparison import folds_of
from tf_pseudofeat.evaluation.findings import describe_classes
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.predictions import Predictions, output_kind
from tf_pseudofeat.evaluation.probability_scores import PROBABILITY_SCORES
from tf_pseudofeat.evaluation.scores import (
    DECISION_SCORES,
    MINORITY_SCORES,
    check_minority,
)
from tf_pseudofeat.evaluation.thresholds import Thresholds
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.sampling.counts import minority_classes, small_classes
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.graph import check_is_keras_3, check_stateless
from tf_pseudofeat.splitting.model_inputs import data_as_declared
from tf_pseudofeat.splitting.readings import reading_of

__all__ = [
    "choose_thresholds",
    "cross_fitted_decisions",
    "fit_temperature",
    "predictions_of",
]

_FOLDS = 5
_LOG_TEMPERATURES = (-3.0, 3.0)


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
        minority: minority class ids, for scores of the minority: the rare classes of
            the training data. By default those of the validation data, with a warning
            if none has less than half the examples of the largest.
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
    is_of_minority = guard.monitor in MINORITY_SCORES
    if minority is None:
        minority = minority_classes(counts)
        if is_of_minority and not small_classes(counts):
            _warn_of_balance(minority, class_names)
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
        minority=minority if is_of_minority else None,
    )


def _warn_of_balance(minority, class_names):
    warnings.warn(
        f"No class of the validation data has less than half the examples of the "
        f"largest, so the minority is the smallest: "
        f"{describe_classes(minority, class_names)}. Pass `minority`, a list of the "
        f"class ids that are rare in the training data.",
        stacklevel=3,
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
    data = data_as_declared(model, data, "validation_data")
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
