"""Tests for report.py: what is printed, saved and drawn is what was measured."""

import dataclasses
import html
import json
import re
import sys

import numpy as np
import pandas as pd
import pytest

from tests.made_up_report import made_up_report
from tf_pseudofeat.evaluation.comparison import (
    SCORE_NAMES,
    score_predictions,
    standard_errors,
)
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.gaussians.covariance import CovarianceReport
from tf_pseudofeat.head.recipe import HeadRecipe


@pytest.fixture
def report():
    return made_up_report()


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
        ("macro F1", "40.0", "40.0"),
        ("F1 of the minority", "30.0", "30.0"),
        ("average precision of the minority", "-", "-"),
        ("ROC-AUC", "87.5", "87.5"),
        ("log loss, nats", "0.432", "0.432"),
        ("Brier score", "0.250", "0.250"),
        ("calibration error", "6.2", "6.2"),
    ]:
        assert [*name.split(), before, after] in rows(report)


def test_table_holds_every_class_with_its_examples_and_its_shares(report):
    header = "class examples used pseudo recall after precision after true share"
    assert [*header.split(), "predicted", "after"] in rows(report)
    shares = ["75.0", "90.0", "90.0"]
    first = ["0", "12,000", "500", "0", "98.7", "95.0", "80.0", "90.0"]
    assert [*first, *shares] in rows(report)
    second = ["1*", "30", "30", "470", "12.3", "75.0", "60.0", "40.0"]
    assert [*second, "25.0", "10.0", "10.0"] in rows(report)


def test_classes_go_by_their_names(report):
    report = dataclasses.replace(report, class_names=("ok", "fraud", "other"))
    first = [line[0] for line in rows(report) if line]
    assert {"ok", "fraud*", "other"} < set(first)
    assert not {"0", "1*", "2"} & set(first)


def test_a_score_or_a_recall_that_has_no_value_is_a_dash(report):
    last = ["2", "0", "0", "0", "-", "-", "-", "0.0", "0.0", "0.0", "0.0"]
    assert last in rows(report)
    assert ["mean", "minority", "accuracy", "-", "-"] in rows(report)


def test_columns_of_the_table_line_up(report):
    for table in str(report).split("\n\n")[1:3]:
        assert len({len(line) for line in table.splitlines()}) == 1


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
    firsts = [line[:6] for line in rows(report)]
    assert ["0", "12,000", "12,000", "-11,970", "98.7", "95.0"] in firsts


def test_a_rollback_and_its_reason_stand_in_the_first_line(report):
    report = dataclasses.replace(report, kept=False, reason="recall fell")
    assert str(report).splitlines()[0].endswith("ROLLED BACK: recall fell.")


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"monitor": None}, "kept"),
        ({"monitor": "accuracy"}, r"kept for accuracy, \d\d\.\d -> \d\d\.\d"),
        ({"monitor": "share_found"}, "kept for share_found"),
        (
            {"scored_on": "training data"},
            "kept, with no validation data to judge it by",
        ),
    ],
)
def test_the_first_line_says_what_it_is_kept_for(report, fields, verdict):
    first = str(dataclasses.replace(report, **fields)).splitlines()[0]
    assert re.search(rf"of shape \[4\]: {verdict}\.$", first)


def test_to_dict_survives_json_with_every_field(report):
    report.after["mean_minority_accuracy"] = 0.0
    saved = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert set(saved) == {field.name for field in dataclasses.fields(report)}
    # JSON knows no NaN.
    assert saved["before"] == {**report.before, "mean_minority_accuracy": None}
    assert saved["after"] == report.after
    assert saved["prior"] == [0.5, 0.5, None]
    assert saved["real"] == report.real and saved["used"] == report.used
    assert saved["extraction"]["augment"] == "auto"
    assert saved["extraction"]["per_class"] == 500
    assert saved["feature_shape"] == [4]
    assert saved["class_names"] is saved["tuning"] is None
    assert isinstance(report.covariance, CovarianceReport)
    assert [c["count"] for c in saved["covariance"]["classes"]] == [10, 10]


