"""Tests for comparison.py: errors against formulas and against many new sets."""

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from tf_pseudofeat.evaluation.comparison import (
    LOWER_IS_BETTER,
    SCORE_NAMES,
    beyond_chance,
    difference_error,
    folds_of,
    score_decisions,
    score_predictions,
    standard_errors,
)
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.evaluation.probability_scores import probability_scores
from tf_pseudofeat.evaluation.scores import classification_scores


def pair(rng, sizes=(300, 60, 40), spread=1.0):
    """Two classifiers that err on much the same examples."""
    ids = np.repeat(range(len(sizes)), sizes)
    logits = 1.5 * np.eye(len(sizes))[ids] + rng.normal(size=(ids.size, len(sizes)))
    other = logits + spread * rng.normal(size=logits.shape)
    return Predictions(ids, logits, "linear"), Predictions(ids, other, "linear")


# ---- All scores at once. -------------------------------------------------------------


def test_all_scores_are_those_of_decisions_and_of_ranking():
    predictions, _ = pair(np.random.default_rng(0))
    received = score_predictions(predictions, [1, 2])
    ids, guess = predictions.ids, predictions.predicted
    assert received == {
        **classification_scores(ids, guess, 3, [1, 2]),
        **probability_scores(predictions, [1, 2]),
    }
    assert set(SCORE_NAMES) < set(received)
    assert set(SCORE_NAMES) > LOWER_IS_BETTER
    assert received["accuracy"] == pytest.approx(accuracy_score(ids, guess))
    each = f1_score(ids, guess, average=None)
    assert received["f1"] == pytest.approx(each[1:].mean())


def test_weights_count_in_every_score():
    rng = np.random.default_rng(0)
    plain, _ = pair(rng)
    weight = rng.integers(1, 4, len(plain))
    weighted = Predictions(plain.labels, plain.outputs, "linear", weight.astype(float))
    repeated = plain.select(np.repeat(np.arange(len(plain)), weight))
    expected = score_predictions(repeated, [1, 2])
    for name, score in score_predictions(weighted, [1, 2]).items():
        np.testing.assert_allclose(score, expected[name], err_msg=name)
    assert score_decisions(plain, [1])["accuracy"] != expected["accuracy"]


# ---- The standard error. -------------------------------------------------------------


def test_the_error_of_a_mean_is_the_jackknifes():
    values = np.random.default_rng(0).normal(size=10)
    error = difference_error(lambda rows: values[rows].mean(), np.zeros(10, int))
    # With one example in each group the jackknife of a mean is exact.
    assert error == pytest.approx(stats.sem(values))


