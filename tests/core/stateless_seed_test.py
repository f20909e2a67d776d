"""Tests for stateless_seed.py: two integers, of which 31 bits count."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.core.stateless_seed import stateless_seed


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        ((1, 2), [1, 2]),
        (np.array([3, 4], "uint64"), [3, 4]),
        (tf.constant([5, 6], tf.int64), [5, 6]),
        ((2**31 + 7, -1), [7, 2**31 - 1]),
    ],
    ids=str,
)
def test_two_integers_become_a_seed(seed, expected):
    received = stateless_seed(seed)
    assert received.dtype == tf.int32
    np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize(
    "seed",
    [0, None, (1,), (1, 2, 3), (1.0, 2.0), "12", tf.constant(1), tf.constant([1.0, 2])],
    ids=str,
)
def test_anything_else_raises(seed):
    with pytest.raises(ValueError, match=r"`seed` must be two integers, such as \(1,"):
        stateless_seed(seed)


def test_a_seed_that_is_known_in_the_graph_alone_is_taken():
    drawn = tf.function(
        lambda seed: tf.random.stateless_normal([2], stateless_seed(seed))
    )
    expected = tf.random.stateless_normal([2], [1, 2])
    np.testing.assert_array_equal(drawn(tf.constant([1, 2])), expected)
