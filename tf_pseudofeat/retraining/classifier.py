"""Training and retraining as a scikit-learn classifier."""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
import numpy as np
import tensorflow as tf
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from tf_pseudofeat.core.distribution import model_strategy
from tf_pseudofeat.core.seeds import initial_weights_from, seeded_backend_rng
from tf_pseudofeat.core.tracing import without_retracing_warnings
from tf_pseudofeat.core.validation import whole_number
from tf_pseudofeat.evaluation.predictions import Predictions, output_kind
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.retraining.float32 import as_float32
from tf_pseudofeat.retraining.holdout import hold_out
from tf_pseudofeat.retraining.perceptron import build_perceptron
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.retraining.task import resolve_task
from tf_pseudofeat.sampling.interleave import interleave
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.readings import reading_of

__all__ = ["PseudoFeatureClassifier"]

_PARTS: dict[str, Any] = {"recipe": HeadRecipe, "extraction": Extraction}


def _base(name, given, current, fields):
    """The object whose `fields` are to be set: the one `given` with them, or `current`.

    Raises ValueError if it has no fields, as recipe="auto".
    """
    part, kind = given.get(name, current), _PARTS[name]
    part = kind() if part is None else part
    if not isinstance(part, kind):
        keys = [f"{name}__{field}" for field in fields]
        raise ValueError(
            f"{keys} are fields of a {kind.__name__}, but `{name}` is {part!r:.200}. "
            f"Set {name}={kind.__name__}() with them, or leave them out."
        )
    return part


