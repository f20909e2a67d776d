"""Tests for tune.py, and for recipe="auto": real models on real digits."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from tests.trained import Trained, compiled, train
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.retraining.tune import tune

RARE = [0, 1, 2]


def jitter(x, seed):
    return x + 0.2 * tf.random.stateless_normal(tf.shape(x), seed)


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    rank = np.array([np.sum(y[:i] == label) for i, label in enumerate(y)])
    train = (rank < 60) & ~(np.isin(y, RARE) & (rank >= 8))
    return (x[train], y[train]), (x[rank >= 60], y[rank >= 60])


@pytest.fixture(scope="module")
def trained(digits):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(16, activation="relu", name="features"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    compiled(model, "adam", "sparse_categorical_crossentropy", jit_compile=False)
    train(model, *digits[0], epochs=40)
    return Trained(model)


@pytest.fixture
def model(trained):
    return trained.again()


def state(model):
    return [variable.numpy().tobytes() for variable in model.variables]


def test_tuning_leaves_the_model_as_it_is(model, digits):
    before = state(model)
    tuning = tune(model, "features", *digits, epochs=2, verbose=0)
    assert state(model) == before
    assert len(tuning.trials) == 6 * 8  # blends and taus


@pytest.mark.parametrize("monitor", ["balanced_accuracy", "min_class_accuracy"])
def test_auto_is_what_one_gets_by_hand(model, digits, monitor):
    before = model.get_weights()
    common = {
        "augment": jitter,
        "epochs": 2,
        "verbose": 0,
        "validation_data": digits[1],
        "monitor": monitor,
    }
    report = retrain_head(model, "features", digits[0], recipe="auto", **common)
    auto = model.get_weights()
    model.set_weights(before)
    tuning = report.tuning
    assert tuning.monitor == monitor
    # What was judged is what came out.
    assert report.after[monitor] == pytest.approx(tuning.chosen.score, abs=1e-12)
    common["recipe"] = tuning.recipe
    by_hand = retrain_head(model, "features", digits[0], **common)
    for one, other in zip(auto, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert by_hand.recipe.to_dict() == report.recipe.to_dict()
    assert json.loads(json.dumps(report.to_dict()))["tuning"]["chosen"]


def test_auto_needs_data_to_judge_by(model, digits):
    before = state(model)
    with pytest.raises(ValueError, match="'auto' chooses by validation data"):
        retrain_head(model, "features", digits[0], recipe="auto")
    assert state(model) == before


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"tau": 0.3}, r"\['tau'\] cannot be passed"),
        ({"blend": 0.5}, r"\['blend'\] cannot be passed"),
    ],
)
def test_auto_takes_no_settings_that_it_chooses(model, digits, settings, message):
    before = state(model)
    settings = {"recipe": "auto", "validation_data": digits[1], **settings}
    with pytest.raises(ValueError, match=message):
        retrain_head(model, "features", digits[0], **settings)
    assert state(model) == before


@pytest.mark.parametrize("recipe", ["best", 3, {"tau": 0.3}])
def test_a_recipe_is_an_object_or_auto(model, digits, recipe):
    with pytest.raises(
        TypeError,
        match="`recipe` must be of type HeadRecipe, or 'auto'; received",
    ):
        retrain_head(model, "features", digits[0], recipe=recipe)
