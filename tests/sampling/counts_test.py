"""Tests for counts.py."""

import collections
import fractions
import math

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE, RandomOverSampler

from tf_pseudofeat.sampling.counts import (
    check_several_classes,
    class_counts,
    minority_classes,
    multiply_minority,
    pseudo_counts,
    small_classes,
)

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 3], [40, 12, 25, 7]))
BINARY = np.repeat([0, 1], [20, 6])


@pytest.mark.parametrize(
    ("strategy", "labels"),
    [
        ("auto", LABELS),
        ("not majority", LABELS),
        ("minority", LABELS),
        ("not minority", LABELS),
        ("all", LABELS),
        ({1: 30, 3: 7}, LABELS),
        ({np.int64(3): np.int64(50)}, LABELS),
        (0.75, BINARY),
        ("auto", BINARY),
        (multiply_minority(3), LABELS),
        (multiply_minority(2.5), BINARY),
        (lambda y: {int(y.max()): 9}, LABELS),
    ],
)
def test_the_counts_are_what_imbalanced_learn_adds(strategy, labels):
    sampler = RandomOverSampler(sampling_strategy=strategy, random_state=0)
    _, resampled = sampler.fit_resample(np.zeros((len(labels), 1)), labels)
    added = collections.Counter(resampled.tolist())
    added.subtract(labels.tolist())
    assert pseudo_counts(labels, strategy) == {c: n for c, n in added.items() if n}


@pytest.mark.parametrize(
    "encode", [np.asarray, lambda y: y[:, np.newaxis], lambda y: np.eye(4)[y]]
)
def test_the_form_of_the_labels_makes_no_difference(encode):
    np.testing.assert_array_equal(class_counts(encode(LABELS)), [40, 12, 25, 7])
    assert pseudo_counts(encode(LABELS)) == {1: 28, 2: 15, 3: 33}


def test_the_counts_are_plain_integers_in_the_order_of_the_classes():
    counts = pseudo_counts(LABELS, {3: 9.0, np.int32(1): np.int64(20)})
    assert list(counts.items()) == [(1, 8), (3, 2)]
    assert {type(number) for item in counts.items() for number in item} == {int}


def test_classes_without_examples_get_nothing():
    assert pseudo_counts([0, 0, 0, 2]) == {2: 2}
    np.testing.assert_array_equal(class_counts([0, 0, 0, 2], 5), [3, 0, 1, 0, 0])


def test_no_labels_count_zero_for_every_class():
    np.testing.assert_array_equal(class_counts([], 3), [0, 0, 0])


@pytest.mark.parametrize(
    ("counts", "below", "minority"),
    [
        ([100, 50, 49, 1], 0.5, [2, 3]),
        ([100, 50, 49, 1], 0.02, [3]),
        ([100, 50, 49, 1], 1.0, [1, 2, 3]),
        ([100, 0, 60], 0.5, [2]),  # nothing below half: the smallest that exists
        ([7, 0, 7], 0.5, [0, 2]),
        ([0, 5], 0.5, [1]),
    ],
)
def test_the_minority_is_what_is_below_a_share_of_the_largest(counts, below, minority):
    assert minority_classes(counts, below) == minority


@pytest.mark.parametrize(
    ("counts", "small"), [([100, 0, 49], [2]), ([100, 0, 50], []), ([5, 5], [])]
)
def test_no_class_may_be_small(counts, small):
    assert small_classes(counts) == small


@pytest.mark.parametrize("multiplier", [1, 2, 50, 1.5])
def test_multiply_minority_multiplies_the_minority_alone(multiplier):
    added = pseudo_counts(LABELS, multiply_minority(multiplier))
    total = class_counts(LABELS) + [added.get(c, 0) for c in range(4)]
    expected = np.array([40, 12 * multiplier, 25, 7 * multiplier])
    np.testing.assert_allclose(total, expected, atol=0.5)
    assert set(added) <= {1, 3}


def test_multiply_minority_steers_samplers_of_imbalanced_learn():
    sampler = SMOTE(sampling_strategy=multiply_minority(10), k_neighbors=2)
    features = np.random.default_rng(1).normal(size=(len(LABELS), 2))
    _, resampled = sampler.fit_resample(features, LABELS)
    np.testing.assert_array_equal(class_counts(resampled), [40, 120, 25, 70])


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({4: 10}, r"names class 4, which has no example; .* \[0, 1, 2, 3\]"),
        ({-1: 10}, r"names class -1, which has no example"),
        ({"cat": 10}, r"names class 'cat', which has no example"),
        ({0: 39}, r"asks for 39 examples of class 0, which already has 40"),
        ({3: 7.5}, r"asks for 7.5 examples of class 3.*whole numbers"),
        ({3: np.nan}, r"asks for nan examples of class 3"),
        (lambda labels: {1: 2}, r"asks for 2 examples of class 1, which .* has 12"),
        ("majority", r"must be one of 'auto', .*; received 'majority'"),
        (
            "smote",
            r"must be one of 'auto', .* received 'smote'. .*SMOTE\(\).* `sampler`",
        ),
        (0.5, r"only when the type of target is binary"),
    ],
)
def test_a_strategy_that_cannot_be_met_raises(strategy, message):
    with pytest.raises(ValueError, match=message):
        pseudo_counts(LABELS, strategy)


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 0, 0], "All 3 examples are of class 0, one class, .*two classes"),
        ([[5], [5]], "All 2 examples are of class 5"),
        (np.eye(4)[[2, 2]], "All 2 examples are of class 2"),
        ([], "no example of any class. Pass the labels of two"),
    ],
    ids=["ids", "column", "one-hot", "none"],
)
@pytest.mark.parametrize("strategy", ["auto", 0.5, {0: 9}, multiply_minority(2)])
def test_a_single_class_cannot_be_balanced(labels, message, strategy):
    with pytest.raises(ValueError, match=message):
        pseudo_counts(labels, strategy)


