"""Tests for trunk_outputs.py: features of a batch, on however many devices."""

from unittest import mock

import keras
import numpy as np
import pytest

from tf_pseudofeat.extraction import trunk_outputs
from tf_pseudofeat.extraction.trunk_outputs import features_of

X = np.arange(14, dtype="float32").reshape(7, 2)


@pytest.fixture(scope="module")
def trunk():
    return keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(2.0)])


def test_features_of_a_batch_are_an_array(trunk):
    features = features_of(trunk, X)
    assert type(features) is np.ndarray
    np.testing.assert_array_equal(features, 2 * X)


@pytest.mark.parametrize("multiple", [2, 4, 7, 10])
def test_a_batch_is_padded_to_a_multiple_of_the_devices(monkeypatch, multiple):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(trunk_outputs, "batch_multiple", lambda: multiple)
    received = []

    def predict(x):
        received.append(x["a"])
        return x["a"] + x["b"]

    two = mock.Mock(spec=[], predict_on_batch=predict)
    np.testing.assert_array_equal(features_of(two, {"a": X, "b": X}), 2 * X)
    (batch,) = received
    assert len(batch) % multiple == 0 and len(batch) - 7 < multiple
    np.testing.assert_array_equal(batch[7:], np.repeat(X[-1:], len(batch) - 7, axis=0))


def test_of_several_workers_each_computes_its_own(trunk, monkeypatch):
    monkeypatch.setattr(trunk_outputs, "spans_workers", lambda model: True)
    monkeypatch.setattr(keras.Model, "predict", None)
    monkeypatch.setattr(trunk_outputs, "inference", None)
    monkeypatch.setattr(keras.Model, "predict_on_batch", None)
    np.testing.assert_array_equal(features_of(trunk, X), 2 * X)


def test_features_are_one_tensor(trunk):
    outputs = trunk.outputs[0]
    one = keras.Model(trunk.inputs, {"features": outputs})
    np.testing.assert_array_equal(features_of(one, X), 2 * X)
    two = keras.Model(trunk.inputs, [outputs, outputs], name="two")
    with pytest.raises(ValueError, match="'two' returns 2 tensors, but the features"):
        features_of(two, X)
