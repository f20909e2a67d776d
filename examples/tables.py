"""Tables, verdicts and figures from the results files of `examples/compare.py`.

    python -m examples.tables --results=a.jsonl --results=b.jsonl

Prints the tables and writes `tables.md` to --output_dir, with `figure5_*.png` for each
experiment and `figure2_*.png` for each picture of a feature space.

    python -m examples.tables --results=a.jsonl --paper=PAPER.json

writes `beside_the_paper.md` instead: Tables 1 to 4 with the paper's numbers. These come
from a file of the form {"source": "...", "columns": ["num_minority", "baseline", ...],
"accuracy": [[1, 0.8, ...], ...], "multiplicative_average": ..., ...}.
"""

import dataclasses
import json
import math
import pathlib
import re
import sys
import warnings

import numpy as np
import scipy.stats
from absl import app, flags

from .figures import (
    ARM_LABELS,
    SCORE_LABELS,
    arm_score,
    arms_of,
    feature_space_figure,
    mean_and_error,
    scores_figure,
    spread_over,
    trunk_means,
)

__all__ = [
    "ARM_LABELS",
    "SCORE_LABELS",
    "PairedDifference",
    "beside_paper",
    "paired",
    "paired_table",
    "paper_tables",
    "read_paper",
    "read_results",
    "summary",
    "verdicts",
    "write_tables",
]

FLAGS = flags.FLAGS

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
_KEYS = {
    "result": ("experiment", "num_minority", "episode", "seed", "arm", *SCORE_LABELS),
    "picture": (
        *("experiment", "num_minority", "episode", "class_id"),
        *("real", "pseudo", "test"),
    ),
}


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_multi_string(
        "results",
        None,
        "Results file of examples/compare.py; repeat it, or use commas.",
    )
    flags.DEFINE_string("output_dir", None, "By default the folder of the first file.")
    flags.DEFINE_string("paper", None, "JSON file of the paper's Tables 1 to 4.")
    flags.DEFINE_multi_string("note", [], "A difference to the paper, to be listed.")
    flags.mark_flag_as_required("results")


def read_results(*paths):
    """Reads results files, each line of which is a JSON object.

    Of lines for the same run the last one stands: an interrupted comparison repeats
    runs. A line that was torn when its writer was killed is skipped with a warning.

    Args:
        *paths: results files, read in this order.

    Returns:
        results: list of result dicts, one for each run of an arm.
        pictures: list of picture dicts, one for each trunk that has one.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a line lacks a key, or the files hold nothing.
    """
    results, pictures, skipped = {}, {}, 0
    for path in map(pathlib.Path, paths):
        if not path.is_file():
            raise FileNotFoundError(
                f"no results file {str(path)!r}; expected one that "
                "`python -m examples.compare` wrote."
            )
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            entry = _parsed(line)
            if entry is None:
                skipped += 1
                warnings.warn(f"{path}:{number}: skipped a torn line.", stacklevel=2)
                continue
            _check_entry(entry, f"{path}:{number}")
            run = (entry["experiment"], entry["num_minority"], entry["episode"])
            if entry["kind"] == "picture":
                pictures[run] = entry
            else:
                results[*run, entry["seed"], entry["arm"]] = entry
    if not results and not pictures:
        raise ValueError(
            f"{', '.join(map(str, paths)) or 'no file'}: holds no result "
            f"({skipped} torn lines); expected one JSON object a line, as "
            "`python -m examples.compare` writes them."
        )
    return list(results.values()), list(pictures.values())


def _parsed(line):
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _check_entry(entry, where):
    kind = entry.get("kind")
    if kind not in _KEYS:
        raise ValueError(
            f"{where}: kind is {kind!r}, expected one of {sorted(_KEYS)}; give files "
            "that `python -m examples.compare` wrote."
        )
    missing = [key for key in _KEYS[kind] if key not in entry]
    if missing:
        raise ValueError(
            f"{where}: a {kind} without {missing}, expected {list(_KEYS[kind])}; "
            "remove the line and run `python -m examples.compare` again."
        )


