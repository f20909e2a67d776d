"""Tests for remarks.py: what is said, and where nothing is. See judge_test.py, too."""

import types

import numpy as np
import pytest

from tf_pseudofeat.evaluation.comparison import (
    score_decisions,
    score_predictions,
    standard_errors,
)
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.evaluation.remarks import (
    describe_adjustment,
    describe_memorized,
    describe_own_prior,
    describe_training_losses,
)

MATERIAL = types.SimpleNamespace(minority=[1, 2], population=np.array([80, 12, 8]))


def said(shares, weight=None, kind="softmax"):
    """`Predictions` of all but the same probabilities, a little more for the class."""
    labels = np.array([0, 0, 1, 2])
    outputs = 0.999 * np.tile(shares, (4, 1)) + 0.001 * np.eye(3)[labels]
    return Predictions(labels, outputs, kind, weight)


@pytest.mark.parametrize(
    ("shares", "percent"),
    [([0.59, 0.21, 0.2], "41.0"), ([0.55, 0.4, 0.05], "45.0"), ([0.67, 0.2, 0.13], "")],
)
def test_rare_classes_that_get_twice_their_odds_are_named(shares, percent):
    sentence = describe_own_prior(said(shares), MATERIAL, None)
    start = f"The original classifier gives class 1 and class 2 {percent} percent in "
    assert sentence.startswith(start) if percent else sentence == ""


def test_shares_are_weighted():
    outputs = np.array([[0.2, 0.4, 0.4], [0.8, 0.1, 0.1]])
    weight = np.array([1.0, 9.0])
    predictions = Predictions(np.array([1, 0]), outputs, "softmax", weight)
    assert describe_own_prior(predictions, MATERIAL, None) == ""
    predictions = Predictions(np.array([1, 0]), outputs, "softmax")
    assert "50.0 percent in all" in describe_own_prior(predictions, MATERIAL, None)


def test_probabilities_of_chance_say_nothing_of_the_prior():
    chance = Predictions(np.array([0, 0, 1, 2]), np.full((4, 3), 1 / 3), "softmax")
    assert describe_own_prior(chance, MATERIAL, None) == ""


def test_numbers_that_are_no_probabilities_have_no_shares():
    assert describe_own_prior(said([0.2, 0.4, 0.4], kind=None), MATERIAL, None) == ""


def test_many_memorized_classes_are_counted():
    known, missed = [1.0] * 6, [0.1, None, 0.2, 0.3, 0.4, 0.5]
    sentence = describe_memorized(known, missed, [0, 1, 2, 3, 4, 5], None)
    named = "class 0, class 2, class 3, class 4 and 1 more"
    assert f"its training examples of {named} and misses others" in sentence
    assert describe_memorized(known, [0.9] * 6, [0, 1], None) == ""
    assert describe_memorized([0.5] * 6, missed, [0, 1], None) == ""


def test_without_losses_nothing_is_said():
    predictions = said([0.2, 0.4, 0.4])
    scores = score_predictions(predictions, [1, 2])
    errors = standard_errors(predictions, predictions, [1, 2], score_decisions)
    assert describe_training_losses(scores, scores, errors, None) == ""


def test_a_loss_is_not_in_percent():
    assert "log loss from 0.500 to 0.400 and" in describe_adjustment(
        "log_loss", 0.5, 0.4
    )
