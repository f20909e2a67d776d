"""Which recipe suits tables and texts: the lines of `examples/naturally_imbalanced.py`.

    python -m examples.naturally_imbalanced_tables --results=FILE.jsonl

Of the tables, by name, the first, third, fifth and so on choose a blend and a tau for
each material, by their mean balanced accuracy; the others, on which nothing was chosen,
and the texts say how good they are. Every number is a mean over splits first, then over
sets; a standard error is over sets.
"""

import collections
import json
import pathlib
import sys

import numpy as np
from absl import app, flags

from .figures import mean_and_error
from .sweep_networks import AS_TRAINED, Recipe
from .table_parts import markdown_table

__all__ = ["best_recipe", "halves", "read_sets", "report"]

FLAGS = flags.FLAGS

_LABELS = {
    "balanced_accuracy": "balanced accuracy",
    "geometric_mean": "geometric mean",
    "macro_f1": "macro F1",
    "minority_precision": "minority precision",
    "minority_recall": "minority recall",
    "average_precision": "average precision",
    "roc_auc": "ROC-AUC",
    "log_loss": "log loss",
}
_OF_TAU_ZERO = ("average_precision", "roc_auc")

ADJUSTED = Recipe("as trained", 1.0, 1.0)
_PLAIN = "all a class, plain, Gaussians"
_RIVALS = {
    "as trained": AS_TRAINED,
    "logit adjustment, tau 0.5": Recipe("as trained", 1.0, 0.5),
    "logit adjustment, tau 1": ADJUSTED,
    "logit adjustment, tau 1.25": Recipe("as trained", 1.0, 1.25),
    "logit adjustment, tau 1.5": Recipe("as trained", 1.0, 1.5),
    "class weights in the network's training": Recipe("class weights", 1.0, 0.0),
    "SMOTE": Recipe("all a class, plain, SMOTE", 0.0, 0.0),
    "plain pass over all, Gaussians": Recipe(_PLAIN, 0.0, 0.0),
}
_PAIRS = ((0.2, 0.5), (0.5, 0.8), (0.7, 1.0))
# With a grid of their own, and in the tables of every set.
_SHOWN = tuple(
    f"500 a class, {view}, Gaussians" for view in ("plain", "noise 0.1", "dropout")
)


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("results", None, "Lines of examples/naturally_imbalanced.py.")
    flags.mark_flag_as_required("results")


def read_sets(path, splits=None):
    """Reads a results file.

    Args:
        path: of the file; of two lines for one head the last stands.
        splits: the only splits to read; None for all.

    Returns:
        sets: {(network, set): {`Recipe`: {score: mean over splits}}}; those recipes
            alone that ran on each split of their set.
    """
    lines = {}
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # torn when a run was killed
        if splits is None or entry["episode"] in splits:
            key = entry["kind"], entry["experiment"], entry["episode"], entry["arm"]
            lines[key] = entry
    found, numbers = collections.defaultdict(dict), collections.defaultdict(set)
    for (kind, name, number, arm), entry in lines.items():
        numbers[kind, name].add(number)
        entry = lines.get((kind, name, number, entry.get("same_as")), entry)
        for i, blend in enumerate(entry.get("blends", [])):
            for j, tau in enumerate(entry["taus"]):
                scores = found[kind, name].setdefault(Recipe(arm, blend, tau), [])
                scores.append(_scores(entry, i, j))
    return {
        place: {
            recipe: dict(zip(_LABELS, np.mean(values, axis=0), strict=True))
            for recipe, values in recipes.items()
            if len(values) == len(numbers[place])
        }
        for place, recipes in sorted(found.items())
    }


def _scores(entry, i, j):
    """In the order of the labels; percent, and the log loss as it is."""
    places = (entry[n][i] if n in _OF_TAU_ZERO else entry[n][i][j] for n in _LABELS)
    scales = (1e2 if name == "log_loss" else 1e1 for name in _LABELS)
    return [value / scale for value, scale in zip(places, scales, strict=True)]


