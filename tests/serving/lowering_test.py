"""Tests for lowering.py: functions of Keras layers as functions of TensorFlow.

On jax they are lowered; integration/backends_test.py runs this file's subject there.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.serving.lowering import Lowering, _sizes, _with_a_row

X = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
SIGNATURE = tf.TensorSpec((None, 3), tf.float32)


def test_what_is_lowered_computes_what_the_layers_do_for_any_number_of_rows():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    lowered = Lowering()
    predict = lowered(lambda x: model(x, training=False), [model], SIGNATURE)
    twice = lowered(lambda x: 2 * model(x, training=False), [model], SIGNATURE)
    served, doubled = (
        tf.function(function, input_signature=[SIGNATURE], autograph=False)
        for function in (predict, twice)
    )
    expected = keras.ops.convert_to_numpy(model(X))
    for rows in (5, 1, 0):
        np.testing.assert_allclose(served(X[:rows]), expected[:rows], atol=1e-6)
        np.testing.assert_allclose(doubled(X[:rows]), 2 * expected[:rows], atol=1e-6)


@pytest.mark.tensorflow(reason="the function itself is returned")
def test_on_tensorflow_a_function_stays_what_it_is():
    function = keras.layers.Identity()
    assert Lowering()(function, [function], SIGNATURE) is function


def test_on_a_backend_without_a_way_to_tensorflow_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(NotImplementedError, match=r"model.save\('model.keras'\); then"):
        Lowering()


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((None, 3), "(batch, 3)"),
        ((None, None, None, 3), "(batch, size1, size2, 3)"),
        ((None,), "(batch)"),
    ],
)
def test_open_sizes_have_names(shape, sizes):
    assert _sizes(tf.TensorSpec(shape)) == sizes


def test_an_empty_batch_gets_a_row_and_another_none():
    assert _with_a_row(tf.zeros([0, 3]), SIGNATURE).shape == (1, 3)
    np.testing.assert_array_equal(_with_a_row(tf.constant(X), SIGNATURE), X)
