"""Tests for task_checks.py: the model, the data and the optimizer, before any work."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from imblearn.over_sampling import SMOTE
from keras import layers

from tf_pseudofeat.retraining import task_checks
from tf_pseudofeat.splitting.outputs import choose_output

X, Y = np.ones((6, 3), "float32"), np.arange(6) % 2


def model_of(**first):
    layer = layers.Dense(2, "softmax", name="scores", **first)
    model = keras.Sequential([keras.Input((3,)), layer], name="model")
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize(
    ("value", "trainable", "broken"),
    [
        (np.nan, True, True),
        (np.inf, True, True),
        (np.nan, False, True),
        (-np.inf, False, False),  # such as a mask
        (0.0, True, False),
    ],
)
def test_weights_that_diverged_are_named(value, trainable, broken):
    model = model_of(trainable=trainable)
    model.layers[0].bias.assign([value, 0.0])
    found = task_checks.nonfinite_weights(model)
    assert found == (["model/scores/bias"] if broken else [])
    if broken:
        with pytest.raises(ValueError, match="1 weights of 'model' are NaN .*diverged"):
            task_checks.check_model(model)
    else:
        task_checks.check_model(model)


def test_a_search_needs_validation_data():
    task_checks.check_search(True, (X, Y))
    task_checks.check_search(False, None)
    with pytest.raises(ValueError, match="recipe='auto' chooses by validation data"):
        task_checks.check_search(True, None)


@pytest.mark.parametrize(
    ("inputs", "received"), [(X[:4], "4"), ({"a": X[:4], "b": X}, "4 or 6")]
)
def test_each_example_has_a_label(inputs, received):
    task_checks.check_one_label_each(X, Y)
    with pytest.raises(ValueError, match=f"has {received} inputs and 6 labels"):
        task_checks.check_one_label_each(inputs, Y)


def test_a_sampler_needs_memory_and_no_folder(tmp_path):
    task_checks.check_cache_dir(None, SMOTE())
    task_checks.check_cache_dir(tmp_path / "new", None)
    with pytest.raises(ValueError, match="SMOTE needs all features in memory, but"):
        task_checks.check_cache_dir(tmp_path, SMOTE())
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("augment", "shape"),
    [(lambda x: x[:, :2], r"\[\(6, 2\)\]"), (lambda x: x[:3], r"\[\(3, 3\)\]")],
)
def test_views_keep_the_shape_of_inputs(augment, shape):
    task_checks.check_augmented(None, X)
    task_checks.check_augmented(lambda x: x + 1, X)
    with pytest.raises(ValueError, match=f"of shapes {shape} for inputs of shapes"):
        task_checks.check_augmented(augment, X)


def test_validation_data_have_an_end():
    model = model_of()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
    output = choose_output(model, None)
    task_checks.resolve_validation(model, output, dataset, None)
    with pytest.raises(ValueError, match=r"is infinite .*validation_data.take\(n\)"):
        task_checks.resolve_validation(model, output, dataset.repeat(), None)


def test_the_models_own_optimizer_is_not_used_up():
    model = model_of()
    task_checks.check_new_optimizer(model, keras.optimizers.SGD())
    task_checks.check_new_optimizer(model, None)
    with pytest.raises(ValueError, match="the one that 'model' was compiled with"):
        task_checks.check_new_optimizer(model, model.optimizer)
