"""What each remedy gives in deployment: the lines of `examples/deployment.py`.

    python -m examples.deployment_tables --results=FILE.jsonl

Every number is a mean over re-splits first, then over sets; a standard error is over
sets, but in the table of every set, where it is over re-splits. A p-value is that of
Wilcoxon's signed-rank test of the sets' differences, two-sided, and corrected for
nothing.
"""

import collections
import json
import pathlib
import sys

import numpy as np
from absl import app, flags
from scipy import stats

from .figures import mean_and_error
from .table_parts import markdown_table

__all__ = ["Runs", "p_value", "read_runs", "report"]

FLAGS = flags.FLAGS

_LABELS = {
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "average_precision": "average precision",
    "roc_auc": "ROC-AUC",
    "log_loss": "log loss",
    "calibration_error": "calibration error",
}
_RANKS = ("average_precision", "roc_auc")

_AS_TRAINED = ("as trained", "as it is")
_FOR_F1 = ("as trained", "threshold for f1")
_FOR_RECALL = ("as trained", "threshold for balanced_accuracy")
METHODS = {
    "as trained": _AS_TRAINED,
    "threshold moved for F1": _FOR_F1,
    "threshold moved for balanced accuracy": _FOR_RECALL,
    "logit adjustment, tau 1": ("as trained", "uniform prior"),
    "temperature": ("as trained", "temperature"),
    "class weights": ("class weights", "as it is"),
    "SMOTE": ("SMOTE", "as it is"),
    "real features only": ("real features only", "as it is"),
    "HeadRecipe.paper()": ("paper", "as it is"),
    "default": ("default", "as it is"),
    "default, to the training prior": ("default", "training prior"),
    "default, threshold moved for F1": ("default", "threshold for f1"),
    "default, threshold moved for balanced accuracy": (
        *("default", "threshold for balanced_accuracy"),
    ),
    'target_prior="uniform"': ("target uniform", "as it is"),
    'target_prior="training"': ("target training", "as it is"),
    "target_prior, threshold moved for F1": ("target uniform", "threshold for f1"),
    "target_prior, threshold moved for balanced accuracy": (
        *("target uniform", "threshold for balanced_accuracy"),
    ),
    'recipe="auto" for F1': ("auto for f1", "as it is"),
    'recipe="auto" for balanced accuracy': (
        *("auto for balanced_accuracy", "as it is"),
    ),
    "default, guarded by F1": ("guarded by f1", "as it is"),
    "default, guarded by balanced accuracy": (
        *("guarded by balanced_accuracy", "as it is"),
    ),
}
# Heads that rank in their own way; thresholds and priors rank two classes as before.
_RANKED = (
    *("logit adjustment, tau 1", "class weights", "SMOTE", "real features only"),
    *("HeadRecipe.paper()", "default", 'target_prior="uniform"'),
    *('recipe="auto" for F1', 'recipe="auto" for balanced accuracy'),
    *("default, guarded by F1", "default, guarded by balanced accuracy"),
)
_PER_SET = ("class weights", "SMOTE", "real features only", "HeadRecipe.paper()")
_PER_SET += ("default", 'target_prior="uniform"')
# (outputs at the training prior, at the uniform one)
_PRIORS = {
    "as trained": (_AS_TRAINED, ("as trained", "uniform prior")),
    "class weights": (
        *(("class weights", "training prior"), ("class weights", "as it is")),
    ),
    'target_prior="training", "uniform"': (
        *(("target training", "as it is"), ("target uniform", "as it is")),
    ),
} | {
    label: ((head, "training prior"), (head, "uniform prior"))
    for label, head in {
        "SMOTE": "SMOTE",
        "real features only": "real features only",
        "HeadRecipe.paper()": "paper",
        "default, mapped": "default",
    }.items()
}


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("results", None, "Lines of examples/deployment.py.")
    flags.mark_flag_as_required("results")


