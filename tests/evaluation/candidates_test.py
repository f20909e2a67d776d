"""Tests for candidates.py: heads of every blend and tau, from one training."""

import keras
import numpy as np
import pytest

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.evaluation.candidates import Candidates, score_error
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.head.material import Material
from tf_pseudofeat.head.task import Task

COUNTS = [300, 60, 30]
RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], COUNTS)
LOGITS = np.eye(3)[LABELS] + RNG.normal(size=(390, 3)) + np.log(COUNTS)
DATA = LabeledFeatures(LOGITS.astype("float32"), LABELS)


@pytest.fixture
def task():
    """Its features are the logits."""
    dense = keras.layers.Dense(3, "softmax")
    head = keras.Sequential([keras.Input((3,)), dense])
    dense.set_weights([np.eye(3), np.zeros(3)])
    return Task(head, 3, "sparse_categorical_crossentropy")


def candidates_of(task, guard="balanced_accuracy", counts=COUNTS, tau=0.9):
    material = Material(DATA, np.array(counts))
    return Candidates(task, material, DATA, Guard.of(guard), tau, (1, 2))


def test_the_first_is_the_model_as_it_is_and_tau_is_among_the_others(task):
    candidates = candidates_of(task)
    assert candidates.keys[0] == (1.0, 0.0) and (1.0, 0.9) in candidates.keys
    np.testing.assert_array_equal(candidates.counts, COUNTS)
    as_it_is = candidates.predictions(1.0, 0.0)
    np.testing.assert_allclose(as_it_is.class_logits, _centered(LOGITS), atol=1e-4)


def _centered(logits):
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def test_a_tau_takes_so_much_of_the_prior_off_the_logits(task):
    moved = candidates_of(task).predictions(1.0, 0.8)
    expected = LOGITS - 0.8 * np.log(np.divide(COUNTS, 390))
    np.testing.assert_array_equal(moved.class_logits.argmax(1), expected.argmax(1))


def test_the_best_is_the_best_on_all_and_cross_fitted_it_is_less(task):
    candidates = candidates_of(task)
    scores = [
        candidates.guard.score(candidates.predictions(*key), [1, 2])
        for key in candidates.keys
    ]
    assert candidates.best == candidates.keys[int(np.argmax(scores))]
    assert candidates.best[1] > 0.5
    fair = candidates.guard.score(candidates.cross_fitted(), [1, 2])
    assert scores[0] + 0.1 < fair <= max(scores)


def test_of_equal_candidates_the_first_is_chosen(task):
    candidates = candidates_of(task)
    candidates.add(0.5)  # the same head
    assert candidates.best[0] == 1.0 and len(candidates.keys) == 2 * len(
        candidates._taus
    )


def test_a_head_that_costs_a_class_its_recall_cannot_be_chosen(task):
    candidates = candidates_of(task, "accuracy")
    task.head.layers[-1].set_weights([np.zeros((3, 3)), np.array([9.0, 0, 0])])
    candidates.add(0.0)
    assert candidates.best[0] == 1.0
    assert "recall of class" in candidates.excluded[0.0, 0.0]


def test_without_a_bias_or_an_example_of_each_class_there_is_no_tau(task):
    assert candidates_of(task, counts=[300, 60, 0]).keys == [(1.0, 0.0)]
    task.head.layers[-1].trainable = False
    assert candidates_of(task).keys == [(1.0, 0.0)]


@pytest.mark.parametrize("blend", [0.0, 0.3])
@pytest.mark.parametrize("prior", [None, [0.5, 0.3, 0.2]])
def test_a_ranking_is_at_the_class_shares_of_the_old_head(task, blend, prior):
    """A head that differs in its prior alone ranks examples as it did."""
    old = np.array(COUNTS) / 390 if prior is None else np.array(prior)
    material = Material(DATA, np.array(COUNTS), counts={1: 240, 2: 270})
    guard = Guard("balanced_accuracy")
    candidates = Candidates(task, material, DATA, guard, 0.9, (1, 2), prior)
    moved = (1 - blend) * (np.log(1 / 3) - np.log(old))
    task.head.layers[-1].set_weights([np.eye(3), moved])
    candidates.add(blend)
    as_it_is = candidates.ranking(1.0)
    np.testing.assert_allclose(
        candidates.ranking(blend).probabilities, as_it_is.probabilities, rtol=1e-3
    )
    fitted = candidates.cross_fitted_ranking()
    np.testing.assert_allclose(fitted.probabilities, as_it_is.probabilities, rtol=1e-3)


@pytest.mark.parametrize("monitor", ["balanced_accuracy", "roc_auc"])
def test_the_error_of_a_score_is_its_spread_over_new_data(monitor):
    scores, errors, guard = [], [], Guard(monitor)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        logits = np.eye(3)[LABELS] + rng.normal(size=(390, 3))
        predictions = Predictions(LABELS, logits, "linear")
        scores.append(guard.score(predictions, [1, 2]))
        errors.append(score_error(predictions, guard, [1, 2]))
    assert np.mean(errors) == pytest.approx(np.std(scores), rel=0.35)
