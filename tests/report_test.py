"""Tests for report.py: what is printed, saved and drawn is what was measured."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from tf_pseudofeat.covariance import CovarianceReport, estimate_covariance
from tf_pseudofeat.extraction import Extraction
from tf_pseudofeat.moments import moments_of
from tf_pseudofeat.recipe import HeadRecipe
from tf_pseudofeat.report import RetrainingReport


def scores(recall):
    known = [value for value in recall if value is not None]
    return {
        "accuracy": 0.912,
        "balanced_accuracy": float(np.mean(known)),
        "geometric_mean": 0.5,
        "mean_minority_accuracy": float("nan"),
        "min_class_accuracy": min(known),
        "recall": recall,
    }


def covariance_report():
    features = np.random.default_rng(0).normal(size=(20, 3))
    moments = moments_of(features, np.repeat([0, 1], 10), 2, "full")
    return estimate_covariance(moments).report


@pytest.fixture
def report():
    return RetrainingReport(
        layer_name="features",
        feature_shape=(4,),
        real=[12_000, 30, 0],
        used=[500, 30, 0],
        pseudo=[0, 470, 0],
        minority=[1],
        prior=[0.5, 0.5, float("nan")],
        scored_on="validation data",
        before=scores([0.987, 0.123, None]),
        after=scores([0.95, 0.75, None]),
        kept=True,
        reason="",
        loss=[0.9, 0.7, 0.6],
        recipe=HeadRecipe(epochs=12, blend=0.2, tau=0.5),
        extraction=Extraction(per_class=500),
        view_source="small shifts of images",
        monitor=None,
        seed=(1, 2),
        optimizer="Adam",
        learning_rate=0.001,
        seconds={"extract": 1.23, "train": 4.0},
        covariance=covariance_report(),
    )


def rows(report):
    """The printed lines, each as a list of its words."""
    return [line.split() for line in str(report).splitlines()]


def test_table_holds_every_score_before_and_after_in_percent(report):
    assert ["percent,", "on", "validation", "data", "before", "after"] in rows(report)
    for name, before, after in [
        ("accuracy", "91.2", "91.2"),
        ("balanced accuracy", "55.5", "85.0"),
        ("geometric mean", "50.0", "50.0"),
        ("min class accuracy", "12.3", "75.0"),
    ]:
        assert [*name.split(), before, after] in rows(report)


def test_table_holds_every_class_with_its_examples_and_recalls(report):
    assert ["class", "examples", "used", "pseudo", "recall", "after"] in rows(report)
    assert ["0", "12,000", "500", "0", "98.7", "95.0"] in rows(report)
    assert ["1*", "30", "30", "470", "12.3", "75.0"] in rows(report)


def test_a_score_or_a_recall_that_has_no_value_is_a_dash(report):
    assert ["2", "0", "0", "0", "-", "-"] in rows(report)
    assert ["mean", "minority", "accuracy", "-", "-"] in rows(report)


def test_columns_of_the_table_line_up(report):
    table = str(report).split("\n\n")[2].splitlines()
    assert len({len(line) for line in table}) == 1


def test_first_line_says_what_was_done_and_last_line_how_long_it_took(report):
    first, *_, last = str(report).splitlines()
    assert first == (
        "Head after 'features' retrained on 530 real and 470 pseudo-features of shape "
        "[4]: kept."
    )
    assert last == "* minority. Seconds: extract 1.2, train 4.0."


def test_second_line_says_how(report):
    assert str(report).splitlines()[1] == (
        "Views: small shifts of images; at most 500 examples a class; blend 0.2; tau "
        "0.5."
    )
    recipe, extraction = HeadRecipe.paper(), Extraction.plain()
    report = dataclasses.replace(
        report, recipe=recipe, extraction=extraction, view_source="none"
    )
    assert str(report).splitlines()[1] == "Views: none; blend 0; tau 0."


def test_examples_that_a_sampler_took_away_are_not_counted_as_trained_on(report):
    report = dataclasses.replace(report, used=[12_000, 30, 0], pseudo=[-11_970, 20, 0])
    assert "retrained on 60 real and 20 pseudo-features" in str(report)
    assert ["0", "12,000", "12,000", "-11,970", "98.7", "95.0"] in rows(report)


def test_a_rollback_and_its_reason_stand_in_the_first_line(report):
    report = dataclasses.replace(report, kept=False, reason="recall fell")
    assert str(report).splitlines()[0].endswith("ROLLED BACK: recall fell.")


def test_to_dict_survives_json_with_every_field(report):
    # Without the NaN, which differs from itself.
    report.before["mean_minority_accuracy"] = report.after["mean_minority_accuracy"] = 0
    saved = json.loads(json.dumps(report.to_dict()))
    assert set(saved) == {field.name for field in dataclasses.fields(report)}
    assert saved["before"] == report.before
    assert saved["real"] == report.real and saved["used"] == report.used
    assert saved["extraction"]["augment"] == "auto"
    assert saved["extraction"]["per_class"] == 500
    assert saved["feature_shape"] == [4]
    assert isinstance(report.covariance, CovarianceReport)
    assert [c["count"] for c in saved["covariance"]["classes"]] == [10, 10]


def test_to_dict_without_gaussians_has_no_covariance(report):
    report = dataclasses.replace(report, covariance=None)
    assert json.loads(json.dumps(report.to_dict()))["covariance"] is None


def test_plot_draws_the_recalls_and_the_loss_and_saves(report, tmp_path):
    figure = report.plot()
    figure.savefig(tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    recall, loss = figure.axes
    heights = [bar.get_height() for bar in recall.patches]
    assert heights == pytest.approx([98.7, 12.3, 0, 95, 75, 0])
    names = [label.get_text() for label in recall.get_xticklabels()]
    assert names == ["0\n12,000", "1*\n30", "2\n0"]
    (line,) = loss.get_lines()
    assert list(line.get_ydata()) == report.loss
    assert list(line.get_xdata()) == [4, 8, 12]  # three stretches of 12 epochs


def test_plot_of_a_rollback_says_so_and_bears_a_loss_of_nan(report, tmp_path):
    report = dataclasses.replace(report, kept=False, loss=[float("nan")])
    figure = report.plot()
    figure.savefig(tmp_path / "report.png")
    assert figure.axes[0].get_title("left").endswith("(rolled back)")


def test_plot_without_matplotlib_says_what_to_install(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install 'tf-pseudofeat"):
        report.plot()
