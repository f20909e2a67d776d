"""Tests for augmentation.py: views that follow from a seed, and leave inputs alone."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.noise import noisy
from tf_pseudofeat.extraction.augmentation import (
    augment_once,
    augmenter,
    not_augmented,
)

X = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")


def views(augment, seed, view, steps=(0, 1)):
    of_batch = augmenter(augment, seed, view)
    return [keras.ops.convert_to_numpy(of_batch(X, step)) for step in steps]


LAYERS = {
    "layer": lambda: keras.layers.RandomTranslation(0.3, 0.3),
    "model": lambda: keras.Sequential([keras.layers.GaussianNoise(1.0)]),
    "function": lambda: noisy,
    "partial": lambda: functools.partial(noisy),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_views_follow_from_the_seed_and_differ_otherwise(kind):
    first, again = (views(LAYERS[kind](), (1, 2), 0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = views(LAYERS[kind](), (3, 4), 0), views(LAYERS[kind](), (1, 2), 1)
    different = [X, *first, *other[0], *other[1]]
    for i, a in enumerate(different):
        assert not any(np.array_equal(a, b) for b in different[:i])


def test_a_function_without_a_seed_gets_a_copy_that_it_may_change():
    def halve(x):
        x["image"] /= 2
        return x

    inputs = {"image": X.copy(), "words": tf.constant(["a"])}
    received = augment_once(halve, inputs)
    np.testing.assert_array_equal(received["image"], X / 2)
    np.testing.assert_array_equal(inputs["image"], X)
    assert received["words"] is inputs["words"]


def test_a_function_written_in_c_is_called_without_a_seed():
    np.testing.assert_array_equal(augment_once(np.negative, X), -X)


def test_without_augmentation_a_batch_stays_the_same_object():
    assert not_augmented(X, 3) is X
