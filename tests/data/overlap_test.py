"""Tests for overlap.py: what is known to be the same examples, and what is not."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tf_pseudofeat.data.overlap import share_examples

X, Y = np.arange(40.0).reshape(10, 4), np.arange(10) % 2
DATASET = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
FRAME = pd.DataFrame(X)


@pytest.mark.parametrize(
    ("data", "other", "same"),
    [
        ((X, Y), None, False),
        ((X, Y), (X, Y), True),
        ((X, Y), (X, 1 - Y), True),
        ((X, Y), (X[2:5], Y[2:5]), True),
        ((X, Y), [X[::3], Y[::3]], True),
        ((X[:8], Y[:8]), (X[8:], Y[8:]), False),
        ((X[::2], Y[::2]), (X[1::2], Y[1::2]), False),
        ((X, Y), (X.copy(), Y), False),
        ((FRAME, Y), (FRAME, Y), True),
        (({"a": X, "b": Y}, Y), ({"a": X, "b": Y}, Y), True),
        (({"a": X, "b": Y}, Y), ({"a": X + 1, "b": Y}, Y), False),
        (({"a": X}, Y), ({"a": X + 1}, Y), False),
        ((X, Y, Y), (X, Y, 1 - Y), False),
        ((X, Y, Y), (X, Y, np.ones(10)), True),
        ((X, Y, Y), (X[:5], Y[:5], 1 - Y[:5]), True),
        ((X, Y, {"a": Y}), (X, Y, {"a": 1 - Y}), True),
        ((X, Y, [Y, Y]), (X, Y, Y), True),
        (DATASET, DATASET, True),
        (DATASET, DATASET.take(1), False),
        (DATASET, (X, Y), False),
    ],
)
def test_the_same_examples_are_found_by_their_memory(data, other, same):
    assert share_examples(data, other) is same
