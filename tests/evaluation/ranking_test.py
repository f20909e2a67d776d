"""Tests for ranking.py: against scikit-learn, with ties and weights."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tf_pseudofeat.evaluation.ranking import ranking_of


@pytest.fixture(params=range(4))
def rng(request):
    return np.random.default_rng(request.param)


def expected(positive, values, weight=None):
    return [
        score(positive, values, sample_weight=weight)
        for score in (average_precision_score, roc_auc_score)
    ]


@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_scikit_learns_also_of_ties(rng, decimals, weighted):
    positive = rng.random(200) < 0.1
    values = np.round(rng.normal(size=200) + positive, decimals)
    weight = rng.random(200) + 0.1 if weighted else None
    received = ranking_of(positive, values, weight)
    np.testing.assert_allclose(received, expected(positive, values, weight))


@pytest.mark.parametrize("values", [[0.1, 0.9], [0.9, 0.1], [0.5, 0.5]])
def test_two_examples_are_ranked(values):
    received = ranking_of([False, True], values)
    np.testing.assert_allclose(received, expected([0, 1], values))


def test_a_value_is_the_best_where_it_is_negative_and_all_others_are_lower():
    assert ranking_of([True, False, False], [-1e300, -1.1e300, -1.2e300]) == (1.0, 1.0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_raise(wrong):
    with pytest.raises(ValueError, match="contain NaN or infinity"):
        ranking_of([True, False], [wrong, 0.0])