def summary(results):
    """All arms of each experiment in one table of four scores.

    Scores are means over trunks, each the mean of its head seeds, with the standard
    error that the caption names. The share of the gap is that of the accuracy:

        (accuracy(arm) - accuracy(baseline)) / (accuracy(oracle) - accuracy(baseline))

    over the trunks where all three ran. An arm that did not run on every trunk says so
    and is not compared with the others.

    Args:
        results: list of result dicts.

    Returns:
        text: Markdown, a caption and a table for each experiment.
    """
    return "\n".join(map(_summary, _by_experiment(results)))


def _summary(results):
    arms = arms_of(results)
    columns = []
    for score in SCORE_LABELS:
        scores = {arm: arm_score(results, arm, score) for arm in arms}
        columns.append(
            {a: _number(100 * m) + _error(e) for a, (m, e) in scores.items()}
        )
    shares = {arm: _gap_share(results, arm) for arm in arms}
    columns.append({a: "" if math.isnan(v) else f"{v:.0f}" for a, v in shares.items()})
    complete = [arm for arm in arms if not _part(results, arm) and arm != "oracle"]
    for column in columns:
        _embolden(column, complete)
    rows = [
        [_label(arm) + _part(results, arm), *(column[arm] for column in columns)]
        for arm in arms
    ]
    header = ["arm", *SCORE_LABELS.values(), "share of the gap to the oracle"]
    caption = f"**{results[0]['experiment']}: all arms.** Percent; {_spread(results)}"
    return _table(f"{caption} Bold: best but for the oracle.", header, rows)


def _gap_ends(results, arm):
    """Accuracy of arm, baseline and oracle where all three ran, NaN where none did."""
    means = [trunk_means(results, a, "accuracy") for a in (arm, "baseline", "oracle")]
    common = [
        values
        for trunk in means[0]
        if np.isfinite(values := [mean.get(trunk, math.nan) for mean in means]).all()
    ]
    return np.mean(common, axis=0) if common else np.full(3, math.nan)


def _gap_share(results, arm):
    """Percent of the way from the baseline to the oracle, NaN where there is none."""
    ours, baseline, oracle = _gap_ends(results, arm)
    gap = oracle - baseline
    return 100 * (ours - baseline) / gap if gap > 0 else math.nan


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
        for group in _by_experiment(results)
        for number, score in enumerate(SCORE_LABELS, start=1)
    )


def _paper_table(number, score, results):
    arms = [arm for arm in _PAPER_ARMS if arm in arms_of(results)]
    minors = sorted(_minors(results))
    columns = []
    for minor in minors:
        group = [result for result in results if result["num_minority"] == minor]
        columns.append({arm: arm_score(group, arm, score)[0] for arm in arms})
    # A row with a hole has no average: it would be over other columns than the rest.
    columns.append({a: float(np.mean([c[a] for c in columns])) for a in arms})
    columns = [{a: _number(100 * v) for a, v in column.items()} for column in columns]
    for column in columns:
        _embolden(column, arms)
    rows = [[_label(arm), *(column[arm] for column in columns)] for arm in arms]
    episodes = [sum(n == minor for n, _ in _trunks(results)) for minor in minors]
    least = f"{min(episodes)} to " if min(episodes) < max(episodes) else ""
    caption = (
        f"**{results[0]['experiment']}: Table {number}, {SCORE_LABELS[score]}** by "
        f"#Minor, percent, mean of {least}{_count(max(episodes), 'episode')}."
    )
    return _table(caption, ["method", *map(str, minors), "average"], rows)


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
    for group in _by_experiment(results):
        minors = sorted(_minors(group) & paper["accuracy"].keys())
        if not minors:
            continue
        episodes = sum(n in minors for n, _ in _trunks(group))
        differences = [
            f"Ours: {group[0]['experiment']}; {_count(episodes, 'network')} for "
            f"{_count(len(minors), 'number')} of minority classes.",
            f"The paper's: {source}.",
            "Under-sampling: the paper trains the whole network on the small set, "
            f"which is {_label('scratch')!r} here.",
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
    rows = [[_label(arm), *_side_by_side(ours[arm], theirs[arm])] for arm in arms]
    if {"baseline", "proposed"} <= set(arms):
        gains = [each["proposed"] - each["baseline"] for each in (ours, theirs)]
        rows.append(["proposed minus as trained", *_side_by_side(*gains, sign="+")])
    for arm in (arm for arm in ours if arm not in theirs):  # ours alone
        means = 100 * np.append(ours[arm], ours[arm].mean())
        rows.append([_label(arm), *map(_number, means)])
    caption = (
        f"**Table {number}, {SCORE_LABELS[score]}** by #Minor, percent: ours / the "
        "paper's; ours alone of what the paper has not."
    )
    return _table(caption, ["method", *map(str, minors), "average"], rows)


def _side_by_side(ours, theirs, sign=""):
    """Cells of a row: our numbers / the paper's, which are whole, and their means."""

    def cell(a, b, digits):
        a = "-" if math.isnan(a) else f"{100 * a:{sign}.1f}"
        return f"{a} / {100 * b:{sign}.{digits}f}"

    cells = [cell(a, b, 0) for a, b in zip(ours, theirs, strict=True)]
    return [*cells, cell(ours.mean(), theirs.mean(), 1)]


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
        return f"{100 * self.mean:+.1f}{_error(self.standard_error)}{note}"


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
        for group in _by_experiment(results)
        if arm in arms_of(group)
    )


