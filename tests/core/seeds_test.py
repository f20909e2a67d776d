"""Tests for seeds.py: no two uses of a seed share a stream."""

import itertools

import keras
import numpy as np
import pytest

from tests.independence import dependent
from tf_pseudofeat.core.seeds import rng_for, seed_layers

USES = ("views", "noise of the head", "folds")
SEEDS = ((0, 0), (1, 2), (2, 1), (1, 3), (2, 2), (1, 0), (0, 1), (1, 1))


def test_every_use_part_and_seed_draws_for_itself():
    streams = {
        place: rng_for(*place).normal(size=1000)
        for place in itertools.product(USES, SEEDS, range(3))
    }
    assert dependent(streams) == set()


def test_a_seed_that_is_a_part_of_another_would_be_seen():
    """NumPy takes (1, 2) for (1, 2, 0)."""
    seeds = [(1, 2), (1, 2, 0), (1, 2, 1)]
    streams = {seed: np.random.default_rng(seed).normal(size=1000) for seed in seeds}
    assert dependent(streams) == {frozenset(seeds[:2])}


@pytest.mark.parametrize("seed", [np.array([1, 2]), [1, 2], (1 + 2**31, 2 - 2**31)])
def test_the_lowest_31_bits_count(seed):
    expected = rng_for("views", (1, 2), 1).integers(99, size=9)
    received = rng_for("views", seed, 1).integers(99, size=9)
    np.testing.assert_array_equal(received, expected)


class Noisy(keras.layers.Layer):
    """Keeps its generator where no layer of Keras does."""

    def __init__(self):
        super().__init__()
        self.source = keras.random.SeedGenerator()

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.source)


def test_random_layers_of_every_kind_are_seeded_each_for_itself():
    def drawn(seed):
        inside = keras.Sequential([keras.layers.RandomTranslation(0.3, 0.3), Noisy()])
        model = keras.Sequential(
            [keras.Input((4, 4, 1)), inside, keras.layers.GaussianNoise(1.0), Noisy()]
        )
        seed_layers(model, rng_for("views", seed))
        states = [v.numpy() for v in model.variables if v.name.startswith("seed_")]
        return np.array(states), model(np.zeros((50, 4, 4, 1)), training=True)

    states, first = drawn((1, 2))
    assert states.shape == (4, 2)
    assert len(set(states[:, 0].tolist())) == 4
    np.testing.assert_array_equal(first, drawn((1, 2))[1])
    assert np.abs(first - drawn((1, 3))[1]).min() > 0
