"""How much of the old head to keep, and of the prior to take off: by validation data.

The head is trained once. Every share of the old head and every tau is then a candidate
that costs no training; so are the model as it is, and logit adjustment alone.
"""

import dataclasses
import time

import keras
import numpy as np

from tf_pseudofeat.activation import output_activation
from tf_pseudofeat.adjust import final_dense, logits_behind
from tf_pseudofeat.head import fit_head
from tf_pseudofeat.recipe import HeadRecipe
from tf_pseudofeat.scores import check_scored, recall_scores
from tf_pseudofeat.seeds import numbers_for
from tf_pseudofeat.task import predicted_classes
from tf_pseudofeat.weights import blend_weights, restored_unless_kept, weights_of

__all__ = ["Trial", "Tuning", "search_recipe"]

# The old head alone comes first: of candidates that are as good, the first is taken.
_BLENDS = (1.0, 0.7, 0.5, 0.3, 0.2, 0.0)
_TAUS = (0.0, 0.3, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5)
_FOLDS = 5
_DRAWS = 500  # for a standard error
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
    """

    blend: float
    tau: float
    score: float
    standard_error: float
    minority_recall: float

    def __str__(self):
        if self.blend == 1:
            known = f"logit adjustment alone, tau={self.tau:g}"
            return known if self.tau else "as it is"
        return f"blend={self.blend:g}, tau={self.tau:g}"


@dataclasses.dataclass(frozen=True)
class Tuning:
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

    def __str__(self):
        best = sorted(self.trials, key=lambda trial: -trial.score)
        adjusted = next(t for t in best if t.blend == 1)
        always = [self.trials[0], adjusted, self.default]
        shown = dict.fromkeys([*always, self.chosen, *best[:_ROWS]])
        error = 100 * self.standard_error
        rows = [
            f"Judged on {sum(self.counts):,} validation examples, at least "
            f"{min(filter(None, self.counts)):,} of a class; {len(self.trials)} "
            f"candidates, {self.seconds:.1f} s.",
            f"Chosen: {self.chosen}. Expect {100 * self.estimate:.1f} +- {error:.1f} "
            f"on new data (cross-fitted; its own score below chose it).",
            f"{self.monitor.replace('_', ' '):>24} {'+-':>5} {'minority':>9}",
        ]
        for trial in shown:
            mark = "*" if trial == self.chosen else " "
            note = ", the default" if trial == self.default else ""
            rows.append(
                f"{100 * trial.score:>23.1f}{mark} "
                f"{100 * trial.standard_error:>5.1f} "
                f"{100 * trial.minority_recall:>9.1f}  {trial}{note}"
            )
        return "\n".join(rows)


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
        monitor: name of the score; "balanced_accuracy" where it is None.
        seed: two whole numbers.
        verbose: 0 for silence; otherwise a progress bar.

    Returns:
        tuning: `Tuning`.
    """
    began, recipe = time.perf_counter(), recipe or HeadRecipe()
    monitor, head = monitor or "balanced_accuracy", task.head
    judge = _Judge(task, material, validation, monitor, seed)
    usual = recipe.resolve(head, material)
    kept = (1.0, 0.0) if recipe.fresh_head else _BLENDS
    blends = dict.fromkeys([*kept, usual.blend])
    hits = {(1.0, tau): found for tau, found in judge.hits()}
    as_it_is = judge.trial(1.0, 0.0, hits[1.0, 0.0])
    check_scored(monitor, as_it_is.score, material.minority)
    trained = dataclasses.replace(recipe, blend=0.0, tau=0.0)
    with restored_unless_kept(head):
        old = weights_of(head)
        fit = fit_head(task, material, trained, seed=seed, verbose=verbose)
        new = weights_of(head)
        for blend in blends if fit.kept else ():
            if blend != 1:
                blend_weights(head, old, new, blend)
                hits |= {(blend, tau): found for tau, found in judge.hits()}
    trials = [judge.trial(*key, found) for key, found in hits.items()]
    found = np.stack(list(hits.values()))  # [M, K, C]
    chosen = trials[judge.best(found.sum(axis=1))]
    estimate, error = judge.estimate(found)
    default = (usual.blend, usual.tau)
    return Tuning(
        recipe=dataclasses.replace(
            recipe,
            blend=chosen.blend,
            tau=chosen.tau,
            fresh_head=recipe.fresh_head and chosen.blend == 0,
        ),
        chosen=chosen,
        monitor=monitor,
        estimate=estimate,
        standard_error=error,
        counts=judge.totals.sum(axis=0).tolist(),
        trials=trials,
        default=next((t for t in trials if (t.blend, t.tau) == default), trials[0]),
        seconds=time.perf_counter() - began,
    )


