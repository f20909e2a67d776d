"""Tests for findings.py: what is said is what the numbers say."""

import numpy as np
import pytest

from tf_pseudofeat.evaluation.comparison import SCORE_NAMES
from tf_pseudofeat.evaluation.findings import (
    class_label,
    describe_few,
    describe_losses,
    describe_prior,
    describe_ranking,
    format_score,
    join_words,
    score_label,
)

CLASSES = 7


def scores(**changed):
    known = dict.fromkeys(SCORE_NAMES, 0.5)
    for name in ("recall", "precision"):
        known[name] = [0.5] * CLASSES
    return {**known, **changed}


# Student's t of 9 degrees of freedom is 2.26 at 97.5 percent.
ERROR = scores(**dict.fromkeys(SCORE_NAMES, 0.01))
ERROR |= {name: [0.01] * CLASSES for name in ("recall", "precision")}


def of_classes(**changed):
    values = [0.5] * CLASSES
    for place, value in changed.items():
        values[int(place.removeprefix("c"))] = value
    return values


# ---- The price. ----------------------------------------------------------------------


def test_what_is_worse_by_more_than_chance_is_named():
    after = scores(accuracy=0.477, f1=0.478, log_loss=0.523, roc_auc=0.9)
    assert describe_losses(scores(), after, ERROR) == (
        "Worse by more than chance: accuracy 50.0 -> 47.7; log loss 0.500 -> 0.523."
    )


@pytest.mark.parametrize("name", ["log_loss", "brier_score", "calibration_error"])
def test_of_a_loss_a_rise_is_worse(name):
    worse, better = scores(**{name: 0.6}), scores(**{name: 0.4})
    assert score_label(name) in describe_losses(scores(), worse, ERROR)
    assert (
        describe_losses(scores(), better, ERROR)
        == "Nothing is worse by more than chance."
    )


def test_classes_are_named_the_worst_first_and_others_are_counted():
    recall = of_classes(c1=0.40, c2=0.30, c4=0.45, c5=0.35, c6=0.46, c0=0.9)
    after = scores(recall=recall, precision=of_classes(c3=0.2))
    assert describe_losses(scores(), after, ERROR) == (
        "Worse by more than chance: recall of class 2 50.0 -> 30.0; recall of class 5 "
        "50.0 -> 35.0; recall of class 1 50.0 -> 40.0; recall of class 4 50.0 -> "
        "45.0; recall of 1 other class; precision of class 3 50.0 -> 20.0."
    )
    after = scores(recall=[0.1] * CLASSES)
    sentence = describe_losses(scores(), after, ERROR, list("abcdefg"))
    assert "recall of 'a' 50.0 -> 10.0" in sentence
    assert "recall of 3 other classes." in sentence


def test_what_has_no_value_or_no_error_is_not_worse():
    before = scores(recall=of_classes(c0=None), roc_auc=None)
    after = scores(precision=of_classes(c1=None), f1=None, accuracy=0.1)
    error = {**ERROR, "accuracy": None}
    assert (
        describe_losses(before, after, error) == "Nothing is worse by more than chance."
    )
    assert describe_losses(before, after, {}) == ""


# ---- Ranking. ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "area", "verdict"),
    [
        (0.6, 0.5, "Classes are ranked better: "),
        (0.6, 0.6, "Classes are ranked better: "),
        (0.4, 0.5, "Classes are ranked worse: "),
        (0.6, 0.4, "Classes are ranked differently, better and worse: "),
        (0.51, 0.49, "Classes are ranked as before ("),
    ],
)
def test_ranking_is_better_worse_or_as_before(precision, area, verdict):
    after = scores(average_precision=precision, roc_auc=area)
    first = f"average precision of the minority 50.0 -> {100 * precision:.1f}"
    second = f"ROC-AUC 50.0 -> {100 * area:.1f}"
    numbers = f"{first} and {second}."
    if "before" in verdict:
        numbers = (
            f"{numbers[:-1]}, within chance): only the decision threshold changed."
        )
    elif area == 0.5:
        numbers = f"{first} ({second}, within chance)."
    assert describe_ranking(scores(), after, ERROR) == f"{verdict}{numbers}"


@pytest.mark.parametrize("after", [scores(), scores(average_precision=None)])
def test_of_ranking_nothing_is_said_without_numbers(after):
    unknown = scores(average_precision=None, roc_auc=None)
    assert describe_ranking(unknown, after, ERROR) == ""
    assert describe_ranking(after, unknown, ERROR) == ""
    assert describe_ranking(scores(), scores(), {}) == ""


