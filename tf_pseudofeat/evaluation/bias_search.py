"""Finds the bias of each class that gives the best decisions."""

import numpy as np

from tf_pseudofeat.evaluation.scores import DECISION_SCORES, decision_scores

__all__ = ["fit_bias"]

_MOST_STEPS = 400  # values tried for one bias, for more than two classes
_OWN_STEPS = 40  # the same if each takes a call of a custom metric
_SWEEPS = 5


def fit_bias(predictions, guard, minority):
    """Returns the bias of each class's logit with the best score, `[C]`, 0 for class 0.

    Coordinate ascent over classes until the score stops improving, starting from no
    bias or from the bias that makes classes equally common, whichever is better.

    Args:
        predictions: `Predictions` to choose by.
        guard: `Guard` with the score.
        minority: list of class ids.
    """
    search = _BiasSearch(predictions, guard, minority)
    counts = np.bincount(predictions.ids, minlength=predictions.num_classes)
    even = -np.log(np.maximum(counts, 1) / counts.sum())
    bias = max((np.zeros(counts.size), even), key=search.score)
    best = search.score(bias)
    places = range(1, 2) if counts.size == 2 else range(counts.size)
    for _ in range(_SWEEPS):
        before = best
        for place in places:
            bias[place], best = search.place(place, bias, best)
        if best <= before:
            break
    return bias - bias[0]


class _BiasSearch:
    """Scores the decisions at many values of one class's bias at once."""

    def __init__(self, predictions, guard, minority):
        self._predictions, self._guard, self._minority = predictions, guard, minority
        self._logits = predictions.class_logits  # [N, C]
        self._named = guard.monitor in DECISION_SCORES
        weight = predictions.sample_weight
        self._weight = np.ones(len(predictions)) if weight is None else weight
        self._examples = np.bincount(
            predictions.ids, self._weight, predictions.num_classes
        )

    def score(self, bias):
        """The monitored score, where higher is better."""
        if not self._named:
            moved = self._predictions.shifted(-np.asarray(bias))
            return self._known(self._guard.score(moved, self._minority))
        chosen = (self._logits + bias).argmax(axis=1)
        right = chosen == self._predictions.ids
        hits = np.bincount(chosen[right], self._weight[right], bias.size)
        guesses = np.bincount(chosen, self._weight, bias.size)
        return float(self._scores(hits, guesses))

    def place(self, place, bias, best):
        """The best bias of one class and its score; the old ones if none is better."""
        others = self._logits + bias
        own = others[:, place] - bias[place]
        others[:, place] = -np.inf
        rival = others.argmax(axis=1)
        needed = others.max(axis=1) - own  # [N], the bias at which the decision changes
        steps = self._steps(needed)
        if self._named:
            scores = self._along(place, rival, needed, steps)
        else:
            scores = np.array([self.score(_with(bias, place, s)) for s in steps])
        top = np.flatnonzero(scores >= scores.max() - 1e-12)
        step = steps[top[np.argmin(np.abs(steps[top] - bias[place]))]]
        return (
            (step, scores.max()) if scores.max() > best + 1e-12 else (bias[place], best)
        )

    def _steps(self, needed):
        """Values between consecutive changes of decisions, and beyond both ends."""
        edges = np.unique(needed)
        few = _MOST_STEPS if self._named else _OWN_STEPS
        if edges.size > few and not (self._named and self._logits.shape[1] == 2):
            edges = np.unique(np.quantile(edges, np.linspace(0, 1, few)))
        between = (edges[1:] + edges[:-1]) / 2
        return np.concatenate([[edges[0] - 1], between, [edges[-1] + 1]])

    def _along(self, place, rival, needed, steps):
        """Scores `[S]` at each step, from counts of changed decisions."""
        classes, ids = self._examples.size, self._predictions.ids
        step = np.searchsorted(
            steps, needed, side="right"
        )  # first step that decides for the class
        shape = (steps.size + 1, classes)

        def count(which, rows):
            cells = step[rows] * classes + which[rows]
            size = shape[0] * classes
            return np.bincount(cells, self._weight[rows], size).reshape(shape)[:-1]

        left = np.cumsum(
            count(rival, np.arange(ids.size)), axis=0
        )  # changed to `place`
        lost = np.cumsum(count(rival, np.flatnonzero(rival == ids)), axis=0)
        won = np.cumsum(count(ids, np.flatnonzero(ids == place)), axis=0)
        guesses = np.bincount(rival, self._weight, classes) - left
        guesses[:, place] = left.sum(axis=1)
        right = rival == ids
        hits = np.bincount(rival[right], self._weight[right], classes) - lost
        hits[:, place] = won[:, place]
        # Rounding can make a zero sum of weights negative.
        return self._scores(np.maximum(hits, 0), guesses)

    def _scores(self, hits, guesses):
        name = self._guard.monitor
        scores = decision_scores(hits, self._examples, guesses, self._minority)[name]
        return np.where(np.isnan(scores), -np.inf, scores)

    def _known(self, score):
        return -np.inf if np.isnan(score) else self._guard.sign * score


def _with(bias, place, value):
    bias = bias.copy()
    bias[place] = value
    return bias