def halves(sets):
    """Splits the sets of one network: (choosing, confirming), each {set: recipes}.

    Tables choose by turns, texts never.
    """
    names = sorted({name for kind, name in sets if kind.startswith("table")})
    choosing = set(names[::2])
    grouped = {}
    for (kind, name), recipes in sets.items():
        half = 0 if name in choosing else 1
        grouped.setdefault(kind, ({}, {}))[half][name] = recipes
    return grouped


def best_recipe(sets, arm, score="balanced_accuracy"):
    """The best blend and tau of an arm by the mean of a score over sets."""
    recipes = set.intersection(*(set(recipes) for recipes in sets.values()))
    return max(
        sorted(recipe for recipe in recipes if recipe.arm == arm),
        key=lambda recipe: _mean(sets, recipe, score),
        default=None,
    )


def _mean(sets, recipe, score):
    return float(np.mean([recipes[recipe][score] for recipes in sets.values()]))


def _arms(sets):
    common = set.intersection(*(set(recipes) for recipes in sets.values()))
    fixed = {recipe.arm for recipe in _RIVALS.values()} - {_PLAIN}
    arms = sorted({recipe.arm for recipe in common} - fixed, key=_order)
    return arms, common


def _order(arm):
    size, view, source = arm.split(", ")
    return source, view, size


def report(sets, first_split):
    """All tables.

    Args:
        sets: as from `read_sets`.
        first_split: the same of split 0 alone, where more sizes ran.

    Returns:
        text: Markdown.
    """
    found = halves(sets)
    tables = [_summary(kind, {**a, **b}) for kind, (a, b) in found.items()]
    for kind, (choosing, confirming) in found.items():
        chosen_on = choosing or found.get("table, dropout", ({}, {}))[0]
        tables.append(_verdict(kind, chosen_on, confirming))
        for arm in _arms(confirming)[0]:
            if arm in _SHOWN:
                tables.append(_grid(kind, arm, choosing, confirming))
        tables.append(_sets_table(kind, choosing, confirming))
    for kind, parts in halves(first_split).items():
        tables.append(_sizes(kind, {**parts[0], **parts[1]}))
    return "\n".join(tables)


def _summary(kind, sets):
    """Fixed blends and taus on all sets, as no half of them has chosen those."""
    arms, common = _arms(sets)
    rows = {name: r for name, r in _RIVALS.items() if r in common}
    for arm in arms:
        if arm.startswith("500"):
            rows |= {str(Recipe(arm, *pair)): Recipe(arm, *pair) for pair in _PAIRS}
    cells = []
    for label, recipe in rows.items():
        gains = [
            _gains(sets, recipe, other, score)
            for score in ("balanced_accuracy", "geometric_mean", "macro_f1")
            for other in (AS_TRAINED, ADJUSTED)
        ]
        below = [sum(gain < 0 for gain in each) for each in gains[:2]]
        values = ("{:+.1f} ± {:.1f}".format(*mean_and_error(g)) for g in gains)
        cells.append([label, *values, *map(str, below), f"{min(gains[0]):+.1f}"])
    columns = ("minus as trained", "minus logit adjustment, tau 1")
    header = ["head", *(f"balanced accuracy {column}" for column in columns)]
    header += [f"geometric mean {column}" for column in columns]
    header += [f"macro F1 {column}" for column in columns]
    header += ["sets below as trained", "sets below logit adjustment", "least gain"]
    caption = (
        f"**{kind}: all {len(sets)} sets.** Blend 0.2 and tau 0.5, and 0.5 and 0.8, "
        "come from images; 0.7 and 1 was added when tables and texts had been seen. "
        "Points, mean ± standard error; the last three columns are of balanced "
        "accuracy."
    )
    return markdown_table(caption, header, cells)