class Runs:
    """Scores of every head, way to decide and re-split of the sets of one network.

    Args:
        lines: {(set, re-split, head): line}.
    """

    def __init__(self, lines):
        self.lines = lines
        self.resplits = collections.defaultdict(set)
        for name, number, _ in lines:
            self.resplits[name].add(number)
        self.resplits = {k: sorted(v) for k, v in sorted(self.resplits.items())}

    def scores(self, arm, score):
        """{set: `[R]` over re-splits}; of sets where the arm ran on every re-split."""
        head, way = arm
        found = {}
        for name, numbers in self.resplits.items():
            lines = [self.lines.get((name, number, head), {}) for number in numbers]
            if all(way in line.get("ways", ()) for line in lines):
                found[name] = np.array(
                    [line[score][line["ways"].index(way)] for line in lines]
                )
        return found

    def means(self, arm, score):
        """Means over re-splits, `[S]` over sets."""
        return np.array([each.mean() for each in self.scores(arm, score).values()])

    def gains(self, arm, rival, score):
        """What an arm has more than another: {set: `[R]` over re-splits}."""
        mine, other = self.scores(arm, score), self.scores(rival, score)
        return {k: (mine[k] - other[k]).round(6) for k in mine if k in other}

    def mean_gains(self, arm, rival, score):
        """The means of `gains`, `[S]` over sets."""
        gains = self.gains(arm, rival, score).values()
        return np.array([each.mean() for each in gains]).round(9)


def read_runs(path):
    """Reads a results file.

    Args:
        path: of the file; of two lines for one head the last stands.

    Returns:
        runs: {network: `Runs`}.
    """
    lines = collections.defaultdict(dict)
    for text in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # torn when a run was killed
        place = line["experiment"], line["episode"], line["arm"]
        lines[line["kind"]][place] = line
    return {kind: Runs(found) for kind, found in sorted(lines.items())}


def p_value(gains):
    """Wilcoxon's signed-rank test of `[S]` differences; NaN where none is not 0."""
    return float(stats.wilcoxon(gains).pvalue) if np.any(gains) else np.nan


def report(kind, runs):
    """All tables of one network, in Markdown."""
    known = {label: arm for label, arm in METHODS.items() if runs.means(arm, "f1").size}
    size = len(runs.resplits), max(map(len, runs.resplits.values()))
    parts = (_scores(runs, known), _priors(runs), _ranking(runs, known))
    parts += (_decisions(runs, known), _guards(runs))
    parts += tuple(_every_set(runs, known, score) for score in _RANKS)
    title = f"## {kind}: {size[0]} sets, {size[1]} re-splits\n"
    return "\n".join([title, *parts])


def _scores(runs, known):
    cells = [
        [label, *(_percent(runs.means(arm, score), score) for score in _LABELS)]
        for label, arm in known.items()
    ]
    caption = (
        "**Test scores**, mean ± standard error over sets, in percent but for the log "
        "loss. Recall, precision, F1 and average precision are of the rare classes."
    )
    return markdown_table(caption, ["method", *_LABELS.values()], cells)


def _priors(runs):
    names = ("f1", "balanced_accuracy", "log_loss", "calibration_error")
    cells = []
    for label, arms in _PRIORS.items():
        if all(runs.means(arm, "f1").size for arm in arms):
            values = [_percent(runs.means(a, n), n) for n in names for a in arms]
            cells.append([label, *values])
    header = [f"{_LABELS[n]}, {p}" for n in names for p in ("training", "uniform")]
    caption = (
        "**The same head at both target priors**: its outputs assume the class shares "
        "of the training data, or equal ones."
    )
    return markdown_table(caption, ["head", *header], cells)


def _ranking(runs, known):
    cells = []
    for label in filter(known.get, _RANKED):
        row = [label]
        for score in _RANKS:
            gains = runs.mean_gains(known[label], _AS_TRAINED, score)
            signs = f"{(gains > 0).sum()} / {(gains < 0).sum()}"
            row += [_points(gains), signs, _p(gains)]
        cells.append(row)
    header = ["head"]
    for score in _RANKS:
        header += [_LABELS[score], "sets above / below", "p"]
    caption = (
        "**Ranking minus as trained**, points. Thresholds, temperatures and priors "
        "rank two classes as before, so only sets of more classes change with them."
    )
    return markdown_table(caption, header, cells)


