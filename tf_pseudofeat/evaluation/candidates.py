"""Candidate heads for every blend and tau, from a single training."""

import dataclasses

import numpy as np

from tf_pseudofeat.core.seeds import rng_for
from tf_pseudofeat.evaluation.comparison import (
    difference_error,
    folds_of,
    score_decisions,
)
from tf_pseudofeat.evaluation.predictions import prior_offsets
from tf_pseudofeat.evaluation.scores import (
    DECISION_SCORES,
    decision_errors,
    effective_sizes,
)

__all__ = ["Candidates", "score_error"]

_TAUS = (0.0, 0.3, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5)
_FOLDS = 5


class Candidates:
    """Predictions and scores of heads that differ in `blend` and `tau`.

    Args:
        task: `Task` with the original head.
        material: `Material`.
        validation: `LabeledFeatures` to choose by.
        guard: `Guard` with the score.
        tau: a value to try in addition to the default ones.
        seed: two integers.
        prior: the class shares `[C]` that the original head assumes; None for those of
            the training data.

    Attributes:
        guard: `Guard`.
        keys: the (blend, tau) of each candidate; the first is the original head.
        excluded: {candidate: why it cannot be chosen}.
    """

    def __init__(self, task, material, validation, guard, tau, seed, prior=None):
        self._task, self._validation, self.guard = task, validation, guard
        self._minority = material.minority
        population = material.population
        movable = task.has_logit_bias and (population > 0).all()
        self._taus = sorted({*_TAUS, tau}) if movable else (0.0,)
        self._log_prior = np.log(np.maximum(population, 1e-9) / population.sum())
        old = population if prior is None else prior
        self._moved = prior_offsets(old, material.mix)
        self._fold = folds_of(validation.ids, _FOLDS, rng_for("folds", seed))
        self._heads, self.keys, self._scores, self.excluded = {}, [], [], {}
        self.add(1.0)
        guard.check(self.predictions(1.0, 0.0), self._minority)

    @property
    def counts(self):
        """Validation examples of each class, int64 `[C]`."""
        return self._validation.class_counts(self._task.num_classes)

    def add(self, blend):
        """Adds the current head with every tau.

        Candidates that cost a class too much recall, see `Guard`, cannot be chosen.
        """
        self._heads[blend] = self._task.predict(self._validation)
        for tau in self._taus:
            predictions, first = self.predictions(blend, tau), self._heads[1.0]
            self.keys.append((blend, tau))
            collapse = (
                "" if predictions is first else self.guard.collapse(first, predictions)
            )
            if collapse:
                self.excluded[blend, tau] = collapse
                self._scores.append([-np.inf] * (1 + _FOLDS))
                continue
            parts = [predictions.select(self._fold != k) for k in range(_FOLDS)]
            self._scores.append([self._score(part) for part in (predictions, *parts)])

    def predictions(self, blend, tau):
        """`Predictions` of one candidate."""
        head = self._heads[blend]
        return head.shifted(tau * self._log_prior) if tau else head

    def ranking(self, blend):
        """`Predictions` at the class shares that the original head assumes.

        There is one for every `tau`. Other shares change the ranking of each of three
        classes or more against the rest, but not which examples are told apart.
        """
        head = self._heads[blend]
        if head.num_classes == 2 or head.kind is None:
            return head
        return head.shifted((1 - blend) * self._moved)

    def _score(self, predictions):
        score = self.guard.sign * self.guard.score(predictions, self._minority)
        return -np.inf if np.isnan(score) else round(score, 12)

    @property
    def best(self):
        """The (blend, tau) of the best candidate, the first one in case of a tie."""
        return self.keys[int(np.argmax(np.array(self._scores)[:, 0]))]

    def cross_fitted(self):
        """`Predictions` where each fold uses the choice on the other folds."""
        return self._by_fold(self.predictions)

    def cross_fitted_ranking(self):
        """The same at equal class shares, see `ranking`."""
        return self._by_fold(lambda blend, tau: self.ranking(blend))

    def _by_fold(self, predictions):
        scores = np.array(self._scores)[:, 1:]  # [M, K], without fold k
        chosen = [self.keys[place] for place in scores.argmax(axis=0)]
        outputs = np.empty_like(self._heads[1.0].outputs)
        for k, key in enumerate(chosen):
            rows = self._fold == k
            outputs[rows] = predictions(*key).outputs[rows]
        return dataclasses.replace(self._heads[1.0], outputs=outputs)


def score_error(predictions, guard, minority):
    """The standard error of a guard's score over new data of the same kind.

    Args:
        predictions: `Predictions`.
        guard: `Guard`.
        minority: list of class ids.
    """
    if guard.monitor in DECISION_SCORES:
        confusion = score_decisions(predictions, minority)["confusion_matrix"]
        weight, sizes = predictions.sample_weight, None
        if weight is not None:
            classes = predictions.num_classes
            sizes = effective_sizes(predictions.ids, weight, classes)
        return decision_errors(np.array(confusion), minority, sizes)[guard.monitor]
    return float(
        difference_error(
            lambda rows: np.array(guard.score(predictions.select(rows), minority)),
            predictions.ids,
        )
    )
