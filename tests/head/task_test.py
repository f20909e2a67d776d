"""Tests for task.py: a head with its loss, its classes and what its outputs say."""

import keras
import numpy as np
import pytest
from keras import layers

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.head import task as task_module
from tf_pseudofeat.head.task import Task

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)).astype("float32"), np.arange(40) % 4
FROM_LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)


def head_of(units=4, activation="softmax"):
    return keras.Sequential(
        [keras.Input((3,)), layers.Dense(units, activation)], name="head"
    )


def task_of(units=4, activation="softmax", loss="mse", classes=None, **settings):
    return Task(head_of(units, activation), classes or max(2, units), loss, **settings)


@pytest.mark.parametrize(
    ("activation", "loss", "meaning", "threshold"),
    [
        ("sigmoid", "binary_crossentropy", "probabilities", 0.5),
        (None, FROM_LOGITS, "logits", 0.0),
        (None, "mse", "numbers", 0.5),
    ],
)
def test_one_output_is_decided_by_what_it_means(activation, loss, meaning, threshold):
    task = task_of(1, activation, loss)
    assert (task.reading.meaning, task.threshold) == (meaning, threshold)
    assert task_of(1, activation, loss, threshold=0.3).threshold == 0.3
    assert task.has_logit_bias == (meaning != "numbers")


def test_predictions_are_the_heads_in_memory_and_in_files(tmp_path, monkeypatch):
    monkeypatch.setattr(task_module, "_SCORING_BATCH", 16)
    task = task_of(loss="sparse_categorical_crossentropy")
    np.save(tmp_path / "x.npy", X)
    expected = keras.ops.convert_to_numpy(task.head(X))
    for features in (X, StoredArray([tmp_path / "x.npy"])):
        predictions = task.predict(LabeledFeatures(features, Y))
        np.testing.assert_allclose(predictions.outputs, expected, atol=1e-6)
        np.testing.assert_array_equal(predictions.ids, Y)
    scores = task.score(LabeledFeatures(X, Y), [1, 2])
    assert scores["accuracy"] == pytest.approx(np.mean(expected.argmax(axis=1) == Y))


def test_weights_count_in_the_scores():
    task = task_of(loss="sparse_categorical_crossentropy")
    right = keras.ops.convert_to_numpy(task.head(X)).argmax(axis=1) == Y
    weighted = LabeledFeatures(X, Y, np.where(right, 3.0, 1.0))
    expected = 3 * right.sum() / (3 * right.sum() + (~right).sum())
    assert task.score(weighted, [1])["accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"classes": 1.5}, ValueError, "`num_classes` must be a whole number"),
        ({"loss": "msee"}, ValueError, "msee"),
        ({"class_names": ["a", "b"]}, ValueError, "names"),
        ({"class_names": "abcd"}, TypeError, "names"),
    ],
)
def test_settings_are_checked(settings, error, message):
    with pytest.raises(error, match=message):
        task_of(**settings)
    with pytest.raises(TypeError, match="keras.Model, not str"):
        Task("head", 4, "mse")


@pytest.mark.parametrize(
    ("task", "features", "error", "message"),
    [
        (task_of(), X, TypeError, r"`x` must be a LabeledFeatures, .*received ndarray"),
        (
            task_of(),
            LabeledFeatures(X[:, :2], Y),
            ValueError,
            r"'head' takes features of shape \[None, 3\]; those of `x` have \[40, 2\]",
        ),
        (task_of(classes=5), LabeledFeatures(X, Y), ValueError, r"outputs \[B, 5\]"),
        (task_of(classes=3, units=3), LabeledFeatures(X, Y), ValueError, "label 3"),
    ],
)
def test_features_that_do_not_fit_the_head_raise(task, features, error, message):
    with pytest.raises(error, match=message):
        task.check(features, "x")
