"""Tables, verdicts and figures from the results files of `examples/compare.py`.

    python -m examples.tables --results=a.jsonl --results=b.jsonl

Prints the tables and writes `tables.md` to --output_dir, with `figure5_*.png` for each
experiment and `figure2_*.png` for each picture of a feature space.

    python -m examples.tables --results=a.jsonl --paper=PAPER.json

writes `beside_the_paper.md` instead: Tables 1 to 4 with the paper's numbers. These come
from a file of the form {"source": "...", "columns": ["num_minority", "baseline", ...],
"accuracy": [[1, 0.8, ...], ...], "multiplicative_average": ..., ...}.
"""

import math
import pathlib
import re
import sys

from absl import app, flags

from .figures import (
    SCORE_LABELS,
    arm_score,
    arms_of,
    feature_space_figure,
    scores_figure,
)
from .paired_tests import paired_table
from .paper_tables import beside_paper, paper_tables, read_paper
from .results_file import read_results
from .table_parts import (
    by_experiment,
    embolden,
    error_cell,
    label,
    markdown_table,
    minors_of,
    number_cell,
    part_note,
    spread_note,
)
from .verdicts import gap_share, verdicts

__all__ = ["summary", "write_tables"]

FLAGS = flags.FLAGS


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
    return "\n".join(map(_summary, by_experiment(results)))


def _summary(results):
    arms = arms_of(results)
    columns = []
    for score in SCORE_LABELS:
        scores = {arm: arm_score(results, arm, score) for arm in arms}
        columns.append(
            {a: number_cell(100 * m) + error_cell(e) for a, (m, e) in scores.items()}
        )
    shares = {arm: gap_share(results, arm) for arm in arms}
    columns.append({a: "" if math.isnan(v) else f"{v:.0f}" for a, v in shares.items()})
    complete = [arm for arm in arms if not part_note(results, arm) and arm != "oracle"]
    for column in columns:
        embolden(column, complete)
    rows = [
        [label(arm) + part_note(results, arm), *(column[arm] for column in columns)]
        for arm in arms
    ]
    header = ["arm", *SCORE_LABELS.values(), "share of the gap to the oracle"]
    caption = (
        f"**{results[0]['experiment']}: all arms.** Percent; {spread_note(results)}"
    )
    return markdown_table(f"{caption} Bold: best but for the oracle.", header, rows)


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
    for group in by_experiment(results):
        name = _file_name("figure5", group[0]["experiment"], files)
        scores_figure(group).savefig(output_dir / name, dpi=120)
        rivals = [arm for arm in arms_of(group) if arm != "oracle"]
        by_minor = paper_tables(group) if len(minors_of(group)) > 1 else ""
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
