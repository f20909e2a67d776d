"""Whether a retraining is worth it, before it is done."""

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_pseudofeat.core.tables import Page, Table
from tf_pseudofeat.data.preprocessing import preprocesses
from tf_pseudofeat.evaluation.candidates import score_error
from tf_pseudofeat.evaluation.comparison import (
    beyond_chance,
    difference_error,
    score_predictions,
)
from tf_pseudofeat.evaluation.findings import number, score_label, too_few
from tf_pseudofeat.evaluation.probability_scores import (
    PROBABILITY_SCORES,
    probability_scores,
)
from tf_pseudofeat.evaluation.thresholds import moved
from tf_pseudofeat.extraction.extraction import Extraction
from tf_pseudofeat.retraining.job import check_job
from tf_pseudofeat.retraining.search import Tuning, search_job
from tf_pseudofeat.splitting.split import Split

__all__ = ["Diagnosis", "Remedy", "diagnose"]

_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "f1")
_SHOWN += ("average_precision", "log_loss")
_THRESHOLD, _BIAS = "a threshold of its own", "a bias per class"


@dataclasses.dataclass(frozen=True)
class Remedy:
    """One thing to do about rare classes, and what it gives on the validation data.

    Attributes:
        name: what it is, in words.
        code: how to do it.
        scores: see `classification_scores` and `probability_scores`.
        score: what is monitored.
        standard_error: of it, as from new data.
        cross_fitted: whether it was chosen by validation data, and scored on a fifth of
            them by what the other four chose.
    """

    name: str
    code: str
    scores: dict
    score: float
    standard_error: float
    cross_fitted: bool


@dataclasses.dataclass(frozen=True)
class Diagnosis(Page):
    """What each remedy would give, and which one to take; prints as a table.

    Attributes:
        remedies: list of `Remedy`, the cheapest first.
        recommended: the `Remedy` to take: the cheapest that is not worse than the best
            by more than chance.
        reason: why, in a sentence.
        monitor: name of the score.
        counts: validation examples per class, a list of C.
        tuning: `Tuning`: the recipes that were tried, by which
            `retrain_head(recipe="auto")` would choose.
        class_names: of the C classes, or None.
        seconds: wall-clock time.
    """

    remedies: list[Remedy]
    recommended: Remedy
    reason: str
    monitor: str
    counts: list[int]
    tuning: Tuning
    class_names: tuple[str, ...] | None
    seconds: float

    def _parts(self):
        shown = [name for name in _SHOWN if name != self.monitor]
        header = ("remedy", score_label(self.monitor), "+-", *map(score_label, shown))
        rows = [
            (
                remedy.name + ("*" if remedy.cross_fitted else ""),
                number(remedy.score, self.monitor),
                number(remedy.standard_error, self.monitor),
                *(number(remedy.scores[name], name) for name in shown),
            )
            for remedy in self.remedies
        ]
        notes = [
            f"On {sum(self.counts):,} validation examples, in percent but for the log "
            f"loss; {self.seconds:.1f} s. The model is as it was.",
            "* chosen by these data: each fifth is scored by the choice of the others.",
            too_few(self.counts, self.class_names),
        ]
        return [
            Table(header, rows),
            "\n".join(filter(None, notes)),
            f"{self.reason}\n    {self.recommended.code}",
        ]


def diagnose(
    model: keras.Model,
    layer: str | Split | None,
    data: object,
    validation_data: object,
    *,
    extraction: Extraction | None = None,
    monitor: object = "balanced_accuracy",
    class_names: Iterable[str] | Mapping[int, str] | None = None,
    seed: Sequence[int] = (1, 2),
    verbose: int | str = "auto",
    **options: Any,
) -> Diagnosis:
    """Says what each remedy for rare classes would give, and leaves the model alone.

    As it is; with thresholds of its own for the classes; with logit adjustment; with
    the default of `retrain_head`; and with the recipe that "auto" would choose. One
    head is trained for that, and undone.

    Args:
        model: see `retrain_head`, as for all that is not named here.
        validation_data: data to judge by, with the class shares of the deployment.
        monitor: the score to recommend by; or a `Guard`, which says how surely.
        seed: two whole numbers.
        verbose: 0 for silence; otherwise progress bars.
        **options: fields of `Extraction`, and those of `HeadRecipe` that are not
            searched for, such as `epochs`.

    Returns:
        diagnosis: `Diagnosis`; prints as a table with one recommendation.

    Raises:
        ValueError: See `retrain_head`.
        TypeError: See `retrain_head`.

    Example:

    >>> print(diagnose(model, "features", train_ds, val_ds, monitor="f1"))
    """
    began = time.perf_counter()
    job = check_job(
        model,
        layer,
        data,
        validation_data=validation_data,
        recipe="auto",
        extraction=extraction,
        monitor=monitor,
        class_names=class_names,
        seed=seed,
        **options,
    )
    material, tuning, candidates = search_job(job, seed=seed, verbose=verbose)
    guard = candidates.guard
    weighted = material.features.sample_weight is not None
    plain = not weighted and not preprocesses(model)
    call = _call(layer, job, guard)
    said = _remedies(call, plain, guard, tuning, candidates, material.minority, seed)
    chosen, reason = _recommend(
        {name: predictions for name, (_, predictions, _) in said.items()},
        guard,
        material.minority,
    )
    remedies = {
        name: _scored(name, *remedy, candidates, guard, material.minority)
        for name, remedy in said.items()
    }
    return Diagnosis(
        remedies=list(remedies.values()),
        recommended=remedies[chosen],
        reason=reason,
        monitor=guard.name,
        counts=candidates.counts.tolist(),
        tuning=tuning,
        class_names=job.task.class_names,
        seconds=time.perf_counter() - began,
    )


