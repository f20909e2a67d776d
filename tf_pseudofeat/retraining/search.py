"""How much of the old head to keep, and of the prior to take off: by validation data.

The head is trained once. Every share of the old head and every tau is then a candidate
that costs no training; so are the model as it is, and logit adjustment alone.
"""

import dataclasses
import time

from tf_pseudofeat.core.tables import Page, Table
from tf_pseudofeat.evaluation.candidates import Candidates, score_error
from tf_pseudofeat.evaluation.comparison import score_decisions
from tf_pseudofeat.evaluation.findings import number, score_label
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.head.head import fit_head
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.weights import blend_weights, restored_unless_kept, weights_of

__all__ = ["Trial", "Tuning", "search_job", "search_recipe"]

# The old head alone comes first: of candidates that are as good, the first is taken.
_BLENDS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.0)
_ROWS = 6  # of the table that is printed, beside those that always are


@dataclasses.dataclass(frozen=True)
class Trial:
    """One candidate, and what it did on the validation data.

    Attributes:
        blend: share of the old head, see `HeadRecipe`; of 1 nothing is trained.
        tau: how much of the prior is taken off the logits.
        score: what is monitored.
        standard_error: of it, from the number of examples of each class.
        minority_recall: mean recall of the minority classes.
        excluded: why it is not chosen, whatever its score; or "".
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
    """What was tried and what was chosen; prints as a table.

    Attributes:
        recipe: the `HeadRecipe` that was chosen.
        chosen: its `Trial`. Its score is that of the best of many on the data that
            chose it, and so too high.
        monitor: name of the score.
        estimate: what to expect of it on new data: each fifth of the validation data
            was judged by what the other four chose.
        standard_error: of the estimate.
        counts: validation examples per class, a list of C.
        trials: list of `Trial`, that of the model as it is first.
        default: the `Trial` of the recipe that is taken without a search.
        seconds: wall-clock time of the search.
        lower_is_better: whether a lower score is the better one.
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

    def _parts(self):
        best = sorted(self.trials, key=lambda trial: trial.score)
        best = best if self.lower_is_better else best[::-1]
        adjusted = next(t for t in best if t.blend == 1)
        always = [self.trials[0], adjusted, self.default]
        shown = dict.fromkeys([*always, self.chosen, *best[:_ROWS]])
        return [
            f"Judged on {sum(self.counts):,} validation examples, at least "
            f"{min(filter(None, self.counts)):,} of a class; {len(self.trials)} "
            f"candidates, {self.seconds:.1f} s.\n"
            f"Chosen: {self.chosen}. Expect {self._number(self.estimate)} +- "
            f"{self._number(self.standard_error)} on new data (cross-fitted; its own "
            f"score below chose it).",
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
            number(trial.minority_recall),
        )

    def _number(self, score):
        return number(score, self.monitor)


def search_job(job, *, seed, verbose):
    """Extracts the features of a `Job` and searches its recipe.

    Returns:
        material: `Material`.
        tuning: `Tuning`.
        candidates: `Candidates`.
    """
    with restored_unless_kept(job.task.head):  # from now on it is not another's
        extracted, validation = job.extract(seed=seed, verbose=verbose)
        material = job.material(extracted)
        found = search_recipe(
            *(job.task, material, validation),
            recipe=job.recipe,
            monitor=job.guard,
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
    """Chooses `blend` and `tau` of a recipe by validation data.

    Args:
        task: `Task`; its head has its weights back afterwards.
        material: `Material` to train on, see `prepare_material`.
        validation: `LabeledFeatures` to judge by.
        recipe: `HeadRecipe` with all else.
        monitor: the score, or a `Guard`; "balanced_accuracy" where it is None.
        seed: two whole numbers.
        verbose: 0 for silence; otherwise a progress bar.

    Returns:
        tuning: `Tuning`.
        candidates: `Candidates`.
    """
    began, recipe = time.perf_counter(), recipe or HeadRecipe()
    guard = Guard.of(monitor)
    if guard.monitor is None:  # there is something to choose by
        guard = dataclasses.replace(guard, monitor="balanced_accuracy")
    usual = recipe.resolve(task, material)
    candidates = Candidates(task, material, validation, guard, usual.tau, seed)
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
    """Trains the head once, adds every share of it, and puts the old one back."""
    head, trained = task.head, dataclasses.replace(recipe, blend=0.0, tau=0.0)
    blends = (0.0,) if recipe.fresh_head else _BLENDS
    with restored_unless_kept(head):
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
