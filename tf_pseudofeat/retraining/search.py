"""Chooses `blend` and `tau` on validation data.

The head is trained once. Every blend and tau is then a candidate without further
training; so are the original model, and logit adjustment alone.
"""

import dataclasses
import time
from typing import Any

from tf_pseudofeat.core.tables import Page, Table, data_frame
from tf_pseudofeat.evaluation.candidates import Candidates, score_error
from tf_pseudofeat.evaluation.comparison import score_decisions
from tf_pseudofeat.evaluation.findings import format_score, score_label
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.head.fit import fit_head
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.weights import (
    blend_weights,
    rollback_unless_committed,
    weights_of,
)

__all__ = ["Trial", "Tuning", "search_recipe", "search_task"]

# The old head comes first: in case of a tie the first candidate is chosen.
_BLENDS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.0)
_ROWS = 6  # in the printed table, in addition to fixed ones


@dataclasses.dataclass(frozen=True)
class Trial:
    """One candidate, with its scores on the validation data.

    Attributes:
        blend: weight of the old head, see `HeadRecipe`; with 1 nothing is trained.
        tau: strength of the logit adjustment.
        score: the monitored score.
        standard_error: standard error of the score.
        minority_recall: mean recall of the minority classes.
        excluded: why it cannot be chosen, or "".
    """

    blend: float
    tau: float
    score: float
    standard_error: float
    minority_recall: float
    excluded: str = ""

    def __str__(self):
        if self.blend == 1:
            known = f"logit adjustment alone, tau={self.tau:g}"
            return known if self.tau else "as it is"
        return f"blend={self.blend:g}, tau={self.tau:g}"


@dataclasses.dataclass(frozen=True)
class Tuning(Page):
    """The candidates and the choice; prints as a table.

    Attributes:
        recipe: the chosen `HeadRecipe`.
        chosen: its `Trial`, whose score is optimistic, since it is the best of many on
            the data that it was chosen on.
        monitor: name of the score.
        estimate: cross-fitted estimate of the score on new data: each fold is scored by
            the choice on the others.
        standard_error: standard error of the estimate.
        counts: validation examples per class, a list of C.
        trials: list of `Trial`, starting with the original model.
        default: the `Trial` of the default recipe.
        seconds: wall-clock time of the search.
        lower_is_better: whether lower scores are better.
    """

    recipe: HeadRecipe
    chosen: Trial
    monitor: str
    estimate: float
    standard_error: float
    counts: list[int]
    trials: list[Trial]
    default: Trial
    seconds: float

    lower_is_better: bool = False

    def to_frame(self) -> Any:
        """All candidates as a pandas DataFrame, a row for each trial.

        Returns:
            frame: indexed by candidate, with the columns "blend", "tau", "score",
                "standard_error", "minority_recall", "excluded", "chosen".

        Raises:
            ImportError: If pandas is not installed.
        """
        names = [field.name for field in dataclasses.fields(Trial)]
        columns = {name: [getattr(t, name) for t in self.trials] for name in names}
        columns["chosen"] = [trial == self.chosen for trial in self.trials]
        return data_frame(columns, list(map(str, self.trials)), "candidate")

    def _parts(self):
        best = sorted(self.trials, key=lambda trial: trial.score)
        best = best if self.lower_is_better else best[::-1]
        adjusted = next(t for t in best if t.blend == 1)
        always = [self.trials[0], adjusted, self.default]
        shown = dict.fromkeys([*always, self.chosen, *best[:_ROWS]])
        return [
            f"Scored on {sum(self.counts):,} validation examples, at least "
            f"{min(filter(None, self.counts)):,} of a class; {len(self.trials)} "
            f"candidates, {self.seconds:.1f} s.\nChosen: {self.chosen}. Expect "
            f"{self._number(self.estimate)} +- {self._number(self.standard_error)} on "
            f"new data (cross-fitted; the score below is optimistic).",
            Table(
                ("candidate", score_label(self.monitor), "+-", "minority recall"),
                [self._row(trial) for trial in shown],
            ),
        ]

    def _row(self, trial):
        note = ", the default" if trial == self.default else ""
        note += " (a class is lost)" if trial.excluded else ""
        return (
            f"{trial}{note}",
            self._number(trial.score) + ("*" if trial == self.chosen else " "),
            self._number(trial.standard_error),
            format_score(trial.minority_recall),
        )

    def _number(self, score):
        return format_score(score, self.monitor)


