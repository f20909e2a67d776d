"""Figures 2 and 5 of Konno and Iwazume (2018), from the lines of a results file.

How arms and scores are called, and how results are averaged, stands here too, as the
figures and `examples/tables.py` must agree on it.
"""

import math
import textwrap

import numpy as np
from matplotlib.figure import Figure

__all__ = [
    "ARM_LABELS",
    "SCORE_LABELS",
    "arm_score",
    "arms_of",
    "feature_space_figure",
    "mean_and_error",
    "scores_figure",
    "spread_over",
    "trunk_means",
]

# In the order of display.
ARM_LABELS = {
    "baseline": "as trained",
    "head_only": "head only, real features",
    "scratch": "under-sampling, whole network",
    "under_sampling": "under-sampling, head",
    "random_over_sampling": "random over-sampling",
    "smote": "SMOTE",
    "perturbed": "perturbed",
    "proposed": "proposed (paper's settings)",
    "gaussian": "Gaussian, warm head",
    "gaussian_fresh": "Gaussian, fresh head",
    "diagonal": "diagonal Gaussian",
    "tied": "tied Gaussian",
    "low_rank": "low-rank Gaussian, rank 8",
    "minority_x10": "Gaussian, minority x10",
    "minority_x20": "Gaussian, minority x20",
    "minority_x50": "Gaussian, minority x50",
    "minority_x100": "Gaussian, minority x100",
    "scale_2": "Gaussian, covariance x2",
    "scale_4": "Gaussian, covariance x4",
    "class_weights": "class weights",
    "balanced_softmax": "balanced softmax",
    "crt": "cRT",
    "tau_norm": "tau-normalization",
    "lda": "LDA head",
    "logit_adjustment": "logit adjustment, tau 1",
    "logit_adjustment_1.5": "logit adjustment, tau 1.5",
    "gaussian_adjusted": "Gaussian, blend 0.5, tau 0.8",
    "default": "this package's default",
    "oracle": "oracle (removed examples)",
}

# The four scores of the paper's Tables 1 to 4, in their order.
SCORE_LABELS = {
    "accuracy": "accuracy",
    "geometric_mean": "geometric mean",
    "mean_minority_accuracy": "mean minority accuracy",
    "min_class_accuracy": "min class accuracy",
}

# Colour and marker; the colours are told apart by the colour-blind too (Okabe and Ito).
_LINES = {
    "baseline": ("black", "o"),
    "under_sampling": ("#e69f00", "v"),
    "smote": ("#009e73", "s"),
    "perturbed": ("#cc79a7", "D"),
    "proposed": ("#0072b2", "^"),
    "default": ("#d55e00", "*"),
}
_OTHER = ("0.55", "o")


def arms_of(results):
    """The arms that occur: in the order of `ARM_LABELS`, then those it does not know.

    Args:
        results: list of result dicts, see `examples.results_file.read_results`.

    Returns:
        arms: list of arm keys.
    """
    present = dict.fromkeys(result["arm"] for result in results)
    return [arm for arm in ARM_LABELS if arm in present] + [
        arm for arm in present if arm not in ARM_LABELS
    ]


def mean_and_error(values):
    """A mean and its standard error, `std(values, ddof=1) / sqrt(n)`.

    Args:
        values: numbers; None and NaN are left out.

    Returns:
        mean: float, NaN without a value.
        error: float, NaN with fewer than two values.
    """
    values = np.asarray(list(values), dtype=float)
    values = values[np.isfinite(values)]
    mean = float(values.mean()) if len(values) else math.nan
    if len(values) < 2:
        return mean, math.nan
    return mean, float(values.std(ddof=1) / math.sqrt(len(values)))


def trunk_means(results, arm, score):
    """An arm's score on each trunk, the mean over head seeds.

    Args:
        results: list of result dicts of one experiment.
        arm: arm key.
        score: a key of `SCORE_LABELS`.

    Returns:
        means: dict `{(num_minority, episode): mean}`, NaN where no seed has the score.
    """
    seeds = {}
    for result in results:
        if result["arm"] == arm:
            trunk = (result["num_minority"], result["episode"])
            seeds.setdefault(trunk, []).append(result[score])
    return {trunk: mean_and_error(values)[0] for trunk, values in seeds.items()}


def spread_over(results):
    """What a standard error of these results is over.

    Args:
        results: list of result dicts of one experiment.

    Returns:
        unit: "trunks" where there are several, "head seeds" where there is one, None
            where everything ran once.
    """
    trunks = {(result["num_minority"], result["episode"]) for result in results}
    runs = {
        (result["num_minority"], result["episode"], result["seed"])
        for result in results
    }
    if len(runs) == len({result["num_minority"] for result in results}):
        return None
    return "trunks" if len(trunks) > 1 else "head seeds"


def arm_score(results, arm, score):
    """An arm's score over a whole experiment.

    Args:
        results: list of result dicts of one experiment, of all its arms.
        arm: arm key.
        score: a key of `SCORE_LABELS`.

    Returns:
        mean: over trunks, each the mean of its head seeds.
        error: its standard error over what `spread_over` says, NaN where that is None.
    """
    means = trunk_means(results, arm, score).values()
    unit = spread_over(results)
    if unit == "head seeds":
        return mean_and_error(r[score] for r in results if r["arm"] == arm)
    mean, error = mean_and_error(means)
    return mean, error if unit else math.nan