def _metric(guard):
    return repr(guard.name) if isinstance(guard.monitor, str) else guard.name


def _call(layer, job, guard):
    """The beginning of a call of `retrain_head` that does what was tried."""
    where = "split" if isinstance(layer, Split) else repr(job.split.layer_name)
    call = f"retrain_head(model, {where}, data, validation_data=..."
    if guard.name != "balanced_accuracy":
        call += f", monitor={_metric(guard)}"
    return call


def _remedies(call, plain, guard, tuning, candidates, minority, seed):
    """{name: (code, `Predictions`, whether they are cross-fitted)}, cheapest first.

    Args:
        call: see `_call`.
        plain: whether counting labels and a copy of the model give the same logit
            adjustment: without weights of examples, and without a preprocessor.
    """
    as_it_is = candidates.predictions(1.0, 0.0)
    remedies = {"as it is": ("leave the model as it is", as_it_is, False)}
    if as_it_is.kind is not None and guard.monitor not in PROBABILITY_SCORES:
        several = candidates.counts.size > 2
        remedies[_BIAS if several else _THRESHOLD] = (
            f"choose_thresholds(model, validation_data, {_metric(guard)})",
            moved(as_it_is, guard, minority, seed),
            True,
        )
    if (1.0, 1.0) in candidates.keys:
        remedies["logit adjustment, tau 1"] = (
            "adjust_logits(model, class_counts(labels))"
            if plain
            else f"{call}, blend=1, tau=1)",
            candidates.predictions(1.0, 1.0),
            False,
        )
    default = (tuning.default.blend, tuning.default.tau)
    if default != (1.0, 0.0):
        predictions = candidates.predictions(*default)
        remedies["retraining, by default"] = (f"{call})", predictions, False)
    fitted = candidates.cross_fitted()
    remedies["retraining, recipe 'auto'"] = (f'{call}, recipe="auto")', fitted, True)
    return remedies


def _scored(name, code, predictions, cross_fitted, candidates, guard, minority):
    scores = score_predictions(predictions, minority)
    if name in (_BIAS, _THRESHOLD):  # no new classifier: the probabilities stay
        as_it_is = candidates.predictions(1.0, 0.0)
        scores |= probability_scores(as_it_is, minority)
    return Remedy(
        name=name,
        code=code,
        scores=scores,
        score=guard.score(predictions, minority),
        standard_error=score_error(predictions, guard, minority),
        cross_fitted=cross_fitted,
    )


def _recommend(said, guard, minority):
    """The name of the cheapest remedy that is as good as the best, and why.

    Args:
        said: {name: `Predictions`}, the cheapest first, that of nothing before all.
        guard: `Guard`.
        minority: list of class ids.
    """
    first, *others = said

    def gain(new, old):
        """Of one over the other, and whether that is more than chance."""

        def difference(rows=slice(None)):
            scores = [guard.score(said[n].select(rows), minority) for n in (new, old)]
            return np.array(guard.sign * (scores[0] - scores[1]))

        gained = float(difference())
        error = float(difference_error(difference, said[first].ids))
        return gained, beyond_chance(gained, error, guard.confidence)

    label = score_label(guard.name)
    gains = {
        name: gain(name, first)
        for name in others
        if not guard.collapse(said[first], said[name])
    }
    better = [name for name, (_, sure) in gains.items() if sure]
    if not better:
        return first, f"Nothing raises {label} by more than chance:"
    best = max(better, key=lambda name: gains[name][0])
    for name in better:
        if name == best:
            return best, f"The best in {label}, by more than chance:"
        if not gain(best, name)[1]:
            return name, (
                f"Within chance as good in {label} as the best, which is "
                f"{best!r}, and cheaper:"
            )
    raise AssertionError("the best is among the better ones")
