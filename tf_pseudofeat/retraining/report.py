"""The report of a retraining: tables, dicts and plots."""

import dataclasses
from typing import Any

from tf_pseudofeat.core.tables import Page, Table, data_frame
from tf_pseudofeat.evaluation.comparison import SCORE_NAMES
from tf_pseudofeat.evaluation.findings import (
    describe_losses,
    describe_prior,
    format_score,
    score_label,
)
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.gaussians.covariance import CovarianceReport
from tf_pseudofeat.head.plain_values import plain
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.retraining.picture import draw_report
from tf_pseudofeat.retraining.search import Tuning

__all__ = ["RetrainingReport"]

_PER_CLASS = ("recall", "precision", "class_f1", "class_average_precision")
_PER_CLASS += ("predicted_share",)


@dataclasses.dataclass(frozen=True)
class RetrainingReport(Page):
    """Scores before and after a retraining; prints and renders as tables.

    Attributes:
        layer_name: name of the split layer.
        feature_shape: shape of one feature.
        real: training examples per class, a list of C.
        used: real features per class that the head was trained on, a list of C; each
            view counts.
        pseudo: pseudo-features per class and epoch, a list of C; negative if a sampler
            removed examples.
        minority: class ids that count as minority in the scores.
        prior: the class shares that the final model's outputs assume, a list of C;
            after a rollback those of the training data, or of an earlier retraining.
        scored_on: "validation data"; or "training data" if there was none, of which
            the examples used are scored, with the class shares of all.
        before: scores of the original model, see `classification_scores` and
            `probability_scores`.
        after: scores with the retrained head.
        standard_error: standard error of each score's difference, by the same names; {}
            on training data.
        kept: whether the retrained head was kept.
        reason: why it was rolled back, or "".
        notes: remarks, for instance why nothing changed.
        loss: mean training loss of each of several parts of the training, about equal
            in steps.
        recipe: the `HeadRecipe` that reproduces the retraining, with `extraction`,
            `seed` and the same data; its `epochs` are those that were run.
        extraction: `Extraction`: which examples were used.
        view_source: description of the views, or "none"; see `Extraction`.
        monitor: the score that guarded the retraining, or None.
        seed: two integers.
        optimizer: name of the optimizer's class.
        learning_rate: learning rate of the first step.
        seconds: wall-clock seconds of each stage.
        class_names: of the C classes, or None.
        covariance: `CovarianceReport` of the Gaussians, None with a sampler.
        tuning: `Tuning` that chose the settings, None if they were given.
    """

    layer_name: str
    feature_shape: tuple[int, ...]
    real: list[int]
    used: list[int]
    pseudo: list[int]
    minority: list[int]
    prior: list[float]
    scored_on: str
    before: dict
    after: dict
    standard_error: dict
    kept: bool
    reason: str
    notes: list[str]
    loss: list[float]
    recipe: HeadRecipe
    extraction: Extraction
    view_source: str
    monitor: str | None
    seed: tuple[int, int]
    optimizer: str
    learning_rate: float
    seconds: dict[str, float]
    class_names: tuple[str, ...] | None = None
    covariance: CovarianceReport | None = None
    tuning: Tuning | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists, strings and numbers, ready for JSON.

        NaN and infinity become None.
        """
        return plain(self)

    def metrics(self) -> dict[str, float]:
        """The scores as one flat dict of numbers, for an experiment tracker.

        Returns:
            metrics: {"before_accuracy": 0.86, "after_recall_of_fraud": 0.75, ...}: each
                score of `SCORE_NAMES`, and recall, precision, F1, average precision and
                predicted share of each class, by its name or "class_3"; in [0, 1]
                except for the log loss and the Brier score. Undefined values are left
                out.

        Examples:
            >>> mlflow.log_metrics(report.metrics())
        """
        flat = {"kept": float(self.kept)}
        for when in ("before", "after"):
            scores = getattr(self, when)
            flat |= {f"{when}_{name}": scores[name] for name in SCORE_NAMES}
            for name in _PER_CLASS:
                label = name.removeprefix("class_")
                for place, value in enumerate(scores[name]):
                    flat[f"{when}_{label}_of_{self._key(place)}"] = value
        return {name: v for name, v in flat.items() if v is not None and v == v}

    def to_frame(self) -> Any:
        """The table of classes as a pandas DataFrame, a row for each class.

        Returns:
            frame: indexed by class name or id, with the columns "examples", "used",
                "pseudo", "minority", "prior", "true_share", and of recall, precision,
                F1, average precision and predicted share "..._before", "..._after".

        Raises:
            ImportError: If pandas is not installed.
        """
        classes = range(len(self.real))
        columns = {
            "examples": self.real,
            "used": self.used,
            "pseudo": self.pseudo,
            "minority": [place in self.minority for place in classes],
            "prior": self.prior,
            "true_share": self.before["true_share"],
        }
        for name in _PER_CLASS:
            label = name.removeprefix("class_")
            columns[f"{label}_before"] = self.before[name]
            columns[f"{label}_after"] = self.after[name]
        names = self.class_names or classes
        return data_frame(columns, names, "class")

    def _key(self, place):
        return f"class_{place}" if self.class_names is None else self.class_names[place]

    def _parts(self):
        stages = ", ".join(f"{k} {v:.1f}" for k, v in self.seconds.items())
        return [
            "\n".join([self._headline(), self._recipe_line()]),
            self._scores(),
            self._classes(),
            "\n".join([*self._sentences(), f"* minority. Seconds: {stages}."]),
        ]

    def _headline(self):
        made = sum(number for number in self.pseudo if number > 0)
        kept = sum(self.used) + sum(self.pseudo) - made  # without removed examples
        views = 1 if self.view_source == "none" else max(1, self.extraction.num_views)
        real = f"{kept:,} real" if views == 1 else f"{kept:,} features of views"
        return (
            f"Head after {self.layer_name!r} retrained on {real} and {made:,} "
            f"pseudo-features of shape {list(self.feature_shape)}: {self._verdict()}."
        )

    def _verdict(self):
        if not self.kept:
            return f"ROLLED BACK: {self.reason}"
        if self.scored_on == "training data":
            return "kept, with no validation data to judge it by"
        if self.monitor is None:
            return "kept"
        if self.monitor not in SCORE_NAMES:  # a function or a Keras metric
            return f"kept for {self.monitor}"
        change = " -> ".join(
            format_score(scores[self.monitor], self.monitor)
            for scores in (self.before, self.after)
        )
        return f"kept for {score_label(self.monitor)}, {change}"

    def _recipe_line(self):
        recipe = self.recipe
        how = [f"views: {self.view_source}"]
        if self.view_source != "none" and self.extraction.num_views > 1:
            how[0] += f", {self.extraction.num_views} of each example"
        if self.extraction.per_class is not None:
            how.append(f"at most {self.extraction.per_class:,} examples a class")
        how += [f"blend {recipe.blend:g}", f"tau {recipe.tau:g}"]
        return "; ".join(how).capitalize() + "."

    def _scores(self):
        rows = []
        for name in SCORE_NAMES:
            unit = ", nats" if name == "log_loss" else ""
            row = [
                score_label(name) + unit,
                format_score(self.before[name], name),
                format_score(self.after[name], name),
            ]
            error = self.standard_error.get(name)
            rows.append(
                [*row, format_score(error, name)] if self.standard_error else row
            )
        header = [f"percent, on {self._scored_examples()}", "before", "after"]
        return Table((*header, "+-") if self.standard_error else tuple(header), rows)

    def _scored_examples(self):
        """What was scored, in words; a part of the data is weighted to its shares."""
        if self.scored_on != "training data":
            return self.scored_on
        part = self.scored_on if self.used == self.real else "the examples used"
        return part if self.view_source == "none" else f"views of {part}"

    def _classes(self):
        header = ("class", "examples", "used", "pseudo", "recall", "after")
        header += ("precision", "after", "true share", "predicted", "after")
        rows = []
        for place, counts in enumerate(
            zip(self.real, self.used, self.pseudo, strict=True)
        ):
            row = [self.label(place), *(f"{count:,}" for count in counts)]
            for name in ("recall", "precision"):
                row += [
                    format_score(self.before[name][place]),
                    format_score(self.after[name][place]),
                ]
            row.append(format_score(self.before["true_share"][place]))
            row += [
                format_score(scores["predicted_share"][place])
                for scores in (self.before, self.after)
            ]
            rows.append(row)
        return Table(header, rows)

    def label(self, place: int) -> str:
        """The label of a class in tables and plots, with a star for the minority."""
        name = str(place) if self.class_names is None else self.class_names[place]
        return name + ("*" if place in self.minority else "")

    def _sentences(self):
        sentences = [
            describe_losses(
                self.before, self.after, self.standard_error, self.class_names
            )
        ]
        if self.kept:
            sentences.append(describe_prior(self.prior, self.real, self.class_names))
        elif any(sentences):
            sentences.insert(0, "For the new head, which was rolled back:")
        return [sentence for sentence in [*sentences, *self.notes] if sentence]

    def plot(self) -> Any:
        """Plots recall and precision of each class before and after, and the loss.

        Returns:
            figure: a `matplotlib.figure.Figure`, which renders in a notebook;
                `figure.savefig("report.png")`.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        return draw_report(self)
