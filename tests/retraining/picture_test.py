"""Tests for picture.py: what is drawn is what the report says."""

import dataclasses
import itertools
import sys

import pytest

from tests.made_up_report import made_up_report
from tf_pseudofeat.head.recipe import HeadRecipe


@pytest.fixture
def report():
    return made_up_report()


def test_plot_draws_recall_precision_and_the_loss_and_saves(report, tmp_path):
    figure = report.plot()
    figure.savefig(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    recall, precision, loss = figure.axes
    for axes, expected in [
        (recall, [98.7, 12.3, 0, 95, 75, 0]),
        (precision, [80, 60, 0, 90, 40, 0]),
    ]:
        heights = [bar.get_height() for bar in axes.patches]
        assert heights == pytest.approx(expected)
    assert names_below(recall) == ["0\n12,000", "1*\n30", "2\n0"]
    assert names_below(precision) == ["0\n75.0", "1*\n25.0", "2\n0.0"]
    (line,) = loss.get_lines()
    assert list(line.get_ydata()) == report.loss
    assert list(line.get_xdata()) == [4, 8, 12]  # three stretches of 12 epochs


def names_below(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def test_a_notebook_shows_the_plot(report):
    assert report.plot()._repr_png_().startswith(b"\x89PNG")


def test_long_names_of_classes_are_turned(report):
    short = report.plot().axes[0].get_xticklabels()
    names = tuple(f"a class with a long name {place}" for place in range(3))
    report = dataclasses.replace(report, class_names=names)
    long = report.plot().axes[0].get_xticklabels()
    assert [label.get_rotation() for label in (*short, *long)] == [0.0] * 3 + [90.0] * 3


@pytest.mark.parametrize(
    ("number", "count", "names"),
    [
        (3, 12_000, ["digit 0", "digit 1", "digit 2"]),
        (5, 12_000, [f"cats of {place}" for place in range(5)]),
        (10, 500, None),
        (10, 12_000, None),
        (20, 500, None),
    ],
)
def test_what_stands_below_the_bars_does_not_overlap(report, number, count, names):
    of_all = dict.fromkeys(("recall", "precision", "true_share"), [0.125] * number)
    report = dataclasses.replace(
        report,
        real=[count] * number,
        before=report.before | of_all,
        after=report.after | of_all,
        class_names=names,
    )
    figure = report.plot()
    figure._repr_png_()  # lays it out
    for axes in figure.axes[:2]:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert len(boxes) == number
        gaps = [right.x0 - left.x1 for left, right in itertools.pairwise(boxes)]
        assert min(gaps) > 4  # pixels


def test_plot_where_nothing_was_trained_has_no_loss(report):
    recipe = HeadRecipe(blend=1.0, tau=0.5)
    figure = dataclasses.replace(report, loss=[], recipe=recipe).plot()
    (line,) = figure.axes[2].get_lines()
    assert not len(line.get_ydata())


def test_plot_without_matplotlib_says_what_to_install(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install 'tf-pseudofeat"):
        report.plot()
