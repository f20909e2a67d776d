"""Which recipe is the best, from the lines of `examples/sweep.py`.

    python -m examples.sweep_tables --results=outputs/sweep/results.jsonl \
      --choose='*seed10,*step[517]-*seed0' --confirm='*seed11,*step[938]-*seed0'

A recipe is what the head was trained on (an arm), how much of the old head is kept
(`blend`) and how much of the prior is taken off (`tau`). One half of the networks
chooses it, by the mean of its shares of the gap in accuracy and geometric mean; the
other half, on which nothing was chosen, says how good it is.
"""

import fnmatch
import pathlib
import sys

import numpy as np
from absl import app, flags

from .figures import SCORE_LABELS, mean_and_error
from .sweep_networks import (
    AS_GOOD,
    AS_TRAINED,
    ORACLE,
    SHARED_SCORES,
    Recipe,
    best_recipes,
    cheapest,
    mean_passes,
    read_networks,
    safest,
    shares,
)
from .table_parts import markdown_table

__all__ = ["report"]

FLAGS = flags.FLAGS

_RIVALS = {
    "logit adjustment, tau 1": Recipe("as trained", 1.0, 1.0),
    "logit adjustment, tau 1.5": Recipe("as trained", 1.0, 1.5),
    "logit adjustment, tau 2": Recipe("as trained", 1.0, 2.0),
    "plain pass over all, Gaussians": Recipe("all a class, plain, Gaussians", 0.0, 0.0),
    "the same, blend 0.5, tau 0.8": Recipe("all a class, plain, Gaussians", 0.5, 0.8),
}
# Where the sweep began.
_LEADS = {
    str(recipe): recipe
    for recipe in (
        Recipe("1000 a class, 2 views, Gaussians", 0.5, 0.8),
        Recipe("250 a class, 2 views, Gaussians", 0.3, 0.8),
        Recipe("1000 a class, 2 views, Gaussians to twice", 0.0, 0.0),
    )
}


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_list("results", None, "Results files of examples/sweep.py.")
    flags.DEFINE_list("choose", None, "Patterns of the networks that choose.")
    flags.DEFINE_list("confirm", None, "Patterns of the networks that confirm.")
    flags.mark_flags_as_required(["results", "choose", "confirm"])


def report(choosing, confirming):
    """All tables.

    Args:
        choosing: list of `Network`.
        confirming: list of `Network`.

    Returns:
        text: Markdown.
    """
    best = best_recipes(choosing)
    first, chosen = next(iter(best)), cheapest(choosing, best)
    common = set.intersection(*(set(n.scores) for n in [*choosing, *confirming]))
    best = {recipe: merit for recipe, merit in best.items() if recipe in common}
    careful = safest(choosing)
    rows = {f"chosen: {chosen}": chosen}
    if first != chosen:
        rows = {f"best: {first}": first} | rows
    if careful in common and careful != chosen:
        rows[f"safest: {careful}"] = careful
    fixed = {label: r for label, r in (_LEADS | _RIVALS).items() if r in common}
    rows = {"as trained": AS_TRAINED} | rows | fixed | {"oracle": ORACLE}
    everywhere = [*choosing, *confirming]
    return "\n".join(
        [
            _verdict(rows, chosen, choosing, confirming),
            _scores_table(rows, confirming),
            _losses_table(rows, chosen, everywhere),
            _experiments_table(rows, everywhere),
            _networks_table(
                {"as trained": AS_TRAINED, "chosen": chosen, "oracle": ORACLE}
                | {label: _RIVALS[label] for label in _RIVALS if label in fixed},
                choosing,
                confirming,
            ),
            _best_table(best, choosing, confirming),
            _gains_table(chosen, best, everywhere),
            _grid_table(chosen.arm, choosing, "choosing"),
            _grid_table(chosen.arm, confirming, "confirming"),
            *(
                table
                for kind, networks in _grouped(everywhere, "kind")
                for table in _sources_tables(chosen, networks, kind)
            ),
        ]
    )


def _grouped(networks, name):
    """Pairs of a value of an attribute and the networks that have it."""
    for value in sorted({getattr(network, name) for network in networks}):
        yield value, [n for n in networks if getattr(n, name) == value]


