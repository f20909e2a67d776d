"""What a retraining did, in numbers: for the eye, for a file and as a picture."""

import dataclasses

from tf_pseudofeat.covariance import CovarianceReport
from tf_pseudofeat.extraction import Extraction
from tf_pseudofeat.recipe import HeadRecipe, plain
from tf_pseudofeat.scores import SCORE_NAMES
from tf_pseudofeat.search import Tuning

__all__ = ["RetrainingReport"]


@dataclasses.dataclass(frozen=True)
class RetrainingReport:
    """Before and after of one retraining; prints as a table.

    Attributes:
        layer_name: where the model was split.
        feature_shape: shape of one feature.
        real: training examples per class, a list of C.
        used: real features per class that the head was trained on, a list of C.
        pseudo: pseudo-features per class and epoch, a list of C; negative where a
            sampler took examples away.
        minority: class ids that count as minority in the scores.
        prior: the class shares that the retrained head's outputs assume, a list of C;
            NaN where a class has no example at all.
        scored_on: "validation data", or "training data" where there was none.
        before: scores of the model as it came, see `classification_scores`.
        after: scores with the retrained head.
        kept: whether the retrained head stayed in the model.
        reason: why it did not, or "".
        loss: mean training loss of each epoch; where epochs have few steps, of each
            stretch of several.
        recipe: the `HeadRecipe` that reproduces the retraining, with `extraction`,
            `seed` and the same data; its `epochs` are those that were run.
        extraction: `Extraction`: which examples were looked at.
        view_source: what changed them a little, in words, or "none"; see `Extraction`.
        monitor: the score that guarded the retraining, or None.
        seed: two whole numbers.
        optimizer: name of the optimizer's class.
        learning_rate: at the first step.
        seconds: wall-clock seconds of each stage.
        covariance: `CovarianceReport` of the Gaussians, None with a sampler.
        tuning: `Tuning` that chose the settings, None where they were given.
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
    kept: bool
    reason: str
    loss: list[float]
    recipe: HeadRecipe
    extraction: Extraction
    view_source: str
    monitor: str | None
    seed: tuple[int, int]
    optimizer: str
    learning_rate: float
    seconds: dict[str, float]
    covariance: CovarianceReport | None = None
    tuning: Tuning | None = None

    def to_dict(self):
        """The report as plain dicts, lists, strings and numbers, ready for JSON.

        What is NaN or infinite is None, as JSON knows neither.
        """
        return plain(self)

    def __str__(self):
        verdict = "kept" if self.kept else f"ROLLED BACK: {self.reason}"
        made = sum(number for number in self.pseudo if number > 0)
        kept = sum(self.used) + sum(self.pseudo) - made  # without what a sampler took
        lines = [
            f"Head after {self.layer_name!r} retrained on {kept:,} real and "
            f"{made:,} pseudo-features of shape "
            f"{list(self.feature_shape)}: {verdict}.",
            self._recipe_line(),
            "",
            f"{f'percent, on {self.scored_on}':<32}{'before':>8}{'after':>8}",
        ]
        lines += [
            f"{name.replace('_', ' '):<32}{_percent(self.before[name])}"
            f"{_percent(self.after[name])}"
            for name in SCORE_NAMES
        ]
        lines += [
            "",
            f"{'class':<8}{'examples':>10}{'used':>8}{'pseudo':>8}"
            f"{'recall':>10}{'after':>8}",
        ]
        lines += [
            f"{f'{class_id}{self._star(class_id)}':<8}{real:>10,}{used:>8,}"
            f"{pseudo:>8,}  {_percent(before)}{_percent(after)}"
            for class_id, (real, used, pseudo, before, after) in enumerate(
                zip(
                    self.real,
                    self.used,
                    self.pseudo,
                    self.before["recall"],
                    self.after["recall"],
                    strict=True,
                )
            )
        ]
        stages = ", ".join(f"{k} {v:.1f}" for k, v in self.seconds.items())
        lines += ["", f"* minority. Seconds: {stages}."]
        return "\n".join(lines)

    def _recipe_line(self):
        recipe = self.recipe
        how = [f"views: {self.view_source}"]
        if self.extraction.per_class is not None:
            how.append(f"at most {self.extraction.per_class:,} examples a class")
        how += [f"blend {recipe.blend:g}", f"tau {recipe.tau:g}"]
        return "; ".join(how).capitalize() + "."

    def plot(self):
        """Draws the recall of each class before and after, and the training loss.

        Returns:
            figure: a `matplotlib.figure.Figure`; `figure.savefig("report.png")`.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                "`plot` needs matplotlib: pip install 'tf-pseudofeat[examples]'."
            ) from error
        figure = Figure(figsize=(10, 4), layout="constrained")
        recall, loss = figure.subplots(1, 2, width_ratios=[3, 1])
        self._draw_recall(recall)
        epochs = (self.recipe.epochs or 0) / max(1, len(self.loss))
        ends = [epochs * (i + 1) for i in range(len(self.loss))]
        loss.plot(ends, self.loss, color="tab:blue", marker=".")
        loss.margins(y=0.1)
        loss.set_ylim(bottom=0)
        loss.set(xlabel="epoch of the head", title="training loss")
        return figure

    def _draw_recall(self, axes):
        classes = range(len(self.real))
        for offset, name, color in (
            (-0.2, "before", "0.7"),
            (0.2, "after", "tab:blue"),
        ):
            recalls = [100 * (value or 0) for value in getattr(self, name)["recall"]]
            places = [class_id + offset for class_id in classes]
            axes.bar(places, recalls, width=0.38, color=color, label=name)
        names = [
            f"{class_id}{self._star(class_id)}\n{self.real[class_id]:,}"
            for class_id in classes
        ]
        axes.set_xticks(list(classes), names)
        verdict = "" if self.kept else " (rolled back)"
        axes.set(
            ylim=(0, 100),
            xlabel="class (* minority), and its real training examples",
            ylabel="recall, percent",
        )
        axes.set_title(f"recall on {self.scored_on}{verdict}", loc="left")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)

    def _star(self, class_id):
        return "*" if class_id in self.minority else ""


def _percent(value):
    return f"{'-':>8}" if value is None or value != value else f"{100 * value:>8.1f}"
