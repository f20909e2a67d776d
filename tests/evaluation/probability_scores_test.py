"""Tests for probability_scores.py: against scikit-learn, and loops over examples."""

import importlib
import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
)

from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.evaluation.probability_scores import (
    PROBABILITY_SCORES,
    expected_calibration_error,
    probability_scores,
)

RNG = np.random.default_rng(0)
IDS = RNG.permutation(np.repeat(range(4), [60, 30, 20, 10]))
HOT = np.eye(4)[IDS]
LOGITS = RNG.normal(size=(120, 4)) + 1.5 * HOT
P = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
MINORITY = [2, 3]


def predictions(rows=slice(None), weight=None, ids=IDS, p=P):
    return Predictions(ids[rows], p[rows], "softmax", weight)


@pytest.fixture(params=[False, True])
def weight(request):
    return np.random.default_rng(1).random(120) if request.param else None


def test_ranking_is_scikit_learns_of_one_class_against_the_rest(weight):
    received = probability_scores(predictions(weight=weight), MINORITY)
    each = [
        average_precision_score(HOT[:, c], P[:, c], sample_weight=weight)
        for c in range(4)
    ]
    areas = [roc_auc_score(HOT[:, c], P[:, c], sample_weight=weight) for c in range(4)]
    np.testing.assert_allclose(received["class_average_precision"], each)
    assert received["average_precision"] == pytest.approx(np.mean(each[2:]))
    assert received["roc_auc"] == pytest.approx(np.mean(areas))
    assert 0.5 < received["roc_auc"] < 1  # there is something to compare


def test_small_weights_are_summed_in_float64():
    truth = np.arange(3000) % 4
    logits = np.random.default_rng(0).normal(size=(3000, 4)) + np.eye(4)[truth]
    scores = [
        probability_scores(Predictions(truth, logits, "linear", weight), MINORITY)
        for weight in (None, np.ones(3000, "float16"))
    ]
    for name, score in scores[0].items():
        assert scores[1][name] == pytest.approx(score), name


def test_losses_are_scikit_learns(weight):
    received = probability_scores(predictions(weight=weight), MINORITY)
    expected = log_loss(IDS, P, sample_weight=weight)
    assert received["log_loss"] == pytest.approx(expected)
    expected = brier_score_loss(
        IDS, P, sample_weight=weight, labels=range(4), scale_by_half=False
    )
    assert received["brier_score"] == pytest.approx(expected)


def test_one_output_has_the_scores_of_two(weight):
    labels, positive = IDS % 2, P[:, 1:2]
    one = Predictions(labels, positive, "sigmoid", weight)
    both = Predictions(labels, np.hstack([1 - positive, positive]), "softmax", weight)
    first, second = probability_scores(one, [1]), probability_scores(both, [1])
    for name, score in first.items():
        np.testing.assert_allclose(score, second[name], err_msg=name)
    # scikit-learn's Brier score of two classes is of one of them alone.
    half = brier_score_loss(labels, positive[:, 0], sample_weight=weight)
    assert first["brier_score"] == pytest.approx(2 * half)


@pytest.mark.parametrize("bins", [1, 2, 15])
def test_calibration_is_what_a_loop_over_bins_finds(weight, bins):
    counts = np.ones(120) if weight is None else weight
    total = 0.0
    for k in range(bins):
        inside = [
            i
            for i in range(120)
            if k <= P[i].max() * bins and P[i].max() * bins < k + 1
        ]
        if not inside:
            continue
        mass = counts[inside].sum()
        confidence = sum(counts[i] * P[i].max() for i in inside) / mass
        accuracy = sum(counts[i] * (P[i].argmax() == IDS[i]) for i in inside) / mass
        total += mass / counts.sum() * abs(confidence - accuracy)
    received = expected_calibration_error(predictions(weight=weight), bins)
    assert received == pytest.approx(total)
    assert total > 0


def test_certainty_is_in_the_last_bin_and_calibrated_where_it_is_right():
    certain = np.eye(2)[[0, 1, 1, 1]]
    said = Predictions([0, 1, 1, 1], certain, "softmax")
    assert expected_calibration_error(said) == pytest.approx(0, abs=1e-12)
    said = Predictions([0, 1, 1, 0], certain, "softmax")
    assert expected_calibration_error(said) == pytest.approx(0.25)