def test_to_dict_without_gaussians_has_no_covariance(report):
    report = dataclasses.replace(report, covariance=None)
    assert json.loads(json.dumps(report.to_dict()))["covariance"] is None


def test_plot_of_a_rollback_says_so_and_bears_a_loss_of_nan(report, tmp_path):
    report = dataclasses.replace(report, kept=False, loss=[float("nan")])
    figure = report.plot()
    figure.savefig(tmp_path / "report.png")
    assert figure.axes[0].get_title("left").endswith("(rolled back)")


# ---- What it costs, in numbers and in words. -----------------------------------------


@pytest.fixture
def measured(report):
    """A report of two classifiers of 300 examples, whose scores are real ones."""
    rng = np.random.default_rng(0)
    ids = np.repeat([0, 1, 2], [200, 60, 40])
    logits = 2 * np.eye(3)[ids] + rng.normal(size=(300, 3)) + [2, 0, 0]
    before = Predictions(ids, logits, "linear")
    after = before.shifted([2.0, 0.0, 0.0])
    return dataclasses.replace(
        report,
        real=[2000, 600, 400],
        used=[500, 500, 400],
        pseudo=[0, 0, 100],
        minority=[1, 2],
        prior=[1 / 3] * 3,
        before=score_predictions(before, [1, 2]),
        after=score_predictions(after, [1, 2]),
        standard_error=standard_errors(before, after, [1, 2]),
        class_names=("ok", "fraud", "theft"),
    )


def test_what_is_said_of_a_head_that_is_gone_says_so(measured):
    gone = "For the new head, which was rolled back:"
    assert gone not in str(dataclasses.replace(measured, kept=True))
    report = dataclasses.replace(measured, kept=False, reason="recall fell")
    lines = str(report).splitlines()
    assert lines[lines.index(gone) + 1].startswith("Worse by more than chance")
    assert "The outputs assume" not in str(report)
    unmeasured = dataclasses.replace(report, standard_error={})
    assert gone not in str(unmeasured)  # which says nothing of it


def test_standard_errors_stand_beside_the_scores(measured):
    header = ["percent,", "on", "validation", "data", "before", "after", "+-"]
    assert header in rows(measured)
    error = measured.standard_error
    for line, name, factor in [
        ("balanced accuracy", "balanced_accuracy", 100),
        ("ROC-AUC", "roc_auc", 100),
        ("log loss, nats", "log_loss", 1),
    ]:
        (words,) = (w for w in rows(measured) if w[:-3] == line.split())
        numbers = [measured.before[name], measured.after[name], error[name]]
        expected = [factor * number for number in numbers]
        assert [float(word) for word in words[-3:]] == pytest.approx(expected, abs=0.05)


def test_sentences_say_what_it_costs(measured):
    recall, precision = (
        [100 * measured.before[name][0], 100 * measured.after[name][0]]
        for name in ("recall", "precision")
    )
    text = str(measured)
    assert f"recall of 'ok' {recall[0]:.1f} -> {recall[1]:.1f}" in text
    assert recall[0] > recall[1] + 5 and precision[0] < precision[1]
    (price,) = (line for line in text.splitlines() if line.startswith("Worse by more"))
    assert "precision of 'fraud'" in price
    assert "The outputs assume that all classes are equally common." in text


def test_notes_are_the_last_sentences(measured):
    notes = ["No decision changed.", "Look <here>."]
    lines = str(dataclasses.replace(measured, notes=notes)).splitlines()
    assert lines[-3:-1] == notes


def test_of_a_head_that_is_gone_no_prior_is_said(measured):
    report = dataclasses.replace(measured, kept=False, reason="recall fell")
    assert "The outputs assume" not in str(report)
    assert "Worse by more than chance" in str(report)


def test_on_training_data_nothing_is_said_to_be_worse(measured):
    report = dataclasses.replace(measured, standard_error={}, scored_on="training data")
    assert "chance" not in str(report)
    whole = dataclasses.replace(report, used=report.real, view_source="none")
    assert ["percent,", "on", "training", "data", "before", "after"] in rows(whole)