def _paired_table(results, arm, rivals):
    rows = []
    for rival in rivals:
        cells = [paired(results, arm, rival, score) for score in SCORE_LABELS]
        most = max(cells, key=lambda cell: cell.n)
        rows.append([_label(rival), *map(str, cells), _pairs(most)])
    caption = (
        f"**{results[0]['experiment']}: {_label(arm)} minus each rival.** Mean paired "
        "difference in percentage points ± its standard error, and the p-value of a "
        "paired t-test, not corrected for the number of comparisons."
    )
    if any(row[-1].endswith("seeds") for row in rows):
        caption += " Pairs of head seeds share one trunk and say nothing about others."
    return _table(caption, ["rival", *SCORE_LABELS.values(), "pairs"], rows)


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
        for group in _by_experiment(results)
    )


def _gap_verdict(results):
    absent = {"baseline", "default", "oracle"} - set(arms_of(results))
    if absent:
        return f"The gap to the oracle is unknown: no result of {_labels(absent)}."
    share = _gap_share(results, "default")
    _, baseline, oracle = (_number(100 * end) for end in _gap_ends(results, "default"))
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
                scores.append(f"{name} {100 * difference.mean:+.1f}{_error(error)}")
        if scores:
            note = _part(results, rival)
            above.append(f"{_label(rival)}{note}: {', '.join(scores)}")
    by = "more than one standard error of the paired difference"
    if alone:
        by += ", or by anything where one run has no standard error"
    who = "; ".join(above) or "none"
    return f"Of {_count(len(rivals), 'rival')}, above the default by {by}: {who}."


def _smote_verdict(results):
    absent = {"proposed", "smote"} - set(arms_of(results))
    if absent:
        return f"proposed and SMOTE are not compared: no result of {_labels(absent)}."
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
    return f"proposed against SMOTE, over {_pairs(most)}: {words}."


def write_tables(results, pictures, output_dir):
    """Writes `tables.md`, a figure 5 for each experiment, a figure 2 for each picture.

    Args:
        results: list of result dicts.
        pictures: list of picture dicts.
        output_dir: folder, made where it is missing.

    Returns:
        text: what stands in `tables.md`.
    """
    output_dir = pathlib.Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    files, sections = set(), []
    for group in _by_experiment(results):
        name = _file_name("figure5", group[0]["experiment"], files)
        scores_figure(group).savefig(output_dir / name, dpi=120)
        rivals = [arm for arm in arms_of(group) if arm != "oracle"]
        by_minor = paper_tables(group) if len(_minors(group)) > 1 else ""
        sections += [
            f"## {group[0]['experiment']}\n",
            verdicts(group),
            summary(group),
            f"![Scores of each arm]({name})\n",
            by_minor,
            *(
                paired_table(group, arm, [rival for rival in rivals if rival != arm])
                for arm in ("default", "proposed")
            ),
        ]
    for picture in pictures:
        minor, trunk = picture["num_minority"], f"episode{picture['episode']}"
        trunk = trunk if minor is None else f"minor{minor} {trunk}"
        name = _file_name("figure2", f"{picture['experiment']} {trunk}", files)
        feature_space_figure(picture).savefig(output_dir / name, dpi=120)
        sections.append(f"![Feature space of class {picture['class_id']}]({name})\n")
    text = "\n".join(section for section in sections if section)
    (output_dir / "tables.md").write_text(text, encoding="utf-8")
    return text


