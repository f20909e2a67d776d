"""Scores a retrained head, and decides whether it is kept."""

import keras
import numpy as np

from tf_pseudofeat.evaluation.comparison import (
    beyond_chance,
    difference_error,
    score_decisions,
    score_predictions,
    standard_errors,
)
from tf_pseudofeat.evaluation.findings import describe_ranking
from tf_pseudofeat.evaluation.predictions import prior_offsets
from tf_pseudofeat.evaluation.probability_scores import RANKING_SCORES, ranking_scores
from tf_pseudofeat.evaluation.remarks import (
    describe_adjustment,
    describe_as_good,
    describe_data,
    describe_decisions,
    describe_memorized,
    describe_next_step,
    describe_own_prior,
    describe_training_losses,
)

__all__ = ["Judge"]


class Judge:
    """Scores a head on construction, and again on each call.

    Args:
        task: `Task`.
        material: `Material` that the head is trained on.
        recipe: `HeadRecipe` with numbers for `blend` and `tau`.
        scoring: `LabeledFeatures` to score on, or None.
        guard: `Guard`.
        errors: whether to estimate standard errors, as for held-out data.

    Raises:
        ValueError: If there is a monitor but no data to score on, or it is undefined
            there.
    """

    def __init__(self, task, material, recipe, scoring, guard, errors):
        self._task, self._material, self._recipe = task, material, recipe
        self._scoring, self._guard, self._errors = scoring, guard, errors
        self._minority = material.minority
        self._old_prior = recipe.prior_of(task.head, material)
        self._before = self._on_training = None
        if scoring is not None:
            task.check(scoring, "scoring")
            self._before = task.predict(scoring)
            guard.check(self._before, self._minority)
            if self._own_prior_matters or (errors and not material.viewed):
                known = material.weighted_as_population(material.features)
                self._on_training = task.predict(known)
        elif guard.monitor is not None:
            raise ValueError(
                f"`monitor` {guard.name!r} needs features to score on; pass `scoring`."
            )

    def __call__(self, losses, prior):
        """Compares the head with what it was.

        Args:
            losses: of the training.
            prior: the class shares `[C]` that its outputs assume now; 0 where unknown.

        Returns:
            verdict: dict of `reason`, `before`, `after`, `standard_error`, `notes`.
        """
        verdict = {"reason": "", "before": {}, "after": {}, "standard_error": {}}
        if self._before is not None:
            verdict["before"] = score_predictions(self._before, self._minority)
        if not np.isfinite(losses).all() or not _finite(self._task.head):
            verdict["reason"] = (
                f"the loss or the weights became infinite or NaN (losses: {losses})"
            )
            return {**verdict, "after": verdict["before"], "notes": []}
        names = self._task.class_names
        notes = list(describe_data(self._material, self._recipe, names))
        if self._before is None:
            return {**verdict, "notes": notes}
        after = self._task.predict(self._scoring)
        pair = (self._before, after)
        verdict["after"] = score_predictions(after, self._minority)
        verdict["reason"] = self._guard.rollback_reason(*pair, self._minority)
        if self._errors:
            errors = standard_errors(*pair, self._minority)
            verdict["standard_error"] = errors
            notes.insert(0, self._ranking(verdict, after, prior))
        notes += self._about_change(verdict, after)
        return {**verdict, "notes": [note for note in notes if note]}

    @property
    def _own_prior_matters(self):
        """Whether the prior of the training data was subtracted, without being told."""
        return bool(self._recipe.tau) and self._old_prior is None

    def _ranking(self, verdict, after, prior):
        """Whether classes are ranked better, at the shares that the old head assumed.

        For two classes the shares make no difference.
        """
        before, errors = verdict["before"], verdict["standard_error"]
        old = self._old_prior
        offsets = prior_offsets(
            self._material.population if old is None else old, prior
        )
        moved = after.num_classes > 2 and after.kind is not None and offsets.any()
        decided = not np.array_equal(self._before.predicted, after.predicted)
        if not moved:
            return describe_ranking(before, verdict["after"], errors, decided=decided)
        after = after.shifted(offsets)

        def difference(rows):
            first, second = (self._rank(p.select(rows)) for p in (self._before, after))
            return second - first

        errors = difference_error(difference, after.ids)
        ranked = dict(zip(RANKING_SCORES, self._rank(after), strict=True))
        errors = dict(zip(RANKING_SCORES, errors, strict=True))
        if not np.isfinite(list(ranked.values())).all():
            return ""
        return describe_ranking(before, ranked, errors, moved=True, decided=decided)

    def _rank(self, predictions):
        scores = ranking_scores(predictions, self._minority)
        return np.array(
            [scores.get(name) for name in RANKING_SCORES], float
        )  # None is NaN

    def _about_change(self, verdict, after):
        before, names = verdict["before"], self._task.class_names
        yield describe_decisions(before, self._before, after)
        training = self._on_training
        if self._own_prior_matters:
            yield describe_own_prior(training, self._material, names)
        if not self._errors:
            errors = standard_errors(
                self._before, after, self._minority, score_decisions
            )
            yield describe_training_losses(before, verdict["after"], errors, names)
            return
        if not self._material.viewed:
            known = score_decisions(training, self._minority)["recall"]
            yield describe_memorized(known, before["recall"], self._minority, names)
        rival = self._rival()
        if verdict["reason"]:
            yield self._next_step(rival)
        elif rival is not None and not self._guard.collapse(self._before, rival):
            yield self._as_good(rival, after)

    def _rival(self):
        """`Predictions` of logit adjustment, which needs no training; or None."""
        population = self._material.population
        if self._before.kind is None or not (population > 0).all():
            return None
        return self._before.shifted(np.log(population / population.sum()))

    def _next_step(self, rival):
        """What to do after a rollback."""
        gains = rival is not None and not self._guard.rollback_reason(
            self._before, rival, self._minority
        )
        if not gains:
            return describe_next_step()
        scores = (self._guard.score(p, self._minority) for p in (self._before, rival))
        return describe_adjustment(self._guard.name, *scores)

    def _as_good(self, rival, after):
        """Names logit adjustment where the retraining does not do more."""
        guard = self._guard
        judge = guard if guard.monitor is not None else type(guard)()

        compared = rival, after, self._minority
        if beyond_chance(judge.gain(*compared), judge.gain_error(*compared)):
            return ""
        scores = (judge.score(p, self._minority) for p in (rival, after))
        return describe_as_good(judge.name, *scores)


def _finite(head):
    weights = map(keras.ops.convert_to_numpy, head.trainable_variables)
    return all(np.isfinite(weight.astype(np.float32)).all() for weight in weights)
