"""Tests for served_features.py: the endpoint `features` of a SavedModel."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.engines.served_features import (
    cached_model,
    endpoint_specs,
    features_of_inputs,
    load_model,
)


def save(folder, factor=2.0, name="features"):
    """A SavedModel without layers: the features of x and n are factor * x + n."""
    module = tf.Module()
    specs = tf.TensorSpec([None, 3], name="x"), tf.TensorSpec([None, 1], tf.int64, "n")
    call = tf.function(
        lambda x, n: {"features": factor * x + tf.cast(n, tf.float32)},
        input_signature=specs,
    )
    tf.saved_model.save(module, str(folder), {name: call.get_concrete_function()})
    return str(folder)


X = np.arange(6.0).reshape(2, 3)
N = [[1], [2]]


def test_inputs_by_name_become_features(tmp_path):
    model = load_model(save(tmp_path / "1"))
    assert sorted(endpoint_specs(model)) == ["n", "x"]
    received = features_of_inputs(model, {"x": X, "n": N})
    np.testing.assert_allclose(received, 2 * X + N)


def test_a_model_without_the_endpoint_says_how_to_export_it(tmp_path):
    path = save(tmp_path / "1", name="serving_default")
    message = r"endpoints \['serving_default'\], but not 'features'. .*layer_name="
    with pytest.raises(ValueError, match=message):
        load_model(path)


def test_a_model_is_loaded_once_until_its_files_change(tmp_path):
    path = save(tmp_path / "1")
    first = cached_model(path)
    assert cached_model(path) is first
    save(tmp_path / "1", factor=3.0)
    later = os.stat(f"{path}/saved_model.pb").st_mtime_ns + 10**9
    os.utime(f"{path}/saved_model.pb", ns=(later, later))
    again = cached_model(path)
    received = features_of_inputs(again, {"x": X, "n": N})
    np.testing.assert_allclose(received, 3 * X + N)


def test_a_folder_without_a_model_raises(tmp_path):
    with pytest.raises(OSError, match="none"):
        cached_model(tmp_path / "none")
