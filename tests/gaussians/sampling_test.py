"""Tests for sampling.py: one draw per label, from noise that follows from the seed."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.gaussians.sampling import sample_gaussians

RNG = np.random.default_rng(0)
LOC = tf.constant(RNG.normal(size=(3, 4)), tf.float32)
TRIL = np.tril(RNG.random((3, 4, 4)) + 0.1).astype("float32")
LABELS = np.array([2, 0, 0, 1, 2, 2, 1])
NOISE = tf.random.stateless_normal([7, 4], [1, 2])


def mean_and(noise):
    return LOC.numpy()[LABELS] + noise


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (TRIL, np.einsum("bij,bj->bi", TRIL[LABELS], NOISE)),
        (TRIL[:1], NOISE @ TRIL[0].T),
        (TRIL[:, 0] + 1, (TRIL[:, 0] + 1)[LABELS] * NOISE),
    ],
    ids=["full", "tied", "diagonal"],
)
def test_draws_are_the_means_and_scaled_noise(scale, expected):
    received = sample_gaussians(LOC, tf.constant(scale), LABELS, [1, 2])
    np.testing.assert_allclose(received, mean_and(expected), rtol=1e-4, atol=1e-5)


def test_noise_depends_on_the_seed_and_the_place_alone():
    scale = tf.constant(TRIL)
    first = sample_gaussians(LOC, scale, LABELS, [1, 2])
    others = sample_gaussians(LOC, scale, np.where(LABELS == 0, 1, LABELS), [1, 2])
    same = LABELS != 0
    np.testing.assert_array_equal(first[same], others[same])
    assert not np.allclose(first, sample_gaussians(LOC, scale, LABELS, [1, 3]))
