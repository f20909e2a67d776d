"""Compares remedies for rare classes without changing the model."""

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_pseudofeat.core.tables import Page, Table, data_frame
from tf_pseudofeat.data.preprocessing import preprocesses
from tf_pseudofeat.evaluation.candidates import score_error
from tf_pseudofeat.evaluation.choose_thresholds import cross_fitted_decisions
from tf_pseudofeat.evaluation.comparison import (
    SCORE_NAMES,
    beyond_chance,
    difference_error,
    score_decisions,
    score_predictions,
)
from tf_pseudofeat.evaluation.findings import describe_few, format_score, score_label
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.evaluation.probability_scores import (
    PROBABILITY_SCORES,
    probability_scores,
)
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.retraining.search import Tuning, search_task
from tf_pseudofeat.retraining.task import resolve_task
from tf_pseudofeat.splitting.trunk_and_head import Split

__all__ = ["Diagnosis", "Remedy", "diagnose"]

_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "f1")
_SHOWN += ("average_precision", "log_loss")
_RANKING = ("average_precision", "roc_auc", "class_average_precision")
_THRESHOLD, _BIAS = "a threshold of its own", "a bias per class"


@dataclasses.dataclass(frozen=True)
class Remedy:
    """A remedy for rare classes, with its scores on the validation data.

    Attributes:
        name: name of the remedy.
        code: code that applies it.
        scores: see `classification_scores` and `probability_scores`. Average precision
            and ROC-AUC are those at the class shares that the original model assumes,
            so that they differ only if examples are ranked otherwise.
        score: the monitored score.
        standard_error: standard error of the score.
        cross_fitted: whether it was chosen on the validation data, and each fold scored
            by the choice on the others.
        excluded: why the guard does not keep it, or "": a class loses too much recall.
    """

    name: str
    code: str
    scores: dict
    score: float
    standard_error: float
    cross_fitted: bool
    excluded: str = ""