def scores_figure(results):
    """Figure 5 of Konno and Iwazume (2018): scores over the number of rare classes.

    Lines for the paper's five methods and "auto", with standard errors where a #Minor
    has several episodes. An experiment with one #Minor has nothing to draw a line over:
    it gets a row of dots for each arm instead, and a line where the oracle is.

    Args:
        results: list of result dicts of one experiment.

    Returns:
        figure: a `matplotlib.figure.Figure`.

    Raises:
        ValueError: the results are of no experiment, or of several.
    """
    experiments = {result["experiment"] for result in results}
    if len(experiments) != 1:
        raise ValueError(
            f"A figure shows the results of 1 experiment; received {len(results)} "
            f"results of {len(experiments)}. Draw one figure for each."
        )
    if len({result["num_minority"] for result in results}) > 1:
        figure = _line_figure(results)
    else:
        figure = _dot_figure(results)
    title = "\n".join(textwrap.wrap(experiments.pop(), 100))
    figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def _line_figure(results):
    figure = Figure(figsize=(9, 7.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True)
    results = [result for result in results if result["num_minority"] is not None]
    arms = [arm for arm in arms_of(results) if arm in _LINES]
    for axes, (score, name) in zip(panels.flat, SCORE_LABELS.items(), strict=True):
        for place, arm in enumerate(arms):
            # Side by side, so that one arm's bars do not hide another's.
            shift = 0.04 * (place - (len(arms) - 1) / 2)
            _draw_line(axes, trunk_means(results, arm, score), arm, shift)
        axes.set_xticks(sorted({result["num_minority"] for result in results}))
        axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
        _tidy(axes, name)
    repeated = len({result["episode"] for result in results}) > 1
    bars = " (bars: standard error over episodes)" if repeated else ""
    for axes in panels[1]:  # a label of the figure would lie below the legend
        axes.set_xlabel("#Minor, the number of rare classes")
    figure.supylabel(f"percent{bars}", fontsize=10)
    entries = panels.flat[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _draw_line(axes, means, arm, shift):
    episodes = {}
    for (number, _), mean in sorted(means.items()):
        episodes.setdefault(number, []).append(100 * mean)
    points = [mean_and_error(values) for values in episodes.values()]
    color, marker = _LINES[arm]
    axes.errorbar(
        [number + shift for number in episodes],
        [mean for mean, _ in points],
        [0 if math.isnan(error) else error for _, error in points],
        color=color,
        marker=marker,
        markersize=10 if marker == "*" else 5.5,
        linewidth=2 if arm in ("proposed", "auto") else 1.2,
        elinewidth=1,
        label=ARM_LABELS[arm],
    )


def _dot_figure(results):
    arms = arms_of(results)
    dots = [arm for arm in arms if arm != "oracle"]
    figure = Figure(figsize=(11, 1.8 + 0.24 * len(dots)), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    for axes, (score, name) in zip(panels, SCORE_LABELS.items(), strict=True):
        for row, arm in enumerate(dots):
            color, marker = _LINES.get(arm, _OTHER)
            mean, error = arm_score(results, arm, score)
            axes.errorbar(
                100 * mean,
                row,
                xerr=None if math.isnan(error) else 100 * error,
                color=color,
                marker=marker,
                markersize=10 if marker == "*" else 6,
                capsize=2,
            )
        if "oracle" in arms:
            oracle = 100 * arm_score(results, "oracle", score)[0]
            axes.axvline(oracle, color="0.2", linestyle="--", linewidth=1.2)
        axes.margins(x=0.08)
        _tidy(axes, name)
    panels[0].set_yticks(range(len(dots)), [ARM_LABELS.get(a, a) for a in dots])
    panels[0].set_ylim(len(dots) - 0.4, -0.6)
    unit = spread_over(results)
    notes = ["percent"]
    notes += [f"bars: standard error over {unit}"] if unit else ["one run"]
    notes += [f"dashed: {ARM_LABELS['oracle']}"] if "oracle" in arms else []
    figure.supxlabel("; ".join(notes), fontsize=10)
    return figure


def feature_space_figure(picture):
    """Figure 2 of Konno and Iwazume (2018): features of a rare class in the plane.

    The few real ones, the pseudo-features made from them, and the test examples that
    the pseudo-features are to stand for.

    Args:
        picture: dict with `real`, `pseudo` and `test`, lists of pairs, and with
            `experiment`, `num_minority`, `episode` and `class_id`.

    Returns:
        figure: a `matplotlib.figure.Figure`.
    """
    figure = Figure(figsize=(7, 5.6), layout="constrained")
    axes = figure.subplots()
    # Big while they are few; hundreds of big ones would hide what is below them.
    size = float(np.clip(8000 / max(len(picture["real"]), 1), 18, 62))
    for key, name, style in (
        ("pseudo", "pseudo-features", {"s": 7, "color": "#8ec4e8", "linewidths": 0}),
        ("test", "test examples", {"s": 10, "color": "#e69f00", "linewidths": 0}),
        (
            "real",
            "real training examples",
            {"s": size, "color": "#0b3c5d", "linewidths": 0.8, "edgecolors": "white"},
        ),
    ):
        points = np.reshape(np.asarray(picture[key], dtype=float), (-1, 2))
        axes.scatter(*points.T, label=f"{len(points):,} {name}", **style)
    cut = f"class {picture['class_id']}, episode {picture['episode']}"
    if picture["num_minority"] is not None:
        cut += f", #Minor {picture['num_minority']}"
    _tidy(axes, "\n".join([*textwrap.wrap(picture["experiment"], 70), cut]))
    axes.set(xlabel="first dimension", ylabel="second dimension")
    legend = figure.legend(loc="outside lower center", ncols=3, frameon=False)
    for handle in legend.legend_handles:
        handle.set_sizes([40])
    return figure


def _tidy(axes, title):
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