def test_who_knows_no_better_than_the_prior_is_calibrated():
    said = Predictions([0] * 8 + [1] * 2, np.tile([[0.8, 0.2]], (10, 1)), "softmax")
    assert expected_calibration_error(said) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("gone", [[0, 5, 17, 60], np.flatnonzero(IDS == 3)])
def test_weight_0_is_as_good_as_no_example(gone):
    weight = np.random.default_rng(1).random(120)
    weight[gone] = 0
    rows = np.flatnonzero(weight)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = probability_scores(predictions(weight=weight), MINORITY)
        second = probability_scores(predictions(rows, weight[rows]), MINORITY)
    assert first.keys() == second.keys()
    for name, score in second.items():
        assert first[name] == pytest.approx(score), name


def test_a_weight_of_2_is_an_example_twice():
    weight = np.random.default_rng(1).integers(1, 4, 120)
    rows = np.repeat(np.arange(120), weight)
    first = probability_scores(predictions(weight=weight.astype(float)), MINORITY)
    second = probability_scores(predictions(rows), MINORITY)
    for name, score in second.items():
        assert first[name] == pytest.approx(score), name


def test_a_class_without_an_example_has_no_average_precision():
    rows = np.flatnonzero(IDS != 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        received = probability_scores(predictions(rows), MINORITY)
    assert received["class_average_precision"][3] is None
    assert received["average_precision"] == received["class_average_precision"][2]
    areas = [roc_auc_score(IDS[rows] == c, P[rows, c]) for c in range(3)]
    assert received["roc_auc"] == pytest.approx(np.mean(areas))
    only = probability_scores(predictions(rows), [3])
    assert only["average_precision"] is None
    assert only["log_loss"] == pytest.approx(
        log_loss(IDS[rows], P[rows], labels=range(4))
    )


@pytest.mark.parametrize("ids", [[0, 0, 0], [1, 1, 1]])
def test_one_class_alone_cannot_be_ranked(ids):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        received = probability_scores(
            Predictions(ids, [[0.7, 0.3], [0.4, 0.6], [0.9, 0.1]], "softmax"), [1]
        )
    assert received["class_average_precision"] == [None, None]
    assert received["average_precision"] is received["roc_auc"] is None
    assert received["log_loss"] > 0
    assert received["brier_score"] > 0


def test_unknown_probabilities_have_no_score():
    received = probability_scores(Predictions(IDS, LOGITS, None), MINORITY)
    assert received.pop("class_average_precision") == [None] * 4
    assert received == dict.fromkeys(PROBABILITY_SCORES)


def test_what_takes_minutes_to_rank_is_not_ranked(monkeypatch):
    module = importlib.import_module("tf_pseudofeat.evaluation.probability_scores")
    monkeypatch.setattr(module, "_MOST_RANKED", P.size - 1)
    received = probability_scores(predictions(), MINORITY)
    assert received["average_precision"] is received["roc_auc"] is None
    assert received["class_average_precision"] == [None] * 4
    assert received["log_loss"] == pytest.approx(log_loss(IDS, P))


def test_a_moved_prior_leaves_the_ranking_of_two_classes():
    two = Predictions(IDS % 2, P[:, 1:2], "sigmoid")
    before = probability_scores(two, [1])
    after = probability_scores(two.shifted([2.0, -1.0]), [1])
    for name in ("average_precision", "roc_auc"):
        assert after[name] == pytest.approx(before[name])
    assert after["log_loss"] > before["log_loss"] + 0.1


def test_examples_are_ranked_where_probabilities_round_to_1():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=200)
    logits = 2 * np.eye(3)[labels] + rng.normal(size=(200, 3))
    plain, large = (
        probability_scores(Predictions(labels, scale * logits, "linear"), [1])
        for scale in (1.0, 300.0)
    )
    # Against the rest is against the strongest other one, if logits are that large.
    margins = np.stack(
        [logits[:, c] - np.delete(logits, c, axis=1).max(axis=1) for c in range(3)], 1
    )
    truth = np.eye(3)[labels]
    expected = average_precision_score(truth, margins, average=None)
    np.testing.assert_allclose(large["class_average_precision"], expected, atol=2e-3)
    assert large["roc_auc"] == pytest.approx(plain["roc_auc"], abs=0.02)
