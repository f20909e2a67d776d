"""What the tables of results say, in words."""

import math

import numpy as np

from .figures import SCORE_LABELS, arms_of, trunk_means
from .paired_tests import paired, pairs_note
from .table_parts import (
    by_experiment,
    count_of,
    error_cell,
    label,
    labels,
    number_cell,
    part_note,
)

__all__ = [
    "gap_share",
    "verdicts",
]


def verdicts(results):
    """What the tables say, in words.

    For each experiment: how much of the gap to the oracle the default closes; which
    rivals are above it by more than one standard error of the paired difference; and
    whether the paper's settings are above SMOTE.

    Args:
        results: list of result dicts.

    Returns:
        text: Markdown, a list for each experiment.
    """
    return "\n".join(
        f"**{group[0]['experiment']}: in words.**\n\n- {_gap_verdict(group)}\n"
        f"- {_rivals_verdict(group)}\n- {_smote_verdict(group)}\n"
        for group in by_experiment(results)
    )


def _gap_verdict(results):
    absent = {"baseline", "default", "oracle"} - set(arms_of(results))
    if absent:
        return f"The gap to the oracle is unknown: no result of {labels(absent)}."
    share = gap_share(results, "default")
    _, baseline, oracle = (
        number_cell(100 * end) for end in gap_ends(results, "default")
    )
    if math.isnan(share):
        return f"No gap to close: accuracy {baseline} as trained, {oracle} the oracle."
    return (
        f"The default closes {share:.0f} % of the gap in accuracy, from {baseline} as "
        f"trained to {oracle} of the oracle."
    )


def _rivals_verdict(results):
    rivals = [arm for arm in arms_of(results) if arm not in ("default", "oracle")]
    if not rivals or "default" not in arms_of(results):
        return "The default is not compared: it needs results of it and of a rival."
    above, alone = [], False
    for rival in rivals:
        scores = []
        for score, name in SCORE_LABELS.items():
            difference = paired(results, rival, "default", score)
            error = difference.standard_error
            alone |= difference.n == 1
            if difference.mean > (0 if math.isnan(error) else error):
                scores.append(f"{name} {100 * difference.mean:+.1f}{error_cell(error)}")
        if scores:
            note = part_note(results, rival)
            above.append(f"{label(rival)}{note}: {', '.join(scores)}")
    by = "more than one standard error of the paired difference"
    if alone:
        by += ", or by anything where one run has no standard error"
    who = "; ".join(above) or "none"
    return f"Of {count_of(len(rivals), 'rival')}, above the default by {by}: {who}."


def _smote_verdict(results):
    absent = {"proposed", "smote"} - set(arms_of(results))
    if absent:
        return f"proposed and SMOTE are not compared: no result of {labels(absent)}."
    differences = {
        name: paired(results, "proposed", "smote", score)
        for score, name in SCORE_LABELS.items()
    }
    most = max(differences.values(), key=lambda difference: difference.n)
    if not most.n:
        return "proposed and SMOTE are not compared: they have no run in common."
    words = "; ".join(
        f"{'above' if difference.mean > 0 else 'not above'} in {name} {difference}"
        for name, difference in differences.items()
        if difference.n
    )
    return f"proposed against SMOTE, over {pairs_note(most)}: {words}."


def gap_ends(results, arm):
    """Accuracy of arm, baseline and oracle where all three ran, NaN where none did."""
    means = [trunk_means(results, a, "accuracy") for a in (arm, "baseline", "oracle")]
    common = [
        values
        for trunk in means[0]
        if np.isfinite(values := [mean.get(trunk, math.nan) for mean in means]).all()
    ]
    return np.mean(common, axis=0) if common else np.full(3, math.nan)


def gap_share(results, arm):
    """Percent of the way from the baseline to the oracle, NaN where there is none."""
    ours, baseline, oracle = gap_ends(results, arm)
    gap = oracle - baseline
    return 100 * (ours - baseline) / gap if gap > 0 else math.nan
