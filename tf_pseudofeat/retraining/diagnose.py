"""Compares remedies for rare classes without changing the model."""

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from tf_pseudofeat.core.tables import Page, Table, data_frame
from tf_pseudofeat.data.preprocessing import preprocesses
from tf_pseudofeat.evaluation.comparison import (
    SCORE_NAMES,
    beyond_chance,
)
from tf_pseudofeat.evaluation.findings import describe_few, format_score, score_label
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.retraining.remedies import (
    Remedy,
    beginning_of_call,
    find_remedies,
    scored_remedy,
)
from tf_pseudofeat.retraining.search import Tuning, search_task
from tf_pseudofeat.retraining.task import resolve_task
from tf_pseudofeat.splitting.trunk_and_head import Split

__all__ = ["Diagnosis", "diagnose"]

_SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "f1")
_SHOWN += ("average_precision", "log_loss")


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
    if "recipe" in options:
        raise TypeError(
            "`diagnose` does not take a `recipe`: it compares those that there are."
        )
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
    call = beginning_of_call(layer, resolved, guard)
    predicted = find_remedies(
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
        name: scored_remedy(name, found, excluded[name], guard, material.minority)
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

        compared = predicted[old], predicted[new], minority
        gained, error = guard.gain(*compared), guard.gain_error(*compared)
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
