"""Tests for ranking.py: against scikit-learn's scores."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from tf_pseudofeat.evaluation.ranking import rank_class


@hypothesis.given(
    st.lists(
        st.tuples(
            st.integers(-3, 3) | st.floats(-1e9, 1e9),  # with ties
            st.booleans(),
            st.floats(0.01, 100),
        ),
        min_size=2,
        max_size=40,
    )
)
def test_scores_are_scikit_learns(examples):
    odds, is_class, weight = map(np.array, zip(*examples, strict=True))
    hypothesis.assume(is_class.any() and not is_class.all())
    precision, area = rank_class(odds.astype(float), is_class, weight)
    settings = {"sample_weight": weight}
    expected = average_precision_score(is_class, odds, **settings)
    assert precision == pytest.approx(expected)
    assert area == pytest.approx(roc_auc_score(is_class, odds, **settings))


@pytest.mark.parametrize(
    ("odds", "precision", "area"),
    [
        ([3, 2, 1, 0], 1, 1),
        ([0, 1, 2, 3], (1 / 3 + 2 / 4) / 2, 0),
        ([0, 0, 0, 0], 0.5, 0.5),
        ([np.inf, np.inf, np.inf, -np.inf], 2 / 3, 0.75),
    ],
)
def test_scores_by_hand(odds, precision, area):
    is_class = np.array([True, True, False, False])
    received = rank_class(np.array(odds, float), is_class, np.ones(4))
    assert received == pytest.approx((precision, area))