class _Judge:
    """Scores a head with every tau at the cost of one, fold by fold.

    Attributes:
        totals: validation examples of each class in each fold, `[K, C]`.
    """

    def __init__(self, task, material, validation, monitor, seed):
        self._task, self._validation, self._monitor = task, validation, monitor
        self._minority = material.minority
        self._activation = output_activation(task.head)
        population = material.population
        movable = final_dense(task.head) is not None and (population > 0).all()
        self._taus = _TAUS if movable else (0.0,)
        self._log_prior = np.log(np.maximum(population, 1e-9) / population.sum())
        self._fold = _folds(validation.ids, numbers_for("folds", seed))
        self.totals = self._count(np.ones(len(validation), bool))

    def _count(self, mask):
        """How many examples of each class in each fold, `[K, C]`."""
        classes = self._task.num_classes
        place = self._fold[mask] * classes + self._validation.ids[mask]
        return np.bincount(place, minlength=_FOLDS * classes).reshape(_FOLDS, classes)

    def hits(self):
        """Yields `(tau, what the head as it is gets right in each fold [K, C])`."""
        outputs = np.concatenate(list(self._task.outputs(self._validation.features)))
        logits = self._logits(outputs.astype(np.float64))
        for tau in self._taus:
            predicted = self._predicted(outputs, logits, tau)
            yield tau, self._count(predicted == self._validation.ids)

    def _logits(self, outputs):
        logits = logits_behind(outputs, self._activation)
        return keras.ops.convert_to_numpy(logits)

    def _predicted(self, outputs, logits, tau):
        if not tau:
            return predicted_classes(outputs, self._task.threshold)
        if outputs.shape[-1] > 1:
            return (logits - tau * self._log_prior).argmax(axis=-1)
        shift = tau * (self._log_prior[1] - self._log_prior[0])
        return (logits[:, 0] > shift).astype(int)

    def _scores(self, hits, totals):
        """The monitored score `[...]` of hits and totals `[..., C]`."""
        return self._all_scores(hits, totals)[self._monitor]

    def _all_scores(self, hits, totals):
        with np.errstate(invalid="ignore"):
            recalls = np.where(totals > 0, hits / np.maximum(totals, 1), np.nan)
        return recall_scores(recalls, totals, self._minority)

    def best(self, hits, totals=None):
        """The place of the best candidate, of equal ones the first."""
        totals = self.totals.sum(axis=0) if totals is None else totals
        scores = np.round(self._scores(hits, totals), 12)
        return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))

    def trial(self, blend, tau, hits):
        """The `Trial` of one candidate, from its hits `[K, C]`."""
        hits, totals = hits.sum(axis=0), self.totals.sum(axis=0)
        scores = self._all_scores(hits, totals)
        score, rare = scores[self._monitor], scores["mean_minority_accuracy"]
        error = self._error(hits, totals)
        return Trial(blend, tau, float(score), error, float(rare))

    def estimate(self, hits):
        """What the choice is worth: each fold judged by what the others chose.

        Args:
            hits: `[M, K, C]` of M candidates.

        Returns:
            score: over all folds.
            standard_error: of it.
        """
        found = np.zeros(self.totals.shape[1])
        for fold in range(_FOLDS):
            others = np.arange(_FOLDS) != fold
            place = self.best(hits[:, others].sum(axis=1), self.totals[others].sum(0))
            found += hits[place, fold]
        totals = self.totals.sum(axis=0)
        return float(self._scores(found, totals)), self._error(found, totals)

    def _error(self, hits, totals):
        """From draws of each recall, given its hits: 7 of 7 is no 100 +- 0."""
        rng = np.random.default_rng(0)
        draws = rng.beta(hits + 0.5, totals - hits + 0.5, (_DRAWS, hits.size))
        return float(np.nanstd(self._scores(draws * totals, totals)))


def _folds(ids, rng):
    """A fold for each example, each class spread over all."""
    order = rng.permutation(ids.size)
    order = order[np.argsort(ids[order], kind="stable")]
    fold = np.empty(ids.size, int)
    fold[order] = np.arange(ids.size) % _FOLDS
    return fold