@dataclasses.dataclass(frozen=True)
class Diagnosis(Page):
    """The scores of each remedy, and a recommendation; prints as a table.

    Attributes:
        remedies: list of `Remedy`, the cheapest first.
        recommended: the recommended `Remedy`: the cheapest one that is not
            significantly worse than the best.
        reason: the reason, as a sentence.
        monitor: name of the score.
        counts: validation examples per class, a list of C.
        tuning: `Tuning`: the recipes among which `retrain_head(recipe="auto")` would
            choose.
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

    def to_frame(self) -> Any:
        """The remedies as a pandas DataFrame, a row for each.

        Returns:
            frame: indexed by name of the remedy, with the columns "score", the
                monitored one, "standard_error", "cross_fitted", "recommended", "code",
                and each score of `classification_scores` and `probability_scores` that
                is a single number.

        Raises:
            ImportError: If pandas is not installed.
        """
        own = ("score", "standard_error", "cross_fitted")
        columns = {name: [getattr(r, name) for r in self.remedies] for name in own}
        columns["recommended"] = [r is self.recommended for r in self.remedies]
        columns["code"] = [remedy.code for remedy in self.remedies]
        for name in SCORE_NAMES:
            columns[name] = [remedy.scores[name] for remedy in self.remedies]
        return data_frame(columns, [r.name for r in self.remedies], "remedy")

    def _parts(self):
        shown = [name for name in _SHOWN if name != self.monitor]
        header = ("remedy", score_label(self.monitor), "+-", *map(score_label, shown))
        rows = [
            (
                remedy.name
                + ("*" if remedy.cross_fitted else "")
                + (" (a class is lost)" if remedy.excluded else ""),
                format_score(remedy.score, self.monitor),
                format_score(remedy.standard_error, self.monitor),
                *(format_score(remedy.scores[name], name) for name in shown),
            )
            for remedy in self.remedies
        ]
        notes = [
            f"On {sum(self.counts):,} validation examples, in percent but for the log "
            f"loss; {self.seconds:.1f} s. The model did not change.",
            "* chosen on these data: each fold is scored by the choice on the others.",
            describe_few(self.counts, self.class_names),
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
    """Compares remedies for rare classes; does not change the model.

    Scores the original model, thresholds for the classes, logit adjustment, the default
    of `retrain_head`, and the recipe that "auto" would choose. A head is trained and
    rolled back.

    Args:
        model: see `retrain_head`, also for other arguments.
        validation_data: data to score on, with the class shares of the deployment.
        monitor: the score to recommend by; or a `Guard` with a confidence.
        seed: two integers.
        verbose: 0 for no output; otherwise progress bars.
        **options: fields of `Extraction`, and fields of `HeadRecipe` that are not
            searched, such as `epochs`.

    Returns:
        diagnosis: `Diagnosis`; prints as a table with one recommendation.

    Raises:
        ValueError: See `retrain_head`.
        TypeError: See `retrain_head`.

    Examples:
        >>> print(diagnose(model, "features", train_ds, val_ds, monitor="f1"))
    """
    began = time.perf_counter()
    resolved = resolve_task(
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
    material, tuning, candidates = search_task(resolved, seed=seed, verbose=verbose)
    guard = candidates.guard
    weighted = material.features.sample_weight is not None
    plain = not weighted and not preprocesses(model)
    call = _call(layer, resolved, guard)
    predicted = _remedies(
        call, plain, guard, tuning, candidates, material.minority, seed
    )
    first = candidates.predictions(1.0, 0.0)
    excluded = {
        name: guard.collapse(first, found.predictions)
        for name, found in predicted.items()
    }
    chosen, reason = _recommend(
        {name: f.predictions for name, f in predicted.items() if not excluded[name]},
        guard,
        material.minority,
    )
    if any(excluded.values()):
        reason = f"Of those that lose no class: {reason[0].lower()}{reason[1:]}"
    remedies = {
        name: _scored(name, found, excluded[name], guard, material.minority)
        for name, found in predicted.items()
    }
    return Diagnosis(
        remedies=list(remedies.values()),
        recommended=remedies[chosen],
        reason=reason,
        monitor=guard.name,
        counts=candidates.counts.tolist(),
        tuning=tuning,
        class_names=resolved.task.class_names,
        seconds=time.perf_counter() - began,
    )


@dataclasses.dataclass(frozen=True)
class _Found:
    """A remedy, and what a model says with it.

    Attributes:
        code: code that applies it.
        predictions: `Predictions`.
        ranking: the same at the class shares that the original model assumes.
        cross_fitted: see `Remedy`.
    """

    code: str
    predictions: Predictions
    ranking: Predictions
    cross_fitted: bool = False


def _metric(guard):
    return repr(guard.name) if isinstance(guard.monitor, str) else guard.name


def _monitor(guard):
    """The argument `monitor` in generated code; "" for the default."""
    usual = type(guard)()
    limits = [
        f"{name}={getattr(guard, name)}"
        for name in ("confidence", "max_recall_drop")
        if getattr(guard, name) != getattr(usual, name)
    ]
    if limits:
        return f"Guard({', '.join([_metric(guard), *limits])})"
    return "" if guard.name == usual.name else _metric(guard)


def _call(layer, resolved, guard):
    """The beginning of a call of `retrain_head` in generated code."""
    where = "split" if isinstance(layer, Split) else repr(resolved.split.layer_name)
    call = f"retrain_head(model, {where}, data, validation_data=..."
    monitor = _monitor(guard)
    return f"{call}, monitor={monitor}" if monitor else call


def _remedies(call, plain, guard, tuning, candidates, minority, seed):
    """{name: `_Found`}, cheapest first.

    Args:
        call: see `_call`.
        plain: whether `adjust_logits` with class counts is equivalent: without sample
            weights and preprocessor.
    """
    as_it_is, ranking = candidates.predictions(1.0, 0.0), candidates.ranking(1.0)
    remedies = {"as it is": _Found("leave the model as it is", as_it_is, ranking)}
    if as_it_is.kind is not None and guard.monitor not in PROBABILITY_SCORES:
        several = candidates.counts.size > 2
        remedies[_BIAS if several else _THRESHOLD] = _Found(
            f"choose_thresholds(model, validation_data, {_metric(guard)})",
            cross_fitted_decisions(as_it_is, guard, minority, seed),
            ranking,
            cross_fitted=True,
        )
    if (1.0, 1.0) in candidates.keys:
        remedies["logit adjustment, tau 1"] = _Found(
            "adjust_logits(model, class_counts(labels))"
            if plain
            else f"{call}, blend=1, tau=1)",
            candidates.predictions(1.0, 1.0),
            ranking,
        )
    blend, tau = tuning.default.blend, tuning.default.tau
    if (blend, tau) != (1.0, 0.0):
        remedies["retraining, by default"] = _Found(
            f"{call})", candidates.predictions(blend, tau), candidates.ranking(blend)
        )
    remedies["retraining, recipe 'auto'"] = _Found(
        f'{call}, recipe="auto")',
        candidates.cross_fitted(),
        candidates.cross_fitted_ranking(),
        cross_fitted=True,
    )
    return remedies


def _scored(name, found, excluded, guard, minority):
    ranked = probability_scores(found.ranking, minority)
    if name in (_BIAS, _THRESHOLD):  # thresholds do not change probabilities
        scores = score_decisions(found.predictions, minority) | ranked
    else:
        scores = score_predictions(found.predictions, minority)
        scores |= {key: ranked[key] for key in _RANKING}
    return Remedy(
        name=name,
        code=found.code,
        scores=scores,
        score=guard.score(found.predictions, minority),
        standard_error=score_error(found.predictions, guard, minority),
        cross_fitted=found.cross_fitted,
        excluded=excluded,
    )


def _recommend(predicted, guard, minority):
    """The name of the cheapest remedy that is as good as the best, and the reason.

    Args:
        predicted: {name: `Predictions`}, the cheapest first, starting with the original
            model.
        guard: `Guard`.
        minority: list of class ids.
    """
    first, *others = predicted

    def gain(new, old):
        """The gain of one over the other, and whether it is significant."""

        def difference(rows=slice(None)):
            scores = [
                guard.score(predicted[n].select(rows), minority) for n in (new, old)
            ]
            return np.array(guard.sign * (scores[0] - scores[1]))

        gained = float(difference())
        error = float(difference_error(difference, predicted[first].ids))
        return gained, beyond_chance(gained, error, guard.confidence)

    label = score_label(guard.name)
    gains = {name: gain(name, first) for name in others}
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
