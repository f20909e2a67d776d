"""Scores a retrained head, and decides whether it is kept."""

import keras
import numpy as np

from tf_pseudofeat.evaluation.comparison import (
    beyond_chance,
    difference_error,
    score_predictions,
    standard_errors,
)
from tf_pseudofeat.evaluation.findings import (
    class_label,
    format_score,
    join_words,
    score_label,
)

__all__ = ["Judge"]

_MEMORIZED, _MISSED = 0.95, 0.5  # recalls on training and validation data
_BALANCED = 2.0  # largest class over smallest
_CHANCE = 0.55  # ROC-AUC up to which classes are not distinguished


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
        self._before = self._trained_recalls = None
        if scoring is not None:
            task.check(scoring, "scoring")
            self._before = task.predict(scoring)
            guard.check(self._before, self._minority)
            if errors and not material.viewed:
                on_training = task.score(material.features, self._minority)
                self._trained_recalls = on_training["recall"]
        elif guard.monitor is not None:
            raise ValueError(
                f"`monitor` {guard.name!r} needs features to score on; pass `scoring`."
            )

    def __call__(self, losses):
        """Returns a dict of `reason`, `before`, `after`, `standard_error`, `notes`."""
        verdict = {"reason": "", "before": {}, "after": {}, "standard_error": {}}
        if self._before is not None:
            verdict["before"] = score_predictions(self._before, self._minority)
        if not np.isfinite(losses).all() or not _finite(self._task.head):
            verdict["reason"] = (
                f"the loss or the weights became infinite or NaN (losses: {losses})"
            )
            return {**verdict, "after": verdict["before"], "notes": []}
        if self._before is None:
            return {**verdict, "notes": list(self._about_data())}
        after = self._task.predict(self._scoring)
        pair = (self._before, after)
        verdict["after"] = score_predictions(after, self._minority)
        verdict["reason"] = self._guard.rollback_reason(*pair, self._minority)
        if self._errors:
            verdict["standard_error"] = standard_errors(*pair, self._minority)
        notes = [*self._about_data(), *self._about_change(verdict, after)]
        return {**verdict, "notes": notes}

    def _about_data(self):
        """Notes on training data for which retraining can do little."""
        material, recipe = self._material, self._recipe
        counts = material.examples[material.examples > 0]
        features = material.features.features
        if counts.max() < _BALANCED * counts.min():
            yield (
                f"The classes are about equally common, {counts.min():,} to "
                f"{counts.max():,} examples: there is little to balance."
            )
        elif not np.any(material.pseudo > 0) and recipe.blend < 1:
            yield (
                "No pseudo-features were drawn: every class has the same number of "
                "chosen examples."
            )
        single = np.flatnonzero(material.examples == 1).tolist()
        if single and material.gaussian is not None and recipe.gaussian is None:
            names = join_words([class_label(c, self._task.class_names) for c in single])
            yield (
                f"Of {names} there is one example, which has no covariance: all "
                f"classes share one."
            )
        if isinstance(features, np.ndarray) and (features == features[:1]).all():
            yield (
                "All features are the same, so no head can distinguish classes. Split "
                "at another layer."
            )

    def _about_change(self, verdict, after):
        before, scores = self._before, verdict["before"]
        if np.array_equal(before.predicted, after.predicted):
            yield "No decision changed."
        auc = scores["roc_auc"]
        if auc is not None and auc < _CHANCE:
            yield (
                f"The original classifier was hardly better than chance (ROC-AUC "
                f"{format_score(auc)}): check its training and the layer."
            )
        if self._errors:
            yield from self._memorized(verdict["before"]["recall"])
            if not verdict["reason"]:
                yield from self._logit_adjustment_suffices(after)

    def _memorized(self, recalls):
        """Notes on rare classes that are right in training and wrong in validation."""
        if self._trained_recalls is None:
            return
        names = [
            class_label(place, self._task.class_names)
            for place in self._minority
            if (self._trained_recalls[place] or 0) >= _MEMORIZED
            and (1.0 if recalls[place] is None else recalls[place]) <= _MISSED
        ]
        if names:
            yield (
                f"The classifier has memorized its training examples of "
                f"{join_words(names)} and misses others: augmented views (`augment`), "
                f"or a larger `tau`, help more than further training."
            )

    def _logit_adjustment_suffices(self, after):
        """Notes if logit adjustment, which needs no training, is as good."""
        population, guard = self._material.population, self._guard
        if self._before.kind is None or not (population > 0).all():
            return
        rival = self._before.shifted(np.log(population / population.sum()))
        pair = (rival, after)
        name = guard if guard.monitor is not None else type(guard)()

        def gain(rows=slice(None)):
            parts = [p.select(rows) for p in pair]
            scores = [name.score(part, self._minority) for part in parts]
            return np.array(name.sign * (scores[1] - scores[0]))

        gained = float(gain())
        if beyond_chance(gained, float(difference_error(gain, after.ids))):
            return
        old, new = (name.score(p, self._minority) for p in pair)
        yield (
            f"Logit adjustment alone, which needs no training, has "
            f"{score_label(name.name)} {format_score(old, name.name)} and the "
            f"retraining {format_score(new, name.name)}: adjust_logits(model, counts) "
            f"of the original model is enough."
        )


def _finite(head):
    weights = map(keras.ops.convert_to_numpy, head.trainable_variables)
    return all(np.isfinite(weight.astype(np.float32)).all() for weight in weights)