def test_scores_on_a_part_of_the_data_or_on_views_are_not_called_those_of_the_data(
    measured,
):
    part = dataclasses.replace(
        measured, standard_error={}, scored_on="training data", view_source="none"
    )
    assert "percent, on the examples used" in str(part)
    views = dataclasses.replace(part, view_source="augment")
    assert "percent, on views of the examples used" in str(views)
    everything = dataclasses.replace(views, used=views.real)
    assert "percent, on views of training data" in str(everything)
    assert "percent, on validation data" in str(measured)


def test_it_renders_what_it_prints(measured):
    report = dataclasses.replace(measured, notes=["Look <here>."])
    rendered = report._repr_html_()
    assert "<here>" not in rendered
    cells = re.findall(r"<t[hd] [^>]*>(.*?)</t[hd]>", rendered)
    text = str(report)
    tables = text.split("\n\n")[1:3]
    printed = " ".join(tables).split()
    assert " ".join(map(html.unescape, cells)).split() == printed
    for paragraph in (text.split("\n\n")[0], text.split("\n\n")[3]):
        for line in paragraph.splitlines():
            assert html.escape(line) in rendered


# ---- For trackers and data frames. ---------------------------------------------------


def test_metrics_are_flat_numbers_with_names_of_classes(measured):
    metrics = measured.metrics()
    assert {type(value) for value in metrics.values()} == {float}
    assert metrics["kept"] == 1.0
    for when in ("before", "after"):
        scores = getattr(measured, when)
        for name in SCORE_NAMES:
            assert metrics[f"{when}_{name}"] == scores[name]
        assert metrics[f"{when}_recall_of_fraud"] == scores["recall"][1]
        assert metrics[f"{when}_f1_of_theft"] == scores["class_f1"][2]
        areas = scores["class_average_precision"]
        assert metrics[f"{when}_average_precision_of_ok"] == areas[0]
        assert metrics[f"{when}_predicted_share_of_ok"] == scores["predicted_share"][0]
    assert len(metrics) == 1 + 2 * (len(SCORE_NAMES) + 5 * 3)


def test_metrics_without_a_value_are_left_out(report):
    metrics = dataclasses.replace(report, kept=False).metrics()
    assert metrics["kept"] == 0.0
    assert "before_average_precision" not in metrics  # None
    assert "before_mean_minority_accuracy" not in metrics  # NaN
    assert "before_recall_of_class_2" not in metrics
    assert metrics["before_recall_of_class_1"] == 0.123
    assert metrics["after_precision_of_class_2"] == 0.0
    json.dumps(metrics, allow_nan=False)


def test_a_frame_has_a_row_for_each_class(measured):
    frame = measured.to_frame()
    assert frame.index.tolist() == ["ok", "fraud", "theft"]
    assert frame.index.name == "class"
    assert frame["examples"].tolist() == measured.real
    assert frame["minority"].tolist() == [False, True, True]
    assert frame.loc["fraud", "recall_before"] == measured.before["recall"][1]
    assert frame.loc["theft", "f1_after"] == measured.after["class_f1"][2]
    assert (
        frame.loc["ok", "average_precision_after"]
        == (measured.after["class_average_precision"][0])
    )
    pairs = ["recall", "precision", "f1", "average_precision", "predicted_share"]
    assert set(frame.columns) == {
        *("examples", "used", "pseudo", "minority", "prior", "true_share"),
        *(f"{name}_{when}" for name in pairs for when in ("before", "after")),
    }


def test_a_frame_of_classes_without_names_goes_by_their_ids(report):
    frame = report.to_frame()
    assert frame.index.tolist() == [0, 1, 2]
    assert pd.isna(frame.loc[2, "recall_before"])
    assert frame["precision_after"].tolist() == [0.9, 0.4, 0.0]


def test_a_frame_without_pandas_says_what_to_install(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        report.to_frame()