def test_the_error_is_that_of_a_naive_loop():
    rng = np.random.default_rng(0)
    ids, values = rng.integers(3, size=83), rng.normal(size=(83, 2))
    fold = folds_of(ids, 10, np.random.default_rng(0))
    without = np.array([np.median(values[fold != k], axis=0) for k in range(10)])
    expected = np.sqrt(0.9 * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    received = difference_error(lambda rows: np.median(values[rows], axis=0), ids)
    np.testing.assert_allclose(received, expected)


def test_the_error_of_a_paired_accuracy_is_that_of_the_discordant_examples():
    """Mean over many sets, beside sqrt((b + c - (b - c)^2 / N) / N^2), McNemar's."""
    rng, estimated, exact = np.random.default_rng(0), [], []
    for _ in range(60):
        first, second = pair(rng, (200, 200))
        right = [p.predicted == p.ids for p in (first, second)]
        difference = right[1] * 1.0 - right[0]
        exact.append(difference.std() / np.sqrt(len(first)))
        estimated.append(
            difference_error(lambda rows, d=difference: d[rows].mean(), first.ids)
        )
    assert np.sqrt(np.mean(np.square(estimated))) == pytest.approx(
        np.sqrt(np.mean(np.square(exact))), rel=0.1
    )
    # Unpaired, it would be much larger.
    share = right[0].mean()
    unpaired = np.sqrt(2 * share * (1 - share) / len(first))
    assert np.mean(estimated) < 0.9 * unpaired


@pytest.fixture(scope="module")
def many_sets():
    """Differences of scores, and their errors, of 60 sets."""
    rng, differences, errors = np.random.default_rng(0), [], []
    for _ in range(60):
        first, second = pair(rng, (100, 40))
        old, new = (score_predictions(p, [1]) for p in (first, second))
        differences.append({name: new[name] - old[name] for name in SCORE_NAMES})
        errors.append(standard_errors(first, second, [1]))
    return differences, errors


@pytest.mark.parametrize("name", ["balanced_accuracy", "f1", "roc_auc", "log_loss"])
def test_the_error_is_the_spread_over_new_sets(many_sets, name):
    differences, errors = ([one[name] for one in part] for part in many_sets)
    error = np.sqrt(np.mean(np.square(errors)))
    assert error == pytest.approx(np.std(differences), rel=0.3)


def test_the_same_classifier_twice_has_no_error():
    first, _ = pair(np.random.default_rng(0))
    errors = standard_errors(first, first, [2])
    assert {errors[name] for name in SCORE_NAMES} == {0.0}
    assert errors["recall"] == [0.0, 0.0, 0.0]


def test_errors_stand_under_the_names_of_their_scores():
    first, second = pair(np.random.default_rng(0))
    errors = standard_errors(first, second, [1, 2])
    per_class = {"recall", "precision", "class_f1", "class_average_precision"}
    assert errors.keys() == {*SCORE_NAMES, *per_class}

    def difference(rows):
        recalls = [
            [np.mean(p.predicted[rows][p.ids[rows] == c] == c) for c in range(3)]
            for p in (first, second)
        ]
        return np.subtract(*recalls[::-1])

    np.testing.assert_allclose(
        errors["recall"], difference_error(difference, first.ids)
    )

    def gained(rows):
        one, two = (
            roc_auc_score(p.ids[rows], p.probabilities[rows], multi_class="ovr")
            for p in (first, second)
        )
        return two - one

    expected = difference_error(gained, first.ids)
    assert errors["roc_auc"] == pytest.approx(float(expected))


def test_a_class_of_one_example_has_no_error_and_takes_none_from_others():
    first, second = pair(np.random.default_rng(0), (50, 20, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        errors = standard_errors(first, second, [2])
    assert errors["recall"][2] is None
    assert errors["f1"] is None  # of the minority, which is that class
    assert errors["accuracy"] > 0
    assert errors["recall"][0] > 0


def test_unknown_probabilities_have_no_error():
    first, second = (
        Predictions(p.labels, p.outputs, None) for p in pair(np.random.default_rng(0))
    )
    errors = standard_errors(first, second, [2])
    assert errors["log_loss"] is errors["roc_auc"] is None
    assert errors["class_average_precision"] == [None] * 3
    assert errors["accuracy"] > 0


def test_one_example_tells_no_error():
    first, second = pair(np.random.default_rng(0), (1, 0, 0))
    errors = standard_errors(first, second, [0])
    assert {errors[name] for name in SCORE_NAMES} == {None}


# ---- Groups. -------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_every_class_is_spread_over_all_folds(folds):
    ids = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [83, 20, 7]))
    fold = folds_of(ids, folds, np.random.default_rng(1))
    for rows in (ids >= 0, ids == 0, ids == 1, ids == 2):
        sizes = np.bincount(fold[rows], minlength=folds)
        assert sizes.max() - sizes.min() <= 1
    again = folds_of(ids, folds, np.random.default_rng(1))
    np.testing.assert_array_equal(again, fold)
    assert (folds_of(ids, folds, np.random.default_rng(2)) != fold).any()


# ---- Chance. -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "error", "confidence", "sure"),
    [
        (0.02, 0.01, 0.95, True),  # 2 > 1.833, Student's t of 9
        (0.018, 0.01, 0.95, False),
        (0.02, 0.01, 0.975, False),  # 2 < 2.262
        (0.001, 0.01, 0.5, True),  # every gain counts
        (0.0, 0.0, 0.5, False),
        (-0.5, 0.01, 0.95, False),
        (0.5, None, 0.95, False),
        (0.5, np.nan, 0.95, False),
        (np.nan, 0.01, 0.95, False),
        (0.5, 0.0, 0.95, True),
    ],
)
def test_a_gain_is_beyond_chance_by_a_t_test(gain, error, confidence, sure):
    assert beyond_chance(gain, error, confidence) is sure


def test_without_a_gain_one_of_twenty_looks_like_one():
    """Two classifiers that are equally good, on many new sets."""
    rng, sure = np.random.default_rng(0), 0
    for _ in range(300):
        noise = rng.normal(size=(200, 2))
        ids = np.repeat([0, 1], 100)
        right = noise < 1

        def difference(rows, right=right):
            return right[rows, 1].mean() - right[rows, 0].mean()

        gain = difference(slice(None))
        sure += beyond_chance(gain, float(difference_error(difference, ids)))
    low, high = stats.binom.ppf([0.001, 0.999], 300, 0.05)
    assert low <= sure <= high
