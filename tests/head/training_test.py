"""Tests for training.py: steps, progress and seeds of a head's training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.head.material import Material
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.task import Task
from tf_pseudofeat.head.training import _parts, initialize_head, train_head

pytestmark = pytest.mark.integration

Y = np.arange(40) % 2
X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")


def head_of(**dropout):
    keras.utils.set_random_seed(0)
    last = [keras.layers.Dropout(**dropout)] if dropout else []
    dense = keras.layers.Dense(2, "softmax")
    return keras.Sequential([keras.Input((3,)), *last, dense], name="head")


def trained(head, seed=(1, 2), verbose=0, through=lambda stream: stream, **recipe):
    recipe = HeadRecipe(**{"batch_size": 16, "epochs": 4, "optimizer": "sgd", **recipe})
    material = Material(LabeledFeatures(X, Y), np.bincount(Y))
    task = Task(head, 2, "sparse_categorical_crossentropy")
    stream = through(material.stream(recipe, seed))
    return train_head(task, stream, material, recipe, seed, verbose)


@pytest.mark.parametrize("steps", [100, 101, 111, 985, 1000, 1109, 8128, 21100])
def test_a_training_is_divided_into_a_few_equal_parts(steps):
    parts, part_steps, at_once = _parts(steps)
    assert 5 <= parts <= 20 and 8 <= at_once <= 32 and part_steps % at_once == 0
    # All of its executions are needed; only the last one ends early, and not by much.
    assert 0 <= parts * part_steps - steps < min(at_once, 1 + part_steps / 4)


@pytest.mark.parametrize("epochs", [5, 67])  # 15 steps; 201, which 32 does not divide
def test_one_iterator_reads_all_epochs_to_their_end(epochs, monkeypatch, recwarn):
    begun, read = [], []

    def begin(dataset, begin=tf.data.Dataset.__iter__):
        begun.append(dataset)
        return begin(dataset)

    def count(stream):
        def count(*batch):
            tf.py_function(lambda labels: read.append(len(labels)), [batch[1]], [])
            return batch

        return stream.map(count)

    monkeypatch.setattr(tf.data.Dataset, "__iter__", begin)
    told = trained(head_of(), epochs=epochs, through=count)
    assert read == [16, 16, 8] * epochs and told["epochs"] == epochs
    assert len(begun) == (1 if epochs == 5 else 2)  # Keras adds one where data end
    assert not [w for w in recwarn if "ran out of data" in str(w.message)]


def test_the_head_is_trained_and_what_was_done_is_told(capsys):
    head = head_of()
    before = head.get_weights()
    told = trained(head, verbose=1)
    assert told["epochs"] == 4 and told["optimizer"] == "SGD"
    assert told["learning_rate"] == 0.01 and np.isfinite(told["loss"]).all()
    assert not any(map(np.array_equal, before, head.get_weights()))
    printed = capsys.readouterr().out
    assert "Training the head on 40 features" in printed and "12/12" in printed
    assert not getattr(head, "compiled", False)


def test_dropout_draws_from_the_seed_alone():
    weights = []
    for seed in ((1, 2), (1, 2), (3, 4)):
        head = head_of(rate=0.5)
        trained(head, seed)
        weights.append(head.layers[-1].get_weights()[0].tobytes())
    assert weights[0] == weights[1] != weights[2]


def test_new_weights_come_from_the_initializers_and_the_seed():
    kernels = []
    for seed in ((1, 2), (1, 2), (3, 4)):
        head = head_of()
        old = head.get_weights()
        initialize_head(head, seed)
        kernel, bias = head.get_weights()
        assert not np.array_equal(kernel, old[0]) and not bias.any()
        kernels.append(kernel.tobytes())
    assert kernels[0] == kernels[1] != kernels[2]