def search_task(resolved, *, seed, verbose):
    """Extracts the features of a `RetrainingTask`, and searches its recipe.

    Returns:
        material: `Material`.
        tuning: `Tuning`.
        candidates: `Candidates`.
    """
    with rollback_unless_committed(resolved.task.head):  # locks the head
        extracted, validation = resolved.extract(seed=seed, verbose=verbose)
        material = resolved.material(extracted, verbose)
        found = search_recipe(
            *(resolved.task, material, validation),
            recipe=resolved.recipe,
            monitor=resolved.guard,
            seed=seed,
            verbose=verbose,
        )
    return material, *found


def search_recipe(
    task,
    material,
    validation,
    *,
    recipe=None,
    monitor=None,
    seed=(1, 2),
    verbose=0,
):
    """Chooses `blend` and `tau` of a recipe on validation data.

    Args:
        task: `Task`; the weights of its head are restored.
        material: `Material` to train on, see `prepare_material`.
        validation: `LabeledFeatures` to score on.
        recipe: `HeadRecipe` with the other fields.
        monitor: the score, or a `Guard`; None for "balanced_accuracy".
        seed: two integers.
        verbose: 0 for no output; otherwise a progress bar.

    Returns:
        tuning: `Tuning`.
        candidates: `Candidates`.
    """
    began, recipe = time.perf_counter(), recipe or HeadRecipe()
    guard = Guard.of(monitor)
    if guard.monitor is None:  # a score is needed to choose by
        guard = dataclasses.replace(guard, monitor="balanced_accuracy")
    usual = recipe.resolve(task, material)
    prior = recipe.prior_of(task.head, material)
    candidates = Candidates(task, material, validation, guard, usual.tau, seed, prior)
    _add_trained(candidates, task, material, recipe, usual, seed=seed, verbose=verbose)
    trials = {
        key: _trial(candidates, key, guard, material.minority)
        for key in candidates.keys
    }
    blend, tau = candidates.best
    fitted = candidates.cross_fitted()
    tuning = Tuning(
        recipe=dataclasses.replace(
            recipe,
            blend=blend,
            tau=tau,
            fresh_head=recipe.fresh_head and blend == 0,
        ),
        chosen=trials[blend, tau],
        monitor=guard.name,
        estimate=guard.score(fitted, material.minority),
        standard_error=score_error(fitted, guard, material.minority),
        counts=candidates.counts.tolist(),
        trials=list(trials.values()),
        default=trials.get((usual.blend, usual.tau), trials[1.0, 0.0]),
        seconds=time.perf_counter() - began,
        lower_is_better=guard.sign < 0,
    )
    return tuning, candidates


def _add_trained(candidates, task, material, recipe, usual, *, seed, verbose):
    """Trains the head once, adds every blend of it, and restores the old one."""
    head, trained = task.head, dataclasses.replace(recipe, blend=0.0, tau=0.0)
    blends = (0.0,) if recipe.fresh_head else _BLENDS
    with rollback_unless_committed(head):
        old = weights_of(head)
        fit = fit_head(task, material, trained, seed=seed, verbose=verbose)
        new = weights_of(head)
        for blend in dict.fromkeys([*blends, usual.blend]) if fit.kept else ():
            if blend != 1:
                blend_weights(head, old, new, blend)
                candidates.add(blend)


def _trial(candidates, key, guard, minority):
    predictions = candidates.predictions(*key)
    recall = score_decisions(predictions, minority)["mean_minority_accuracy"]
    return Trial(
        *key,
        score=guard.score(predictions, minority),
        standard_error=score_error(predictions, guard, minority),
        minority_recall=recall,
        excluded=candidates.excluded.get(key, ""),
    )