def test_a_single_class_is_one_of_the_models():
    with pytest.raises(ValueError, match="All 7 examples are of class 1, one class of"):
        check_several_classes(np.array([0, 7, 0]), 3)
    check_several_classes(np.array([0, 7, 1]), 3)


@pytest.mark.parametrize("largest, smallest", [(100, 29), (100, 1), (700, 3), (9, 4)])
@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_a_ratio_of_hundredths_is_exact(largest, smallest, kind):
    labels = np.repeat([0, 1], [largest, smallest])
    for hundredths in range(1, 101):
        ratio = fractions.Fraction(hundredths, 100)
        extra = math.floor(ratio * largest) - smallest
        if extra < 0:
            with pytest.raises(ValueError, match=f"already has {smallest}. Pass a rat"):
                pseudo_counts(labels, kind(hundredths / 100))
        else:
            wanted = {1: extra} if extra else {}
            assert pseudo_counts(labels, kind(hundredths / 100)) == wanted


@pytest.mark.parametrize("largest", range(1, 120, 7))
def test_a_ratio_that_is_there_already_adds_nothing(largest):
    for smallest in range(1, largest + 1):
        labels = np.repeat([2, 5], [largest, smallest])
        assert pseudo_counts(labels, smallest / largest) == {}


def test_a_ratio_fills_the_smaller_class_whatever_its_id():
    assert pseudo_counts([0, 3, 3, 3, 3], 0.5) == {0: 1}
    assert pseudo_counts([0, 3, 3, 3, 3], fractions.Fraction(1, 2)) == {0: 1}
    assert pseudo_counts([0, 3, 3], np.int64(1)) == {0: 1}
    assert pseudo_counts([0, 0, 3, 3], 1.0) == pseudo_counts([0, 0, 3, 3], 1) == {}


@pytest.mark.parametrize("below", [0, -0.5, 1.01, np.nan])
def test_below_is_a_fraction(below):
    with pytest.raises(ValueError, match=rf"must be in \(0, 1\]; received {below}"):
        minority_classes([3, 1], below)


@pytest.mark.parametrize("counts", [[], [0, 0]])
def test_no_examples_have_no_minority(counts):
    with pytest.raises(ValueError, match=r"No class has an example"):
        minority_classes(counts)


@pytest.mark.parametrize("multiplier", [0.5, 0, -2, np.nan])
def test_the_minority_cannot_shrink(multiplier):
    message = rf"must be at least 1; received {multiplier}"
    with pytest.raises(ValueError, match=message):
        multiply_minority(multiplier)


WEIGHTED = np.repeat([0, 1, 2], [100, 20, 5])


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("auto", {1: 180, 2: 20}),
        ("not majority", {1: 180, 2: 20}),
        ("minority", {1: 180}),
        ("not minority", {2: 20}),
        ("all", {1: 180, 2: 20}),
    ],
)
def test_a_strategy_by_name_fills_the_total_weight_up(strategy, expected):
    # Totals of 100, 10 and 20: the class of 20 examples is the lightest.
    weight = np.choose(WEIGHTED, [1.0, 0.5, 4.0])
    counts = pseudo_counts(WEIGHTED, strategy, weight)
    assert counts == expected
    for class_id, extra in counts.items():
        rows = class_id == WEIGHTED
        total = weight[rows].sum() + extra * weight[rows].mean()
        assert total == pytest.approx(100)


def test_weights_that_balance_need_no_pseudo_features():
    weight = 1 / np.bincount(WEIGHTED)[WEIGHTED]
    assert pseudo_counts(WEIGHTED, "auto", weight) == {}


def test_equal_weights_change_nothing():
    for strategy in ("auto", "minority", "not minority", "all"):
        plain = pseudo_counts(WEIGHTED, strategy)
        assert pseudo_counts(WEIGHTED, strategy, np.full(125, 0.3)) == plain


@pytest.mark.parametrize("strategy", [{2: 50}, multiply_minority(3)])
def test_totals_are_examples_whatever_they_weigh(strategy):
    weight = np.arange(1.0, 126.0)
    plain = pseudo_counts(WEIGHTED, strategy)
    assert pseudo_counts(WEIGHTED, strategy, weight) == plain
