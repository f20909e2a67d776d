"""Every share of an old head and every tau, as candidates that one training gives."""

import dataclasses

import numpy as np

from tf_pseudofeat.core.seeds import numbers_for
from tf_pseudofeat.evaluation.comparison import (
    difference_error,
    folds_of,
    score_decisions,
)
from tf_pseudofeat.evaluation.scores import (
    DECISION_SCORES,
    decision_errors,
    effective_sizes,
)

__all__ = ["Candidates", "score_error"]

_TAUS = (0.0, 0.3, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5)
_FOLDS = 5


class Candidates:
    """What heads that differ in their share of the old one and in tau say.

    Args:
        task: `Task` of the head as it came.
        material: `Material`.
        validation: `LabeledFeatures` to judge by.
        guard: `Guard`, for its score.
        tau: one more, beside those that are always tried.
        seed: two whole numbers.

    Attributes:
        guard: `Guard`.
        keys: the (blend, tau) of each candidate; the first is the head as it came.
        excluded: {candidate: why it is never chosen}.
    """

    def __init__(self, task, material, validation, guard, tau, seed):
        self._task, self._validation, self.guard = task, validation, guard
        self._minority = material.minority
        population = material.population
        movable = task.movable and (population > 0).all()
        self._taus = sorted({*_TAUS, tau}) if movable else (0.0,)
        self._log_prior = np.log(np.maximum(population, 1e-9) / population.sum())
        self._fold = folds_of(validation.ids, _FOLDS, numbers_for("folds", seed))
        self._heads, self.keys, self._scores, self.excluded = {}, [], [], {}
        self.add(1.0)
        guard.check(self.predictions(1.0, 0.0), self._minority)

    @property
    def counts(self):
        """Validation examples of each class, int64 `[C]`."""
        return self._validation.class_counts(self._task.num_classes)

    def add(self, blend):
        """Takes up the head as it is now, with every tau.

        What costs a class its recall, see `Guard`, is never chosen.
        """
        self._heads[blend] = self._task.predict(self._validation)
        for tau in self._taus:
            said, first = self.predictions(blend, tau), self._heads[1.0]
            self.keys.append((blend, tau))
            collapse = "" if said is first else self.guard.collapse(first, said)
            if collapse:
                self.excluded[blend, tau] = collapse
                self._scores.append([-np.inf] * (1 + _FOLDS))
                continue
            parts = [said.select(self._fold != k) for k in range(_FOLDS)]
            self._scores.append([self._score(part) for part in (said, *parts)])

    def predictions(self, blend, tau):
        """`Predictions` of one candidate."""
        head = self._heads[blend]
        return head.less(tau * self._log_prior) if tau else head

    def _score(self, predictions):
        score = self.guard.sign * self.guard.score(predictions, self._minority)
        return -np.inf if np.isnan(score) else round(score, 12)

    @property
    def best(self):
        """The (blend, tau) of the best, of equal ones the first."""
        return self.keys[int(np.argmax(np.array(self._scores)[:, 0]))]

    def cross_fitted(self):
        """`Predictions` where each fifth is by what the other four chose."""
        scores = np.array(self._scores)[:, 1:]  # [M, K], each without the k-th fifth
        chosen = [self.keys[place] for place in scores.argmax(axis=0)]
        outputs = np.empty_like(self._heads[1.0].outputs)
        for k, key in enumerate(chosen):
            rows = self._fold == k
            outputs[rows] = self.predictions(*key).outputs[rows]
        return dataclasses.replace(self._heads[1.0], outputs=outputs)


def score_error(predictions, guard, minority):
    """The standard error of a guard's score, as from new data of the same kind.

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
