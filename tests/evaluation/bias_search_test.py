"""Tests for bias_search.py: all steps of a bias are scored as one by one.

That the bias is as good as any is tested in thresholds_test.py.
"""

import numpy as np
import pytest

from tf_pseudofeat.evaluation.bias_search import _BiasSearch, fit_bias
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.evaluation.scores import DECISION_SCORES


def predictions(sizes=(60, 20, 9), seed=0, weighted=False):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(range(len(sizes)), sizes))
    logits = 1.5 * np.eye(len(sizes))[ids] + rng.normal(size=(ids.size, len(sizes)))
    weight = rng.random(ids.size).round(2) if weighted else None
    return Predictions(ids, logits + np.log(sizes), "linear", weight)


@pytest.mark.parametrize("name", DECISION_SCORES)
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_along_a_bias_are_those_of_each_step(name, weighted):
    of = predictions(weighted=weighted)
    search, bias = _BiasSearch(of, Guard(name), [1, 2]), np.array([0.0, 0.4, -0.3])
    step, best = search.place(1, bias.copy(), -np.inf)
    assert best == pytest.approx(search.score(np.array([0.0, step, -0.3])), abs=1e-9)
    for other in np.linspace(-6, 6, 49):
        assert search.score(np.array([0.0, other, -0.3])) <= best + 1e-9


def test_a_score_of_ones_own_is_searched_as_the_same_score_by_name():
    of = predictions()

    def accuracy(labels, outputs):
        return float(np.mean(outputs.argmax(axis=1) == labels))

    own, named = (
        _BiasSearch(of, guard, [1, 2]).place(1, np.zeros(3), -np.inf)[1]
        for guard in (Guard(accuracy), Guard("accuracy"))
    )
    assert own == pytest.approx(named, abs=0.02)  # it tries fewer steps


def test_class_0_has_no_bias_and_classes_without_examples_do_not_matter():
    bias = fit_bias(predictions((40, 12, 0, 5)), Guard("balanced_accuracy"), [1, 3])
    assert bias.shape == (4,) and bias[0] == 0 and np.isfinite(bias).all()