def _verdict(rows, chosen, choosing, confirming):
    """Shares of a few recipes on both halves, and how far below "as trained"."""
    cells = []
    for label, recipe in rows.items():
        losses = {
            network.name: network.scores[recipe]["accuracy"]
            - network.scores[AS_TRAINED]["accuracy"]
            for network in [*choosing, *confirming]
        }
        worst = min(losses, key=losses.get)
        behind = [
            100 * (n.scores[chosen][score] - n.scores[recipe][score])
            for score in SHARED_SCORES
            for n in confirming
        ]
        behind = np.reshape(behind, [len(SHARED_SCORES), -1])
        cells.append(
            [
                label,
                *(f"{value:.0f}" for value in shares(choosing, recipe)),
                *(f"{value:.0f}" for value in shares(confirming, recipe)),
                *("{:+.1f} ± {:.1f}".format(*mean_and_error(b)) for b in behind),
                f"{100 * losses[worst]:+.1f} ({_short(worst)})",
            ]
        )
    header = (
        "head",
        "accuracy, choosing",
        "geometric mean, choosing",
        "accuracy, confirming",
        "geometric mean, confirming",
        "chosen minus this, accuracy",
        "chosen minus this, geometric mean",
        "least gain in accuracy",
    )
    caption = (
        "**Share of the gap to the oracle, percent**, mean gain over mean gap, of "
        f"{len(choosing)} networks that chose and {len(confirming)} that confirm. "
        "Best: the highest mean of both shares on the choosing networks. Chosen: of "
        "those within "
        f"{AS_GOOD:g} percent of it, the one with the fewest forward passes. Safest: "
        "the highest on the choosing network where it is lowest. The differences are "
        "points on the confirming networks, mean ± standard error; the last column is "
        "over all networks, against as trained; the test images "
        "are balanced, so that it is one of balanced accuracy, too."
    )
    return markdown_table(caption, header, cells)


def _scores_table(rows, networks):
    cells = [
        [label]
        + [
            f"{100 * np.mean([n.scores[recipe][score] for n in networks]):.1f}"
            for score in SCORE_LABELS
        ]
        for label, recipe in rows.items()
    ]
    caption = f"**Scores**, percent, mean of {len(networks)} networks that confirm."
    return markdown_table(caption, ["head", *SCORE_LABELS.values()], cells)


def _losses_table(rows, chosen, networks):
    """Where the chosen recipe is below another row."""
    cells = []
    for label, recipe in rows.items():
        if recipe in (chosen, ORACLE):
            continue
        below = [
            [n for n in networks if n.scores[chosen][score] < n.scores[recipe][score]]
            for score in SCORE_LABELS
        ]
        cells.append([label, *(str(len(found)) for found in below)])
    header = ("head", *SCORE_LABELS.values())
    caption = f"**On how many of {len(networks)} networks the chosen head is below:**"
    return markdown_table(caption, header, cells)


def _experiments_table(rows, networks):
    groups = dict(_grouped(networks, "experiment"))
    cells = [
        [label, *(_pair(group, recipe) for group in groups.values())]
        for label, recipe in rows.items()
    ]
    names = [f"{name} ({len(group)})" for name, group in groups.items()]
    caption = "**Shares in accuracy / geometric mean by experiment** (networks)."
    return markdown_table(caption, ["head", *names], cells)


def _networks_table(rows, choosing, confirming):
    cells = []
    for half, networks in (("chooses", choosing), ("confirms", confirming)):
        for network in networks:
            pairs = (
                [network.scores[recipe][score] for score in SHARED_SCORES]
                for recipe in rows.values()
            )
            name = _short(network.name)
            cells.append([name, half, *("{:.1%} / {:.1%}".format(*p) for p in pairs)])
    seeds = sorted({network.seeds for network in [*choosing, *confirming]})
    caption = (
        "**Every network:** accuracy / geometric mean; mean of "
        f"{' or '.join(map(str, seeds))} head seeds."
    )
    return markdown_table(caption, ["network", "half", *rows], cells)


def _best_table(best, choosing, confirming):
    cells = [
        [
            recipe.arm,
            f"{mean_passes(choosing, recipe):,.0f}",
            f"{recipe.blend:g}",
            f"{recipe.tau:g}",
            _pair(choosing, recipe),
            _pair(confirming, recipe),
        ]
        for recipe in best
    ]
    header = (
        *("head trained on", "forward passes", "blend", "tau"),
        *("choosing", "confirming"),
    )
    caption = (
        "**Every material with its best blend and tau**, by the choosing networks: "
        "shares in accuracy / geometric mean, from the best on."
    )
    return markdown_table(caption, header, cells)


def _grid_table(arm, networks, title):
    recipes = [recipe for recipe in networks[0].scores if recipe.arm == arm]
    blends, taus = (sorted({recipe[i] for recipe in recipes}) for i in (1, 2))
    cells = [
        [f"{blend:g}", *(_pair(networks, Recipe(arm, blend, tau)) for tau in taus)]
        for blend in blends
    ]
    caption = f"**{arm}, {title} networks:** shares by blend (down) and tau."
    return markdown_table(caption, ["blend", *(f"tau {tau:g}" for tau in taus)], cells)


