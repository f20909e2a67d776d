"""Tests for scores.py: against scikit-learn and imbalanced-learn."""

import numpy as np
import pytest
from imblearn.metrics import geometric_mean_score
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
)

from tests.guesses import FORMS, GUESS, MINORITY, NUM_CLASSES, TRUTH
from tf_pseudofeat.evaluation import scores


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_the_scores_are_those_of_the_libraries(form, weighted):
    weight = np.random.default_rng(1).random(80) if weighted else None
    own = {"sample_weight": weight}
    precisions, recalls, f1s, _ = precision_recall_fscore_support(TRUTH, GUESS, **own)
    counted = np.ones(80) if weight is None else weight
    expected = {
        "accuracy": accuracy_score(TRUTH, GUESS, **own),
        "balanced_accuracy": balanced_accuracy_score(TRUTH, GUESS, **own),
        "geometric_mean": geometric_mean_score(TRUTH, GUESS, **own),
        "mean_minority_accuracy": recalls[MINORITY].mean(),
        "min_class_accuracy": recalls.min(),
        "macro_f1": f1s.mean(),
        "f1": f1s[MINORITY].mean(),
        "recall": recalls.tolist(),
        "precision": precisions.tolist(),
        "class_f1": f1s.tolist(),
        "true_share": (np.bincount(TRUTH, counted) / counted.sum()).tolist(),
        "predicted_share": (np.bincount(GUESS, counted) / counted.sum()).tolist(),
        "confusion_matrix": confusion_matrix(TRUTH, GUESS, **own).tolist(),
    }
    received = scores.classification_scores(
        FORMS[form], GUESS, NUM_CLASSES, MINORITY, weight
    )
    assert received.keys() == expected.keys()
    for name, score in expected.items():
        np.testing.assert_allclose(received[name], score, rtol=1e-9, err_msg=name)
    assert 0 < expected["min_class_accuracy"] < 1  # there is something to compare


def test_the_recalls_are_the_shares_that_a_loop_counts():
    expected = [
        sum(g == c for t, g in zip(TRUTH, GUESS, strict=True) if t == c)
        / sum(t == c for t in TRUTH)
        for c in range(NUM_CLASSES)
    ]
    np.testing.assert_allclose(scores.class_recalls(TRUTH, GUESS), expected)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_class_without_examples_enters_no_score():
    truth, guess = [0, 0, 3, 3], [0, 1, 3, 3]  # class 1 is guessed, but never true
    recalls = scores.class_recalls(truth, guess, num_classes=5)
    np.testing.assert_array_equal(recalls, [0.5, np.nan, np.nan, 1.0, np.nan])
    received = scores.classification_scores(truth, guess, 5, minority=[1, 3])
    expected = {
        "accuracy": 0.75,
        "balanced_accuracy": 0.75,
        "geometric_mean": pytest.approx(np.sqrt(0.5)),
        "mean_minority_accuracy": 1.0,
        "min_class_accuracy": 0.5,
        "macro_f1": pytest.approx((2 / 3 + 1) / 2),
        "f1": 1.0,
        "recall": [0.5, None, None, 1.0, None],
        "precision": [1.0, 0.0, None, 1.0, None],
        "class_f1": [pytest.approx(2 / 3), None, None, 1.0, None],
        "true_share": [0.5, 0.0, 0.0, 0.5, 0.0],
        "predicted_share": [0.25, 0.25, 0.0, 0.5, 0.0],
    }
    assert {name: received[name] for name in expected} == expected


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_one_class_that_is_never_found_takes_the_geometric_mean_to_zero():
    assert scores.geometric_mean([0, 0, 1], [0, 0, 0]) == 0
    assert scores.min_class_accuracy([0, 0, 1], [0, 0, 0]) == 0
    assert scores.balanced_accuracy([0, 0, 1], [0, 0, 0]) == 0.5


def test_the_minority_without_examples_has_no_score():
    assert np.isnan(scores.mean_minority_accuracy([0, 0], [0, 1], minority=[1]))


@pytest.mark.parametrize(("guess", "score"), [(1, 1.0), (0, 0.0)])
def test_one_example_is_all_or_nothing(guess, score):
    received = scores.classification_scores([1], [guess], 2, minority=[1])
    assert {received[name] for name in scores.DECISION_SCORES} == {score}
    assert received["recall"] == received["class_f1"] == [None, score]
    assert received["precision"] == ([None, 1.0] if guess else [0.0, None])


@pytest.mark.parametrize(
    "score",
    [
        scores.accuracy,
        scores.balanced_accuracy,
        scores.class_recalls,
        scores.geometric_mean,
        scores.min_class_accuracy,
        lambda y_true, y_pred: scores.mean_minority_accuracy(y_true, y_pred, [1]),
    ],
)
@pytest.mark.parametrize(
    ("truth", "guess", "message"),
    [
        ([0, 1, 1], [1], r"received 3 labels and 1 predictions"),
        ([], [], r"received 0 labels and 0 predictions"),
        ([0, 1], [0.2, 0.8], r"must be class ids .* has label 0.2"),
        ([0, np.nan], [0, 1], r"example 1 has label nan"),
    ],
)
def test_what_cannot_be_compared_raises(score, truth, guess, message):
    with pytest.raises(ValueError, match=message):
        score(truth, guess)


def test_a_class_out_of_range_raises():
    with pytest.raises(ValueError, match=r"class ids 0 to 1; example 0 has label 2"):
        scores.class_recalls([0, 1], [2, 1], num_classes=2)


def test_errors_are_those_of_as_many_examples_whatever_the_weights_add_up_to():
    confusion = np.array([[60.0, 20.0], [3.0, 17.0]])
    plain = scores.decision_errors(confusion, [1])
    for scale in (1e-3, 1e3):
        scaled = scores.decision_errors(scale * confusion, [1], sizes=[80, 20])
        assert scaled == pytest.approx(plain, rel=1e-9)
    ids = np.repeat([0, 1], [80, 20])
    even = scores.effective_sizes(ids, np.full(100, 0.3), 3)
    np.testing.assert_allclose(even, [80, 20, 0])
    one = scores.effective_sizes(ids, np.where(np.arange(100) == 99, 1e6, 1.0), 2)
    np.testing.assert_allclose(one, [80, 1], rtol=1e-4)