def _decisions(runs, known):
    rivals = (
        *(("f1", _AS_TRAINED), ("f1", _FOR_F1), ("macro_f1", _FOR_F1)),
        ("balanced_accuracy", _AS_TRAINED),
        ("balanced_accuracy", _FOR_RECALL),
    )
    cells = []
    for label, arm in known.items():
        row = [label]
        for score, rival in rivals:
            gains = runs.mean_gains(arm, rival, score)
            row += [_points(gains), _p(gains)]
        cells.append(row)
    names = {_AS_TRAINED: "as trained", _FOR_F1: "moved for F1"}
    header = ["method"]
    for score, rival in rivals:
        other = names.get(rival, "moved for balanced accuracy")
        header += [f"{_LABELS[score]} minus {other}", "p"]
    caption = (
        "**Decisions minus those of the network as trained, and minus those with its "
        "threshold moved** on the validation data, points."
    )
    return markdown_table(caption, header, cells)


def _guards(runs):
    """How often validation data took a head back, and what they were right about."""
    cells = []
    for score in ("f1", "balanced_accuracy"):
        for head, plain in (("guarded by", ("default", "as it is")), ("auto for", ())):
            arm = f"{head} {score}", "as it is"
            gains = runs.gains(arm, _AS_TRAINED, score)
            if not gains:
                continue
            kept = {
                name: np.array([runs.lines[name, n, arm[0]]["kept"] for n in numbers])
                for name, numbers in runs.resplits.items()
            }
            stayed = np.concatenate([gains[name][kept[name]] for name in gains])
            row = [arm[0].replace("_", " "), f"{stayed.size}"]
            row += [f"{sum(k.size for k in kept.values())}", _gain_and_loss(stayed)]
            if plain:
                other = runs.gains(plain, _AS_TRAINED, score)
                gone = np.concatenate([other[name][~kept[name]] for name in gains])
                row.append(_gain_and_loss(gone))
            cells.append([*row, "-"][:5])
    header = ["head", "kept", "of", "change of that score on the test data where kept"]
    header.append("what the default would have changed where it was taken back")
    caption = (
        "**What the guard did**: of every set and re-split; points, and in brackets "
        "how often the score rose and fell."
    )
    return markdown_table(caption, header, cells)


def _gain_and_loss(gains):
    if not gains.size:
        return "-"
    return f"{100 * gains.mean():+.1f} ({(gains > 0).sum()}, {(gains < 0).sum()})"


def _every_set(runs, known, score):
    labels = list(filter(known.get, _PER_SET))
    gains = {k: runs.gains(known[k], _AS_TRAINED, score) for k in labels}
    before = runs.scores(_AS_TRAINED, score)
    cells = []
    for name in runs.resplits:
        line = next(v for (n, _, _), v in runs.lines.items() if n == name)
        row = [name, str(min(line["test_counts"])), f"{100 * before[name].mean():.1f}"]
        row += [_with_verdict(gains[label].get(name)) for label in labels]
        cells.append(row)
    for sign, word in ((1, "better"), (-1, "worse")):
        count = [
            str(sum(_verdict(g) == sign for g in gains[k].values())) for k in labels
        ]
        cells.append([f"sets {word} by more than two errors", "", "", *count])
    caption = (
        f"**Every set**: {_LABELS[score]} as trained, and what each head adds; points, "
        f"± standard error over re-splits; bold beyond two of them."
    )
    header = ["set", "fewest test examples of a class", "as trained", *labels]
    return markdown_table(caption, header, cells)


def _verdict(gains):
    """1 or -1 where differences `[R]` are beyond two standard errors, else 0."""
    mean, error = mean_and_error(gains)
    return int(np.sign(mean)) if abs(mean) > 2 * error else 0


def _with_verdict(gains):
    if gains is None:
        return "-"
    return f"**{_points(gains)}**" if _verdict(gains) else _points(gains)


def _points(gains):
    mean, error = mean_and_error(100 * gains)
    return f"{mean:+.1f} ± {error:.1f}"


def _p(gains):
    value = p_value(gains)
    return "-" if np.isnan(value) else f"{value:.2g}" if value < 0.1 else f"{value:.1f}"


def _percent(values, score):
    if score == "log_loss":
        return "{:.3f} ± {:.3f}".format(*mean_and_error(values))
    return "{:.1f} ± {:.1f}".format(*mean_and_error(100 * values))


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    try:
        found = read_runs(FLAGS.results)
    except FileNotFoundError as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    print("\n".join(report(kind, runs) for kind, runs in found.items()))


if __name__ == "__main__":
    define_flags()
    app.run(main)