@pytest.mark.parametrize("moved", [True, False])
def test_of_ranking_it_is_said_what_changed(moved):
    numbers = "average precision of the minority 50.0 -> 50.0 and ROC-AUC 50.0 -> 50.0"
    start = "At equal class shares, classes" if moved else "Classes"
    what = "class shares" if moved else "decision threshold"
    same = describe_ranking(scores(), scores(), ERROR, moved=moved, decided=False)
    assert same == f"{start} are ranked as before ({numbers}, within chance)."
    other = describe_ranking(scores(), scores(), ERROR, moved=moved)
    assert other == f"{same[:-1]}: only the {what} changed."


def test_a_change_that_does_not_show_is_none():
    error = ERROR | {"average_precision": 1e-6, "roc_auc": 1e-6}
    after = scores(average_precision=0.5002, roc_auc=0.4998)
    sentence = describe_ranking(scores(), after, error)
    assert sentence.startswith("Classes are ranked as before (")


def test_of_one_number_ranking_goes_by_that():
    after = scores(average_precision=0.7, roc_auc=None)
    assert describe_ranking(scores(), after, ERROR) == (
        "Classes are ranked better: average precision of the minority 50.0 -> 70.0."
    )


# ---- The prior. ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prior", "counts", "sentence"),
    [
        ([0.5, 0.5], [90, 10], "The outputs assume that all classes are equally comm"),
        ([0.9, 0.1], [90, 10], "The outputs assume the class shares of the training d"),
        ([0.899, 0.101], [900, 100], "The outputs assume the class shares of the trai"),
        (
            [0.75, 0.25],
            [90, 10],
            "The outputs assume class shares of their own: class 1 25.0 percent, in "
            "the training data 10.0; class 0 75.0 percent, in the training data 90.0.",
        ),
        ([0.5, np.nan, 0.5], [90, 0, 10], "The outputs assume that all classes are"),
        ([0.9, 0.0, 0.1], [90, 0, 10], "The outputs assume the class shares of the"),
        ([np.nan, np.nan], [0, 0], ""),
        # Of balanced data, the classes that differ most.
        (
            [0.5, 0.2, 0.3],
            [10, 10, 10],
            "The outputs assume class shares of their own: class 1 20.0 percent, in "
            "the training data 33.3; class 0 50.0 percent, in the training data 33.3.",
        ),
    ],
)
def test_the_shares_that_outputs_assume(prior, counts, sentence):
    received = describe_prior(prior, counts)
    assert received.startswith(sentence) if sentence else received == ""


def test_shares_are_of_classes_by_name():
    sentence = describe_prior([0.75, 0.25], [90, 10], ("ok", "fraud"))
    assert "'fraud' 25.0 percent, in the training data 10.0; 'ok' 75.0" in sentence


# ---- Too few examples. ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "named"),
    [
        ([100, 9], "9 of class 1"),
        ([0, 100, 3], "0 of class 0 and 3 of class 2"),
        (
            [1, 2, 3, 4, 5, 6, 90],
            "1 of class 0, 2 of class 1, 3 of class 2, 4 of class 3 and few of 2 more",
        ),
    ],
)
def test_classes_of_fewer_than_ten_examples_are_named(counts, named):
    assert describe_few(counts) == (
        f"The validation data have {named}: scores of a class with fewer than 10 "
        f"examples are mostly chance."
    )


def test_ten_examples_are_enough():
    assert describe_few([100, 10]) == ""
    assert "9 of 'fraud'" in describe_few([100, 9], ["ok", "fraud"])


# ---- Words. --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("balanced_accuracy", "balanced accuracy"),
        ("macro_f1", "macro F1"),
        ("f1", "F1 of the minority"),
        ("roc_auc", "ROC-AUC"),
        ("average_precision", "average precision of the minority"),
        ("log_loss", "log loss"),
        ("brier_score", "Brier score"),
        ("my_own", "my own"),
    ],
)
def test_scores_have_names_that_people_use(name, label):
    assert score_label(name) == label


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.12345, "accuracy", "12.3"),
        (1.0, "f1", "100.0"),
        (0.12345, "log_loss", "0.123"),
        (1.5, "brier_score", "1.500"),
        (None, "f1", "-"),
        (float("nan"), "log_loss", "-"),
    ],
)
def test_shares_are_in_percent_and_losses_are_not(value, name, text):
    assert format_score(value, name) == text


@pytest.mark.parametrize(
    ("items", "text"),
    [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_a_row_of_things(items, text):
    assert join_words(items) == text


def test_a_class_is_called_by_its_name_or_its_id():
    assert class_label(1, None) == "class 1"
    assert class_label(1, ["ok", "fraud"]) == "'fraud'"
