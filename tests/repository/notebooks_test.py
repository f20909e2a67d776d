"""The notebooks of `docs/notebooks`: they run, and show what they print."""

import copy
import re
import runpy
import types

import numpy as np
import pytest

from tests.forked_kernel import forked_kernels
from tests.paths import ROOT

pytest.importorskip("nbclient", reason="the extra `test` has nbclient")
nbformat = pytest.importorskip("nbformat", reason="the extra `test` has nbformat")

PROGRAM = "python docs/notebooks/run.py"
RUN = types.SimpleNamespace(**runpy.run_path(str(ROOT / "docs/notebooks/run.py")))
FILES = {path.stem: path for path in RUN.files()}
REPOSITORY = "https://github.com/owner/repository"

# What the text says of the numbers, in the names of each notebook.
CLAIMS = {
    "digits_in_ten_lines": """
rare = "mean_minority_accuracy"
assert report.minority == [5, 6, 7, 8, 9] and report.scored_on == "validation data"
assert report.after[rare] > report.before[rare] + 0.05
assert any("Logit adjustment" in sentence for sentence in report.notes)
""",
    "fine_tune_export_and_serve": """
assert report.kept and (before, after) == ("served/1", "served/2")
assert np.abs(difference).max() < 1e-4
right = [np.argmax(a["probabilities"], axis=1) == y_test for a in answers.values()]
assert right[1][y_test >= 5].mean() > right[0][y_test >= 5].mean()
""",
    "table_where_the_threshold_decides": """
remedies = {remedy.name: remedy for remedy in diagnosis.remedies}
plain, moved = remedies["as it is"], remedies["a threshold of its own"]
assert 0.015 < np.mean(canceled) < 0.03
assert plain.scores["accuracy"] > 0.95 and plain.scores["recall"][1] < 0.1
assert moved.score > 2 * plain.score and diagnosis.recommended is moved
for name in ("logit adjustment, tau 1", "retraining, by default"):
    scores = remedies[name].scores
    assert scores["balanced_accuracy"] > plain.scores["balanced_accuracy"] + 0.1
    assert scores["predicted_share"][1] > 5 * y_val.mean()
    assert remedies[name].score < moved.score
ranked = [remedy.scores["average_precision"] for remedy in remedies.values()]
assert max(ranked) - min(ranked) < 0.05
assert not report.kept
f1, ranked = ({name: row[k] for name, row in rows.items()} for k in (0, 1))
assert f1["with the threshold"] > 1.5 * max(f1["as it is"], f1["head retrained"])
assert abs(ranked["as it is"] - ranked["head retrained"]) < 5
""",
}


@pytest.fixture(params=FILES)
def name(request):
    return request.param


def checked_in(name):
    return nbformat.read(FILES[name], as_version=4)


def ran(folder):
    """{name: notebook}, run, and after each what its text claims."""
    notebooks = {name: checked_in(name) for name in FILES}
    for name, notebook in notebooks.items():
        notebook.cells.append(nbformat.v4.new_code_cell(CLAIMS[name]))
    run = folder / "run"
    run.mkdir()
    with forked_kernels(folder / "log"):
        RUN.execute(notebooks.values(), run)
    for notebook in notebooks.values():
        del notebook.cells[-1]
        RUN.clean(notebook, None)
    return notebooks


def shown(notebook):
    """What kinds of output each code cell has."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        [
            out.get("name") or (out.output_type, *sorted(out.data))
            for out in cell.outputs
        ]
        for cell in cells
    ]


def rows(notebook):
    """The rows of all tables, each a label and the numbers beside it."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for row in re.findall(
                r"<tr.*?>(.*?)</tr>", output.get("data", {}).get("text/html", ""), re.S
            ):
                label, *cells = re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row, re.S)
                numbers = [cell.replace(",", "") for cell in cells]
                if all(re.fullmatch(r"[+-]?\d+(\.\d+)?", cell) for cell in numbers):
                    yield label, [float(cell) for cell in numbers]


@pytest.mark.slow
@pytest.mark.tensorflow(reason="the outputs of the notebooks")
def test_they_run_and_show_what_is_checked_in(tmp_path):
    """One test for all, as they share a process."""
    for name, again in ran(tmp_path).items():
        notebook = checked_in(name)
        assert shown(again) == shown(notebook), name
        old, new = list(rows(notebook)), list(rows(again))
        assert old and [label for label, _ in new] == [label for label, _ in old], name
        for (label, numbers), (_, others) in zip(old, new, strict=True):
            # Percents, and counts; another machine trains another network.
            np.testing.assert_allclose(others, numbers, 0.3, 20, err_msg=label)


def test_its_outputs_are_those_of_its_code(name):
    notebook = checked_in(name)
    assert notebook.metadata["ran"] == RUN.digest(notebook), f"run {PROGRAM}"
    assert sum(map(len, shown(notebook))) >= 2
    again = copy.deepcopy(notebook)
    RUN.clean(again, RUN.badge(RUN.source(), FILES[name].name))
    assert again == notebook, f"run {PROGRAM}"


def test_it_can_be_read_by_others(name):
    notebook = checked_in(name)
    nbformat.validate(notebook)
    text = FILES[name].read_text("utf-8")
    assert "\\r" not in text and str(ROOT) not in text  # no progress bar, no path
    assert notebook.cells[0].source.startswith("# ")
    assert notebook.cells[1].source.startswith("# %pip install")


@pytest.mark.parametrize("source", [REPOSITORY, f"{REPOSITORY}/", f"{REPOSITORY}.git"])
def test_the_badge_leads_to_the_notebook(source):
    line = RUN.badge(source, "a.ipynb")
    path = "github/owner/repository/blob/main/docs/notebooks/a.ipynb"
    assert line.endswith(f"](https://colab.research.google.com/{path})")
    once = RUN.with_badge("# Title\n\nText.\n\nMore.", line)
    assert once == f"# Title\n\n{line}\n\nText.\n\nMore."
    assert RUN.with_badge(once, line) == once
    assert RUN.with_badge(once, None) == "# Title\n\nText.\n\nMore."


@pytest.mark.parametrize("source", [None, "", "https://gitlab.com/owner/repository"])
def test_there_is_no_badge_that_leads_nowhere(source):
    assert RUN.badge(source, "a.ipynb") is None


def test_code_that_is_newer_than_its_outputs_is_seen():
    notebook = checked_in("digits_in_ten_lines")
    notebook.cells[0].source += " And more text."
    assert notebook.metadata["ran"] == RUN.digest(notebook)
    code = [cell.cell_type for cell in notebook.cells]
    notebook.cells[code.index("code")].source += "\nimport os"
    assert notebook.metadata["ran"] != RUN.digest(notebook)
