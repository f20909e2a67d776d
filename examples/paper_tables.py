"""Tables 1 to 4 of Konno and Iwazume (2018): ours, and beside the paper's."""

import json
import math
import pathlib

import numpy as np

from .figures import SCORE_LABELS, arm_score, arms_of
from .table_parts import (
    by_experiment,
    count_of,
    embolden,
    label,
    markdown_table,
    minors_of,
    number_cell,
    trunks_of,
)

__all__ = [
    "beside_paper",
    "paper_tables",
    "read_paper",
]

# The rows of the paper's Tables 1 to 4, and this package's own.
_PAPER_ARMS = (
    *("baseline", "scratch", "under_sampling", "smote", "perturbed", "proposed"),
    "default",
)
# Its "under-sampling" is that of the whole network.
_PAPER_COLUMNS = {"under_sampling": "scratch"}
# What the paper calls the scores; its multiplicative average is the geometric mean.
_PAPER_SCORES = {
    "accuracy": "accuracy",
    "geometric_mean": "multiplicative_average",
    "mean_minority_accuracy": "mean_minority_accuracy",
    "min_class_accuracy": "min_class_accuracy",
}


def paper_tables(results):
    """Tables 1 to 4 of Konno and Iwazume (2018): a score for each #Minor.

    Args:
        results: list of result dicts; experiments without #Minor are left out.

    Returns:
        text: Markdown, four captions and tables for each experiment.
    """
    results = [result for result in results if result["num_minority"] is not None]
    return "\n".join(
        _paper_table(number, score, group)
        for group in by_experiment(results)
        for number, score in enumerate(SCORE_LABELS, start=1)
    )


def _paper_table(number, score, results):
    arms = [arm for arm in _PAPER_ARMS if arm in arms_of(results)]
    minors = sorted(minors_of(results))
    columns = []
    for minor in minors:
        group = [result for result in results if result["num_minority"] == minor]
        columns.append({arm: arm_score(group, arm, score)[0] for arm in arms})
    # A row with a hole has no average: it would be over other columns than the rest.
    columns.append({a: float(np.mean([c[a] for c in columns])) for a in arms})
    columns = [
        {a: number_cell(100 * v) for a, v in column.items()} for column in columns
    ]
    for column in columns:
        embolden(column, arms)
    rows = [[label(arm), *(column[arm] for column in columns)] for arm in arms]
    episodes = [sum(n == minor for n, _ in trunks_of(results)) for minor in minors]
    least = f"{min(episodes)} to " if min(episodes) < max(episodes) else ""
    caption = (
        f"**{results[0]['experiment']}: Table {number}, {SCORE_LABELS[score]}** by "
        f"#Minor, percent, mean of {least}{count_of(max(episodes), 'episode')}."
    )
    return markdown_table(caption, ["method", *map(str, minors), "average"], rows)


def read_paper(path):
    """Reads the paper's Tables 1 to 4.

    Args:
        path: JSON file, see the top of this file. Scores are shares in [0, 1].

    Returns:
        source: where the numbers are from, in words.
        scores: {score: {num_minority: {arm: share}}}, keys as in a results file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It has not what is expected.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r} of the paper's tables.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        first, *columns = content["columns"]
        arms = [_PAPER_COLUMNS.get(column, column) for column in columns]
        if first != "num_minority":
            raise ValueError(f"the first of the columns is {first!r}")
        scores = {
            score: {
                int(minor): dict(zip(arms, shares, strict=True))
                for minor, *shares in content[name]
            }
            for score, name in _PAPER_SCORES.items()
        }
        return content["source"], scores
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected an object with 'source', 'columns' that begin with "
            f"'num_minority', and a list of rows for each of "
            f"{list(_PAPER_SCORES.values())}; received something else: {error!r}"
        ) from error


def beside_paper(results, paper, source, notes=()):
    """Tables 1 to 4 with the paper's numbers after ours, where both have #Minor.

    Args:
        results: list of result dicts.
        paper: scores of `read_paper`.
        source: where they are from, in words.
        notes: list of differences between the protocols, in words.

    Returns:
        text: Markdown, what differs and four tables for each experiment.
    """
    sections = []
    for group in by_experiment(results):
        minors = sorted(minors_of(group) & paper["accuracy"].keys())
        if not minors:
            continue
        episodes = sum(n in minors for n, _ in trunks_of(group))
        differences = [
            f"Ours: {group[0]['experiment']}; {count_of(episodes, 'network')} for "
            f"{count_of(len(minors), 'number')} of minority classes.",
            f"The paper's: {source}.",
            "Under-sampling: the paper trains the whole network on the small set, "
            f"which is {label('scratch')!r} here.",
            *notes,
        ]
        sections += [
            f"## {group[0]['experiment']}, beside the paper\n",
            "What differs:\n",
            *(f"- {difference}" for difference in differences),
            "",
            *(
                _beside_paper(number, score, group, paper[score], minors)
                for number, score in enumerate(SCORE_LABELS, start=1)
            ),
        ]
    return "\n".join(sections)


def _beside_paper(number, score, results, paper, minors):
    arms = [arm for arm in arms_of(results) if arm in paper[minors[0]]]
    groups = [[r for r in results if r["num_minority"] == n] for n in minors]
    ours = {
        arm: np.array([arm_score(group, arm, score)[0] for group in groups])
        for arm in arms_of(results)
    }
    theirs = {arm: np.array([paper[n][arm] for n in minors]) for arm in arms}
    rows = [[label(arm), *_side_by_side(ours[arm], theirs[arm])] for arm in arms]
    if {"baseline", "proposed"} <= set(arms):
        gains = [each["proposed"] - each["baseline"] for each in (ours, theirs)]
        rows.append(["proposed minus as trained", *_side_by_side(*gains, sign="+")])
    for arm in (arm for arm in ours if arm not in theirs):  # ours alone
        means = 100 * np.append(ours[arm], ours[arm].mean())
        rows.append([label(arm), *map(number_cell, means)])
    caption = (
        f"**Table {number}, {SCORE_LABELS[score]}** by #Minor, percent: ours / the "
        "paper's; ours alone of what the paper has not."
    )
    return markdown_table(caption, ["method", *map(str, minors), "average"], rows)


def _side_by_side(ours, theirs, sign=""):
    """Cells of a row: our numbers / the paper's, which are whole, and their means."""

    def cell(a, b, digits):
        a = "-" if math.isnan(a) else f"{100 * a:{sign}.1f}"
        return f"{a} / {100 * b:{sign}.{digits}f}"

    cells = [cell(a, b, 0) for a, b in zip(ours, theirs, strict=True)]
    return [*cells, cell(ours.mean(), theirs.mean(), 1)]
