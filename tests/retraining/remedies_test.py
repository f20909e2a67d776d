"""Tests for remedies.py: code and scores; what is found, see diagnose_test.py."""

import types

import keras
import numpy as np
import pytest

from tests.small_models import small_classifier
from tf_pseudofeat.evaluation.comparison import score_predictions
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.retraining.remedies import (
    _choosing_thresholds,
    _Found,
    beginning_of_call,
    scored_remedy,
)
from tf_pseudofeat.splitting.split_at import split_at

RESOLVED = types.SimpleNamespace(split=types.SimpleNamespace(layer_name="features"))


def share_found(labels, outputs):
    return 0.5


@pytest.mark.parametrize(
    ("guard", "monitor"),
    [
        (Guard(), ""),
        (Guard("f1"), ", monitor='f1'"),
        (Guard(share_found), ", monitor=share_found"),
        (Guard(keras.metrics.AUC(name="auc")), ", monitor=auc"),
        (Guard(confidence=0.9), ", monitor=Guard('balanced_accuracy', confidence=0.9)"),
        (
            Guard(share_found, max_recall_drop=None),
            ", monitor=Guard(share_found, max_recall_drop=None)",
        ),
    ],
)
def test_a_call_names_what_is_not_the_default(guard, monitor):
    start = "retrain_head(model, 'features', data, validation_data=..."
    assert beginning_of_call("features", RESOLVED, guard) == start + monitor
    assert beginning_of_call(None, RESOLVED, guard) == start + monitor


def test_a_call_of_a_split_names_the_split():
    split = split_at(small_classifier(), "features")
    start = "retrain_head(model, split, data, validation_data=..."
    assert beginning_of_call(split, RESOLVED, Guard()) == start


def test_ranking_is_scored_where_class_shares_are_equal():
    ids = np.repeat([0, 1, 2], [20, 10, 5])
    logits = np.random.default_rng(0).normal(size=(35, 3)) + np.eye(3)[ids]
    said, ranking = (
        Predictions(ids, logits + shares, "linear") for shares in ([2, 1, 0], [0, 0, 0])
    )
    found = _Found("code", said, ranking)
    remedy = scored_remedy("retraining", found, "class 0", Guard("f1"), [1, 2])
    own, moved = (score_predictions(p, [1, 2]) for p in (said, ranking))
    ranked = {"average_precision", "roc_auc", "class_average_precision"}
    for name, score in remedy.scores.items():
        assert score == (moved if name in ranked else own)[name], name
    assert own["average_precision"] != moved["average_precision"]
    assert remedy.score == own["f1"] and remedy.excluded == "class 0"


@pytest.mark.parametrize(
    ("monitor", "minority", "more"),
    [
        ("f1", [1], ", minority=[1]"),
        ("f1", [2], ""),
        ("mean_minority_accuracy", [1, 2], ", minority=[1, 2]"),
        ("macro_f1", [1], ""),
    ],
)
def test_the_minority_is_named_where_validation_data_have_another(
    monitor, minority, more
):
    code = _choosing_thresholds(Guard(monitor), minority, np.array([30, 20, 5]))
    expected = f"choose_thresholds(model, validation_data, '{monitor}'{more})"
    assert code == expected
