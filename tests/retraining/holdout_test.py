"""Tests for holdout.py: the rows of scikit-learn's split, and what cannot be split."""

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from tf_pseudofeat.retraining.holdout import hold_out

NAMES = np.array(["error", "fraud", "ok"])


def ids_of(*sizes):
    return np.random.default_rng(0).permutation(np.repeat(range(len(sizes)), sizes))


@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_rows_are_those_of_a_stratified_split(fraction):
    ids, x = ids_of(10, 20, 70), np.random.default_rng(1).normal(size=(100, 2))
    training, validation = hold_out([x, ids], ids, fraction, 3, NAMES)
    expected = train_test_split(
        x, ids, test_size=fraction, random_state=3, stratify=ids
    )
    for received, other in zip([*training, *validation], [0, 2, 1, 3], strict=True):
        np.testing.assert_array_equal(received, expected[other])
    np.testing.assert_allclose(np.bincount(validation[1]), fraction * np.bincount(ids))


@pytest.mark.parametrize(
    ("sizes", "fraction", "problem"),
    [
        ((98, 2), 0.2, "class fraud has 2 examples, of which 20 % are none"),
        ((2, 98), 0.2, "class error has 2 examples, of which 20 % are none"),
        ((98, 2), 0.8, "class fraud has 2 examples, of which 80 % are all"),
        ((2, 2, 98), 0.1, "class error has 2 examples, of which 10 % are none"),
        ((0, 98, 2), 0.2, "class ok has 2 examples, of which 20 % are none"),
        ((98, 0), 0.2, "class fraud has 0 examples, of which 20 % are all"),
        ((98, 1), 0.2, "class fraud has 1 example[.]"),
        ((5, 4), 0.1, "10 % of 9 examples do not fit 2 classes"),
        ((5, 4), 0.9, "90 % of 9 examples do not fit 2 classes"),
    ],
)
def test_a_part_without_the_rare_class_raises(sizes, fraction, problem):
    ids = ids_of(*sizes)
    message = f"`validation_fraction`={fraction} must leave .*; {problem}.*Pass another"
    with pytest.raises(ValueError, match=message):
        hold_out([ids], ids, fraction, 0, NAMES[: len(sizes)])


def test_one_of_several_rare_classes_may_be_missing():
    ids = ids_of(2, 40, 400)
    _, (validation,) = hold_out([ids], ids, 0.1, 0, NAMES)
    assert np.bincount(validation, minlength=3).tolist() == [0, 4, 41]


def test_a_class_without_examples_does_not_count():
    ids = ids_of(40, 0, 10)
    (training,), (validation,) = hold_out([ids], ids, 0.2, 0, NAMES)
    assert np.bincount(training).tolist() == [32, 0, 8]
    assert np.bincount(validation).tolist() == [8, 0, 2]