def _sources_tables(chosen, networks, kind):
    """What a source adds, with the chosen blend and tau and with its own best."""
    best = {recipe.arm: recipe for recipe in best_recipes(networks)}
    fixed = {arm: _pair(networks, Recipe(arm, *chosen[1:])) for arm in best}
    own = {
        arm: f"{_pair(networks, recipe)} ({recipe.blend:g}, {recipe.tau:g})"
        for arm, recipe in best.items()
    }
    title = f"**What examples, views and source add, {kind}** ({len(networks)} networks"
    yield _pivot(
        f"{title}): shares with blend {chosen.blend:g} and tau {chosen.tau:g}.", fixed
    )
    yield _pivot(
        f"{title}): shares with the best blend and tau of each cell, which are in "
        "brackets and were picked on these very networks.",
        own,
    )


def _gains_table(chosen, best, networks):
    """Gaussians against what else could balance the same subset."""
    own = {recipe.arm: recipe for recipe in best}
    cells = []
    for kind, group in _grouped(networks, "kind"):
        for arm in sorted(own, key=lambda arm: _order(*arm.rsplit(", ", 2))):
            if not arm.endswith(", Gaussians"):
                continue
            none, copies = (
                arm.replace(", Gaussians", f", {source}")
                for source in ("none", "over-sampling")
            )
            pairs = (
                (Recipe(arm, *chosen[1:]), Recipe(copies, *chosen[1:]), copies),
                (Recipe(arm, *chosen[1:]), Recipe(none, *chosen[1:]), none),
                (own[arm], own.get(none), none),
            )
            columns = [
                _gain(group, *pair[:2]) if pair[2] in own else "" for pair in pairs
            ]
            if columns[1] != _NO_GAIN:
                cells.append([kind, *arm.rsplit(", ", 2)[:2], *columns])
    header = (
        *("kind", "examples", "passes"),
        "Gaussians minus over-sampling",
        "Gaussians minus none",
        "Gaussians minus none, each with its own blend and tau",
    )
    caption = (
        "**What Gaussians to balance add**, points of accuracy / geometric mean, mean "
        "± standard error over all networks of a kind; first with the chosen blend "
        f"{chosen.blend:g} and tau {chosen.tau:g}, then with the best blend and tau of "
        "each on the choosing networks. Left out: subsets that are balanced as they "
        "are, where nothing is drawn."
    )
    return markdown_table(caption, header, cells)


_NO_GAIN = "+0.0 ± 0.0 / +0.0 ± 0.0"


def _gain(networks, recipe, other):
    gains = (
        [100 * (n.scores[recipe][score] - n.scores[other][score]) for n in networks]
        for score in SHARED_SCORES
    )
    return " / ".join("{:+.1f} ± {:.1f}".format(*mean_and_error(g)) for g in gains)


def _pivot(caption, cells):
    """A table of {arm: cell}, with a column for each source."""
    parts = {arm: arm.replace("1,000", "1000").split(", ") for arm in cells}
    table = {}
    for arm in sorted(parts, key=lambda arm: _order(*parts[arm])):
        size, passes, source = parts[arm]
        table.setdefault((passes, size), {})[source] = cells[arm]
    sources = dict.fromkeys(source for row in table.values() for source in row)
    sources = sorted(sources, key=len)
    rows = [
        [*names, *(row.get(source, "") for source in sources)]
        for names, row in table.items()
    ]
    return markdown_table(caption, ["passes", "examples", *sources], rows)


def _order(size, passes, source):
    size = size.split()[0]
    return passes, int(size) if size.isdigit() else np.inf, len(source)


def _pair(networks, recipe):
    return "{:.0f} / {:.0f}".format(*shares(networks, recipe))


def _short(name):
    """The parts of a network's name in which networks differ."""
    parts = name.replace("flip_and_shift", "augmented").split("-")
    shown = ("step", "long", "resnet", "augmented", "seed")
    return " ".join(part for part in parts if part.startswith(shown)) or name


def _matching(networks, patterns):
    return [
        network
        for network in networks
        if any(fnmatch.fnmatch(network.name, pattern) for pattern in patterns)
    ]


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    networks = read_networks(*FLAGS.results)
    halves = [_matching(networks, FLAGS.choose), _matching(networks, FLAGS.confirm)]
    twice = {n.name for n in halves[0]} & {n.name for n in halves[1]}
    if twice or not all(halves):
        known = [network.name for network in networks]
        sys.exit(
            f"{pathlib.Path(argv[0]).name}: --choose and --confirm each match one "
            f"network at least, and none of the other's; both match {sorted(twice)} "
            f"of {known}."
        )
    print(report(*halves))


if __name__ == "__main__":
    define_flags()
    app.run(main)
