"""The remedies for rare classes that `diagnose` compares, and their code."""

import dataclasses

from tf_pseudofeat.evaluation.candidates import score_error
from tf_pseudofeat.evaluation.choose_thresholds import cross_fitted_decisions
from tf_pseudofeat.evaluation.comparison import score_decisions, score_predictions
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.evaluation.probability_scores import (
    PROBABILITY_SCORES,
    probability_scores,
    ranking_scores,
)
from tf_pseudofeat.evaluation.scores import MINORITY_SCORES
from tf_pseudofeat.sampling.counts import minority_classes
from tf_pseudofeat.splitting.trunk_and_head import Split

__all__ = ["Remedy", "beginning_of_call", "find_remedies", "scored_remedy"]

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


def _choosing_thresholds(guard, minority, counts):
    """A call of `choose_thresholds` in generated code.

    Args:
        guard: `Guard`.
        minority: list of class ids.
        counts: validation examples per class `[C]`.
    """
    arguments = ["model", "validation_data", _metric(guard)]
    if guard.monitor in MINORITY_SCORES and minority_classes(counts) != minority:
        arguments.append(f"minority={minority}")
    return f"choose_thresholds({', '.join(arguments)})"


def beginning_of_call(layer, resolved, guard):
    """The beginning of a call of `retrain_head` in generated code."""
    where = "split" if isinstance(layer, Split) else repr(resolved.split.layer_name)
    call = f"retrain_head(model, {where}, data, validation_data=..."
    monitor = _monitor(guard)
    return f"{call}, monitor={monitor}" if monitor else call


def find_remedies(call, plain, guard, tuning, candidates, minority, seed):
    """{name: `_Found`}, cheapest first.

    Args:
        call: see `beginning_of_call`.
        plain: whether `adjust_logits` with class counts is equivalent: without sample
            weights and preprocessor.
        guard: `Guard`.
        tuning: `Tuning`.
        candidates: `Candidates`.
        minority: list of class ids.
        seed: two integers.
    """
    as_it_is, ranking = candidates.predictions(1.0, 0.0), candidates.ranking(1.0)
    remedies = {"as it is": _Found("leave the model as it is", as_it_is, ranking)}
    if as_it_is.kind is not None and guard.monitor not in PROBABILITY_SCORES:
        several = candidates.counts.size > 2
        remedies[_BIAS if several else _THRESHOLD] = _Found(
            _choosing_thresholds(guard, minority, candidates.counts),
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


def scored_remedy(name, found, excluded, guard, minority):
    """The `Remedy` of a name and what was found, with its scores.

    Args:
        name: its name.
        found: a value of `find_remedies`.
        excluded: why the guard does not keep it, or "".
        guard: `Guard`.
        minority: list of class ids.
    """
    if name in (_BIAS, _THRESHOLD):  # thresholds do not change probabilities
        scores = score_decisions(found.predictions, minority)
        scores |= probability_scores(found.ranking, minority)
    else:
        scores = score_predictions(found.predictions, minority)
        scores |= ranking_scores(found.ranking, minority)
    return Remedy(
        name=name,
        code=found.code,
        scores=scores,
        score=guard.score(found.predictions, minority),
        standard_error=score_error(found.predictions, guard, minority),
        cross_fitted=found.cross_fitted,
        excluded=excluded,
    )
