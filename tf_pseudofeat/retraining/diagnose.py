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
from tf_pseudofeat.evaluation.comparison import (
    SCORE_NAMES,
    beyond_chance,
    difference_error,
    score_predictions,
)
from tf_pseudofeat.evaluation.findings import describe_few, format_score, score_label
from tf_pseudofeat.evaluation.probability_scores import (
    PROBABILITY_SCORES,
    probability_scores,
)
from tf_pseudofeat.evaluation.thresholds import cross_fitted_decisions
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.retraining.search import Tuning, search_task
from tf_pseudofeat.retraining.task import resolve_task
from tf_pseudofeat.splitting.trunk_and_head import Split

__all__ = ["Diagnosis", "Remedy", "diagnose"]

_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "f1")
_SHOWN += ("average_precision", "log_loss")
_THRESHOLD, _BIAS = "a threshold of its own", "a bias per class"


@dataclasses.dataclass(frozen=True)
class Remedy:
    """A remedy for rare classes, with its scores on the validation data.

    Attributes:
        name: name of the remedy.
        code: code that applies it.
        scores: see `classification_scores` and `probability_scores`.
        score: the monitored score.
        standard_error: standard error of the score.
        cross_fitted: whether it was chosen on the validation data, and each fold scored
            by the choice on the others.
    """

    name: str
    code: str
    scores: dict
    score: float
    standard_error: float
    cross_fitted: bool


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
                remedy.name + ("*" if remedy.cross_fitted else ""),
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
    chosen, reason = _recommend(
        {name: predictions for name, (_, predictions, _) in predicted.items()},
        guard,
        material.minority,
    )
    remedies = {
        name: _scored(name, *remedy, candidates, guard, material.minority)
        for name, remedy in predicted.items()
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


def _metric(guard):
    return repr(guard.name) if isinstance(guard.monitor, str) else guard.name


def _call(layer, resolved, guard):
    """The beginning of a call of `retrain_head` in generated code."""
    where = "split" if isinstance(layer, Split) else repr(resolved.split.layer_name)
    call = f"retrain_head(model, {where}, data, validation_data=..."
    if guard.name != "balanced_accuracy":
        call += f", monitor={_metric(guard)}"
    return call


def _remedies(call, plain, guard, tuning, candidates, minority, seed):
    """{name: (code, `Predictions`, whether they are cross-fitted)}, cheapest first.

    Args:
        call: see `_call`.
        plain: whether `adjust_logits` with class counts is equivalent: without sample
            weights and preprocessor.
    """
    as_it_is = candidates.predictions(1.0, 0.0)
    remedies = {"as it is": ("leave the model as it is", as_it_is, False)}
    if as_it_is.kind is not None and guard.monitor not in PROBABILITY_SCORES:
        several = candidates.counts.size > 2
        remedies[_BIAS if several else _THRESHOLD] = (
            f"choose_thresholds(model, validation_data, {_metric(guard)})",
            cross_fitted_decisions(as_it_is, guard, minority, seed),
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
    if name in (_BIAS, _THRESHOLD):  # thresholds do not change probabilities
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
    gains = {
        name: gain(name, first)
        for name in others
        if not guard.collapse(predicted[first], predicted[name])
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
