"""Paired differences of one arm to its rivals, with t-tests."""

import dataclasses
import math
import warnings

import numpy as np
import scipy.stats

from .figures import SCORE_LABELS, arms_of, mean_and_error
from .table_parts import by_experiment, error_cell, label, markdown_table

__all__ = [
    "paired",
    "paired_table",
    "PairedDifference",
    "pairs_note",
]


@dataclasses.dataclass(frozen=True)
class PairedDifference:
    """How far one arm is above another where both ran.

    Attributes:
        mean: mean of the paired differences, a share in [-1, 1].
        standard_error: of that mean, NaN for fewer than two pairs.
        n: number of pairs.
        p_value: of the paired t-test, two-sided; NaN for fewer than two pairs and for
            arms that are everywhere the same.
        unit: what a pair is, "trunks" or "head seeds".
    """

    mean: float
    standard_error: float
    n: int
    p_value: float
    unit: str

    def __str__(self):
        if math.isnan(self.mean):
            return "-"
        p_value = "p < 0.001" if self.p_value < 0.001 else f"p {self.p_value:.3f}"
        note = "" if math.isnan(self.p_value) else f" ({p_value})"
        return f"{100 * self.mean:+.1f}{error_cell(self.standard_error)}{note}"


def paired(results, arm, rival, score):
    """Compares two arms on the runs that both have.

    A run is a trunk, which is an experiment's (num_minority, episode), and a head seed.
    Heads on one trunk share its luck, so from two trunks on a pair is a trunk, with the
    mean of its head seeds. With one trunk a pair is a head seed, and the standard
    error says nothing about other trunks.

    Args:
        results: list of result dicts.
        arm: arm key.
        rival: arm key of the one to subtract.
        score: a key of `SCORE_LABELS`.

    Returns:
        difference: `PairedDifference`.
    """
    runs = {}
    for result in results:
        if result["arm"] in (arm, rival) and _is_number(result[score]):
            trunk = (result["experiment"], result["num_minority"], result["episode"])
            pair = runs.setdefault(trunk, {}).setdefault(result["seed"], {})
            pair[result["arm"]] = result[score]
    trunks = {
        trunk: [(p[arm], p[rival]) for p in pairs.values() if arm in p and rival in p]
        for trunk, pairs in runs.items()
    }
    trunks = [pairs for pairs in trunks.values() if pairs]
    unit = "trunks" if len(trunks) > 1 else "head seeds"
    if unit == "trunks":
        pairs = [np.mean(pairs, axis=0) for pairs in trunks]
    else:
        pairs = next(iter(trunks), [])
    ours, theirs = np.reshape(pairs, (-1, 2)).T
    p_value = math.nan
    if len(pairs) > 1:
        with warnings.catch_warnings():  # scipy's, of differences that are all the same
            warnings.simplefilter("ignore", RuntimeWarning)
            p_value = float(scipy.stats.ttest_rel(ours, theirs).pvalue)
    return PairedDifference(*mean_and_error(ours - theirs), len(pairs), p_value, unit)


def paired_table(results, arm, rivals):
    """Paired differences of one arm to each of its rivals, on all four scores.

    Args:
        results: list of result dicts.
        arm: arm key.
        rivals: list of arm keys; those an experiment does not have are left out.

    Returns:
        text: Markdown, a caption and a table for each experiment that has the arm.
    """
    return "\n".join(
        _paired_table(group, arm, [r for r in arms_of(group) if r in rivals])
        for group in by_experiment(results)
        if arm in arms_of(group)
    )


def _paired_table(results, arm, rivals):
    rows = []
    for rival in rivals:
        cells = [paired(results, arm, rival, score) for score in SCORE_LABELS]
        most = max(cells, key=lambda cell: cell.n)
        rows.append([label(rival), *map(str, cells), pairs_note(most)])
    caption = (
        f"**{results[0]['experiment']}: {label(arm)} minus each rival.** Mean paired "
        "difference in percentage points ± its standard error, and the p-value of a "
        "paired t-test, not corrected for the number of comparisons."
    )
    if any(row[-1].endswith("seeds") for row in rows):
        caption += " Pairs of head seeds share one trunk and say nothing about others."
    return markdown_table(caption, ["rival", *SCORE_LABELS.values(), "pairs"], rows)


def pairs_note(difference):
    """How many pairs a difference has, in words."""
    return f"{difference.n} {difference.unit}" if difference.n > 1 else "1 run"


def _is_number(value):
    return value is not None and math.isfinite(value)