def _file_name(figure, title, taken):
    """A file name that says what is shown and is not among those taken."""
    slug = re.sub(r"[^a-z0-9.]+", "_", title.lower()).strip("_.") or "experiment"
    stem, count = f"{figure}_{slug}"[:120], 1
    name = f"{stem}.png"
    while name in taken:
        count += 1
        name = f"{stem}_{count}.png"
    taken.add(name)
    return name


def _by_experiment(results):
    """The results of each experiment, in the order in which experiments appear."""
    groups = {}
    for result in results:
        groups.setdefault(result["experiment"], []).append(result)
    return list(groups.values())


def _trunks(results, arm=None):
    return {
        (r["num_minority"], r["episode"]) for r in results if arm in (None, r["arm"])
    }


def _minors(results):
    return {result["num_minority"] for result in results}


def _spread(results):
    """What ± means in a table of these results."""
    unit, trunks = spread_over(results), len(_trunks(results))
    if unit is None:
        return "one run." if trunks == 1 else "one run for each #Minor."
    if unit == "head seeds":
        seeds = len({result["seed"] for result in results})
        return (
            f"one trunk; mean ± standard error over its {_count(seeds, 'head seed')}, "
            "which says nothing about other trunks."
        )
    apart = ", whose #Minor differ" if len(_minors(results)) > 1 else ""
    return (
        f"mean ± standard error over {trunks} trunks{apart}; a trunk's score is the "
        "mean of its head seeds."
    )


def _part(results, arm):
    """A note for an arm that did not run on every trunk."""
    ran, all_trunks = len(_trunks(results, arm)), len(_trunks(results))
    return "" if ran == all_trunks else f" ({ran} of {all_trunks} trunks)"


def _label(arm):
    return ARM_LABELS.get(arm, arm)


def _labels(arms):
    return ", ".join(_label(arm) for arm in ARM_LABELS if arm in arms)


def _is_number(value):
    return value is not None and math.isfinite(value)


def _number(value):
    return "-" if math.isnan(value) else f"{value:.1f}"


def _error(error):
    return "" if math.isnan(error) else f" ± {100 * error:.1f}"


def _count(number, noun):
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _embolden(column, arms):
    """Bolds the highest number that a column shows for these arms, and its equals."""
    shown = {a: float(column[a].split()[0]) for a in arms if column[a] not in ("", "-")}
    for arm, number in shown.items():
        if number == max(shown.values()):
            column[arm] = f"**{column[arm]}**"


def _pairs(difference):
    return f"{difference.n} {difference.unit}" if difference.n > 1 else "1 run"


def _table(caption, header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return f"{caption}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    paths = [path for value in FLAGS.results for path in value.split(",")]
    output_dir = pathlib.Path(FLAGS.output_dir or pathlib.Path(paths[0]).parent)
    try:
        results, pictures = read_results(*paths)
        if FLAGS.paper:
            source, paper = read_paper(FLAGS.paper)
            text = beside_paper(results, paper, source, FLAGS.note)
            output_dir.mkdir(parents=True, exist_ok=True)
            (output_dir / "beside_the_paper.md").write_text(text, encoding="utf-8")
            print(f"{text}\nWrote {output_dir}/beside_the_paper.md.")
            return
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    print(write_tables(results, pictures, output_dir))
    print(f"Wrote {output_dir}/tables.md and its figures.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