def _verdict(kind, choosing, confirming):
    arms, common = _arms(confirming)
    rows = {name: r for name, r in _RIVALS.items() if r in common}
    for arm in arms:
        best = best_recipe(choosing, arm) if choosing else None
        pairs = dict.fromkeys(Recipe(arm, *pair) for pair in _PAIRS)
        pairs |= {best: None} if best in common else {}
        for recipe in pairs:
            rows[f"{recipe}{' (chosen)' if recipe == best else ''}"] = recipe
    cells = []
    for label, recipe in rows.items():
        gains = [_gains(confirming, recipe, r) for r in (AS_TRAINED, ADJUSTED)]
        below = sum(gain < 0 for gain in gains[0])
        scores = [_mean(confirming, recipe, score) for score in _LABELS]
        cells.append(
            [
                label,
                *("{:+.1f} ± {:.1f}".format(*mean_and_error(g)) for g in gains),
                f"{below}",
                *(f"{value:.1f}" for value in scores[:-1]),
                f"{scores[-1]:.2f}",
            ]
        )
    header = (
        *("head", "minus as trained", "minus logit adjustment, tau 1"),
        "sets below as trained",
        *_LABELS.values(),
    )
    caption = (
        f"**{kind}: {len(confirming)} sets that confirm.** Differences are points of "
        "balanced accuracy, mean ± standard error; scores are percent, log loss nats. "
        "Average precision and ROC-AUC are of tau 0, which two classes' are for any."
    )
    return markdown_table(caption, header, cells)


def _gains(sets, recipe, other, score="balanced_accuracy"):
    return [recipes[recipe][score] - recipes[other][score] for recipes in sets.values()]


def _grid(kind, arm, choosing, confirming):
    recipes = [recipe for recipe in _arms(confirming)[1] if recipe.arm == arm]
    blends, taus = (sorted({recipe[i] for recipe in recipes}) for i in (1, 2))
    parts = [part for part in (choosing, confirming) if part]
    cells = [
        [f"{blend:g}"]
        + [
            " / ".join(
                f"{np.mean(_gains(part, Recipe(arm, blend, tau), ADJUSTED)):+.1f}"
                for part in parts
            )
            for tau in taus
        ]
        for blend in blends
    ]
    which = "choosing / confirming" if choosing else "confirming"
    caption = (
        f"**{kind}: {arm}**, balanced accuracy minus logit adjustment with tau 1, "
        f"{which} sets, by blend (down) and tau."
    )
    return markdown_table(caption, ["blend", *(f"tau {tau:g}" for tau in taus)], cells)


def _sets_table(kind, choosing, confirming):
    arms, common = _arms({**choosing, **confirming})
    rows = {name: r for name, r in _RIVALS.items() if r in common}
    for arm in arms:
        if arm in _SHOWN:
            rows |= {str(Recipe(arm, *pair)): Recipe(arm, *pair) for pair in _PAIRS}
    cells = [
        [name, half, *(f"{recipes[r]['balanced_accuracy']:.1f}" for r in rows.values())]
        for half, part in (("chooses", choosing), ("confirms", confirming))
        for name, recipes in part.items()
    ]
    caption = f"**{kind}: every set**, balanced accuracy, percent."
    return markdown_table(caption, ["set", "half", *rows], cells)


def _sizes(kind, sets):
    """What the number of examples adds, on the first split of all sets."""
    arms, common = _arms(sets)
    cells = [
        [arm]
        + [
            "{:+.1f} ± {:.1f}".format(
                *mean_and_error(_gains(sets, Recipe(arm, *pair), ADJUSTED))
            )
            for pair in _PAIRS
        ]
        for arm in arms
        if arm.endswith("Gaussians") and Recipe(arm, *_PAIRS[0]) in common
    ]
    header = ["head", *("blend {:g}, tau {:g}".format(*pair) for pair in _PAIRS)]
    caption = (
        f"**{kind}: how many examples**, balanced accuracy minus logit adjustment with "
        f"tau 1 on the first split of all {len(sets)} sets."
    )
    return markdown_table(caption, header, cells)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    try:
        sets = read_sets(FLAGS.results)
    except FileNotFoundError as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    print(report(sets, read_sets(FLAGS.results, splits=(0,))))


if __name__ == "__main__":
    define_flags()
    app.run(main)