class PseudoFeatureClassifier(ClassifierMixin, BaseEstimator):
    """Trains a Keras classifier, and retrains its head on pseudo-features.

    All steps of the paper use only the examples of `fit`, so nothing leaks from the
    test folds of a cross-validation. It works in `cross_val_score`, `Pipeline`,
    `CalibratedClassifierCV`, and in `GridSearchCV` with the fields of `recipe` and
    `extraction` as parameters: `{"recipe__tau": [0.5, 1.0]}`.

    Args:
        build: a function `(input_shape, num_classes)` that returns a compiled Keras
            classifier for inputs `[B, *input_shape]` with outputs `[B, num_classes]`,
            or `[B, 1]` for two classes, whose loss takes class ids. By default a
            perceptron with two hidden layers for a table; scale its columns, for
            example with a `StandardScaler` before it.
        layer: the layer whose output are the features; by default the usual one, see
            `retrain_head`, also for `recipe`, `extraction` and `monitor`.
        recipe: `HeadRecipe`; `HeadRecipe(blend=1, tau=0)` keeps the trained head. Or
            "auto", which needs a `validation_fraction`.
        extraction: `Extraction`.
        monitor: the score that must improve on the validation examples, or None.
        validation_fraction: stratified fraction of the examples that is held out as the
            guard of the retraining. 0 to train on all examples without a guard.
        epochs: epochs of the training of the whole model.
        batch_size: batch size of that training.
        callbacks: list of Keras callbacks for that training; each `fit` uses copies.
        random_state: int for reproducible weights, `RandomState`, or None.
            `tf.random.set_seed` has an effect, too.
        verbose: 0 for no output.

    Attributes:
        classes_: the labels `[C]`, sorted.
        model_: the trained Keras model, whose outputs are in the order of `classes_`.
        report_: the `RetrainingReport`.
        history_: {name of a loss or metric: its value for each epoch}.
        n_features_in_: number of columns.
        feature_names_in_: their names, where `X` was a DataFrame.

    Raises:
        ValueError: In `fit`, if labels are continuous or have a single class,
            `validation_fraction` leaves no rare example to train or validate on, or the
            model is not compiled; see also `retrain_head`.
        TypeError: In `fit`, if `build` does not return a Keras model.

    Examples:
        >>> classifier = make_pipeline(StandardScaler(), PseudoFeatureClassifier())
        >>> cross_val_score(classifier, X, y, scoring="balanced_accuracy")

    References:
        Konno and Iwazume, arXiv 1807.06538, 2018.
    """

    def __init__(
        self,
        build: Callable[[tuple[int, ...], int], keras.Model] | None = None,
        layer: str | None = None,
        *,
        recipe: HeadRecipe | str | None = None,
        extraction: Extraction | None = None,
        monitor: object = "balanced_accuracy",
        validation_fraction: float = 0.0,
        epochs: int = 50,
        batch_size: int = 32,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | str = 0,
    ) -> None:
        self.build = build
        self.layer = layer
        self.recipe = recipe
        self.extraction = extraction
        self.monitor = monitor
        self.validation_fraction = validation_fraction
        self.epochs = epochs
        self.batch_size = batch_size
        self.callbacks = callbacks
        self.random_state = random_state
        self.verbose = verbose

    # Parameters.

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with `deep` those of `recipe` and `extraction`, too."""
        params = super().get_params(deep=False)
        for name, kind in _PARTS.items() if deep else ():
            part = kind() if params[name] is None else params[name]
            if isinstance(part, kind):  # not "auto"
                for field in dataclasses.fields(kind):
                    params[f"{name}__{field.name}"] = getattr(part, field.name)
        return params

    def set_params(self, **params: Any) -> Self:
        """Sets parameters by name; `recipe__tau` is `tau` of the `recipe`."""
        plain, changed = {}, {name: {} for name in _PARTS}
        for key, value in params.items():
            name, _, field = key.partition("__")
            if not field or name not in _PARTS:
                plain[key] = value
                continue
            names = [field.name for field in dataclasses.fields(_PARTS[name])]
            if field not in names:
                raise ValueError(
                    f"Invalid parameter {field!r} of {name!r}; those are {names}."
                )
            changed[name][field] = value
        parts = {}
        for name, fields in changed.items():
            if fields:
                part = _base(name, plain, getattr(self, name), fields)
                parts[name] = dataclasses.replace(part, **fields)
        super().set_params(**(plain | parts))
        return self

    # Training.

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains a new model, and retrains its head.

        Args:
            X: numbers `[N, ...]`: a table, an array or DataFrame `[N, D]`, or images.
            y: labels `[N]`, of any kind that can be sorted.
            sample_weight: weights of the examples `[N]`, or None. Examples of weight 0
                are left out, also from validation.

        Returns:
            self: fitted.
        """
        for name in (
            "model_",
            "report_",
            "history_",
        ):  # remove the results of an earlier fit
            self.__dict__.pop(name, None)
        self._check_settings()
        X, ids, sample_weight = self._checked(X, y, sample_weight)
        rng = check_random_state(self.random_state)
        seeds = rng.randint(2**31 - 1, size=4).tolist()
        parts = [X, ids] if sample_weight is None else [X, ids, sample_weight]
        validation = None
        if self.validation_fraction:
            parts, validation = hold_out(
                parts, ids, self.validation_fraction, seeds[0], self.classes_
            )
            validation = tuple(validation)
        data = tuple(parts)
        model = self._built(X.shape[1:], seeds[1])
        settings = {
            "validation_data": validation,
            "recipe": copy.deepcopy(self.recipe),  # fit must not change parameters
            "extraction": self.extraction,
            "monitor": self.monitor,
            "class_names": [str(name) for name in self.classes_],
            "seed": tuple(seeds[2:]),
            "verbose": self.verbose,
        }
        resolve_task(model, self.layer, data, trained=False, **settings)
        noise = seeded_backend_rng(np.random.default_rng(seeds))
        with noise, without_retracing_warnings():
            history = self._fit(model, data, validation, seeds[:2])
        self.report_ = retrain_head(model, self.layer, data, **settings)
        self.model_, self.history_ = model, history.history
        return self

    def _fit(self, model, data, validation, seed):
        """Trains on streams, since `fit` is slow to begin an epoch of arrays."""
        inputs, ids, *weight = data
        stream = interleave(
            inputs,
            ids,
            batch_size=self.batch_size,
            seed=seed,
            sample_weight=weight[0] if weight else None,
        )
        if validation is not None:
            validation = tf.data.Dataset.from_tensor_slices(validation)
            validation = validation.batch(self.batch_size)
        # With several steps per execution, each epoch ends with its data alone. Under a
        # strategy TensorFlow crashes if an iterator is deleted while it reads ahead.
        endless = model.steps_per_execution == 1 and model_strategy(model) is None
        return model.fit(
            stream.repeat() if endless else stream,
            steps_per_epoch=len(stream) if endless else None,
            validation_data=validation,
            epochs=self.epochs,
            shuffle=False,  # the stream is shuffled
            callbacks=copy.deepcopy(self.callbacks),
            verbose=self.verbose,
        )

    def _check_settings(self):
        whole_number("epochs", self.epochs)
        whole_number("batch_size", self.batch_size)
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(
                f"`validation_fraction` must be in [0, 1); received "
                f"{self.validation_fraction!r}."
            )

    def _checked(self, X, y, sample_weight):
        """Numbers `[N, ...]`, class ids `[N]` and weights; sets `classes_`."""
        X, y = validate_data(self, X, y, allow_nd=True)
        check_classification_targets(y)
        self.classes_, ids = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"A classifier needs two classes or more; received 1 class, "
                f"{self.classes_[0]!r}."
            )
        self._input_shape = X.shape[1:]
        X, ids = as_float32(X), ids.astype(np.int64)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
            sample_weight = as_float32(sample_weight, "weights")
            rows = np.flatnonzero(sample_weight)
            if rows.size:  # else an error will say that all weights are 0
                X, ids, sample_weight = X[rows], ids[rows], sample_weight[rows]
        return X, ids, sample_weight

    def _built(self, input_shape, seed):
        build = build_perceptron if self.build is None else self.build
        with initial_weights_from(seed):
            model = build(input_shape, len(self.classes_))
        if not isinstance(model, keras.Model):
            raise TypeError(
                f"`build` must return a Keras model; received {type(model).__name__}."
            )
        if not model.compiled:
            raise ValueError(
                f"`build` returned {model.name!r} without a loss. Compile it: "
                f"model.compile('adam', 'sparse_categorical_crossentropy')."
            )
        return model

    # Use.

    def predict(self, X: Any) -> np.ndarray:
        """Predicts the labels `[N]` of inputs `[N, ...]`."""
        predicted = self._predictions(X).predicted
        return self.classes_[predicted]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities `[N, C]` of inputs `[N, ...]`, in the order of `classes_`.

        Raises:
            ValueError: If the model's outputs are neither probabilities nor logits.
        """
        return self._known_predictions(X).probabilities

    def decision_function(self, X: Any) -> np.ndarray:
        """Log-odds of two classes, or log-probabilities of several.

        Probabilities of a network are often so close to 0 and 1 that they round to
        them; their logarithms still tell examples apart. `CalibratedClassifierCV` and
        ranking scores such as "roc_auc" use these numbers.

        Args:
            X: inputs `[N, ...]`.

        Returns:
            decisions: float64. For two classes `[N]`, the log-odds of `classes_[1]`,
                which is predicted where they are positive; for several `[N, C]`, the
                log-probabilities, of which the highest is predicted.

        Raises:
            ValueError: If the model's outputs are neither probabilities nor logits.
        """
        predictions = self._known_predictions(X)
        if len(self.classes_) == 2:
            return predictions.log_odds[:, 1]
        return predictions.log_probabilities

    def _known_predictions(self, X):
        predictions = self._predictions(X)
        if predictions.kind is None:
            raise ValueError(
                f"{self.model_.name!r} has outputs that are neither probabilities nor "
                f"logits. End it in a softmax, or use `predict`."
            )
        return predictions

    def _predictions(self, X):
        check_is_fitted(self, "model_")
        X = as_float32(validate_data(self, X, reset=False, allow_nd=True))
        if X.shape[1:] != self._input_shape:
            raise ValueError(
                f"X has shape {list(X.shape)}; this classifier was fitted to examples "
                f"of shape {list(self._input_shape)}."
            )
        with without_retracing_warnings():
            outputs = self.model_.predict(X, batch_size=1024, verbose=0)
        reading = reading_of(output_activation(self.model_), self.model_.loss)
        kind = output_kind(reading, outputs)
        return Predictions(None, outputs, kind, threshold=reading.threshold)
