"""Parts of the tables of results: groups, notes, cells, Markdown."""

import math

from .figures import ARM_LABELS, spread_over

__all__ = [
    "by_experiment",
    "count_of",
    "embolden",
    "error_cell",
    "label",
    "labels",
    "markdown_table",
    "minors_of",
    "number_cell",
    "part_note",
    "spread_note",
    "trunks_of",
]


def by_experiment(results):
    """The results of each experiment, in the order in which experiments appear."""
    groups = {}
    for result in results:
        groups.setdefault(result["experiment"], []).append(result)
    return list(groups.values())


def trunks_of(results, arm=None):
    """The trunks on which an arm ran, or any."""
    return {
        (r["num_minority"], r["episode"]) for r in results if arm in (None, r["arm"])
    }


def minors_of(results):
    """The numbers of minority classes, None where there is none."""
    return {result["num_minority"] for result in results}


def spread_note(results):
    """What ± means in a table of these results."""
    unit, trunks = spread_over(results), len(trunks_of(results))
    if unit is None:
        return "one run." if trunks == 1 else "one run for each #Minor."
    if unit == "head seeds":
        seeds = len({result["seed"] for result in results})
        return (
            "one trunk; mean ± standard error over its "
            f"{count_of(seeds, 'head seed')}, which says nothing about other trunks."
        )
    apart = ", whose #Minor differ" if len(minors_of(results)) > 1 else ""
    return (
        f"mean ± standard error over {trunks} trunks{apart}; a trunk's score is the "
        "mean of its head seeds."
    )


def part_note(results, arm):
    """A note for an arm that did not run on every trunk."""
    ran, all_trunks = len(trunks_of(results, arm)), len(trunks_of(results))
    return "" if ran == all_trunks else f" ({ran} of {all_trunks} trunks)"


def label(arm):
    """What a table calls an arm."""
    return ARM_LABELS.get(arm, arm)


def labels(arms):
    """What a sentence calls several arms, in the order of tables."""
    return ", ".join(label(arm) for arm in ARM_LABELS if arm in arms)


def number_cell(value):
    """A number with one decimal, or a dash for NaN."""
    return "-" if math.isnan(value) else f"{value:.1f}"


def error_cell(error):
    """A share's standard error in percentage points, or nothing for NaN."""
    return "" if math.isnan(error) else f" ± {100 * error:.1f}"


def count_of(number, noun):
    """A number and its noun, such as "2 networks"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def embolden(column, arms):
    """Bolds the highest number that a column shows for these arms, and its equals."""
    shown = {a: float(column[a].split()[0]) for a in arms if column[a] not in ("", "-")}
    for arm, number in shown.items():
        if number == max(shown.values()):
            column[arm] = f"**{column[arm]}**"


def markdown_table(caption, header, rows):
    """A caption, and a table of strings below it."""
    lines = [header, ["---"] * len(header), *rows]
    return f"{caption}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
