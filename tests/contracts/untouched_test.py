"""What a retraining leaves alone: everything but the weights of the head."""

import json
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from tests.each_backend import one_step
from tests.model_state import bits, compiled_state, layers_of
from tests.trained import Trained, compiled
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.splitting.separating import separating_layers
from tf_pseudofeat.splitting.split_at import split_at

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6, 6, 1)).astype("float32")
Y = np.arange(90) % 9 // 4


def trained_model():
    """A nested backbone with a frozen layer, compiled and trained for a while."""
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.GlobalMaxPooling2D(name="pool")(x)
    backbone = keras.Model(inputs, x, name="backbone")
    inputs = keras.Input((6, 6, 1))
    x = layers.Dense(5, activation="relu", name="hidden")(backbone(inputs))
    x = layers.Dense(4, name="features")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="out")(x))
    backbone.get_layer("conv").trainable = False
    compiled(
        model,
        # With averages Keras on jax cannot go on from the first `fit`.
        keras.optimizers.Adam(0.01, use_ema=keras.backend.backend() == "tensorflow"),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)],
        weighted_metrics=["accuracy"],
        steps_per_execution=one_step(2),
    )
    model.fit(X, Y, batch_size=30, verbose=0)
    return model


def summary(model):
    lines = []
    model.summary(print_fn=lambda line, **_: lines.append(line), expand_nested=True)
    return lines


def saved(model, path):
    """The configuration and the names of the weights in a saved file."""
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    return config, [variable.path for variable in model.variables]


@pytest.fixture(scope="module")
def after_all(tmp_path_factory):
    """A model before and after two retrainings at each of its layers."""
    folder = tmp_path_factory.mktemp("untouched")
    model = trained_model()

    def state():
        return {
            "summary": summary(model),
            "saved": saved(model, folder / "model.keras"),
            "layers": layers_of(model),
            "backbone": bits(model.get_layer("backbone").variables),
            "compiled": compiled_state(model),
            "tensors": [id(model.input), id(model.output), id(model.layers[-1].output)],
        }

    before = state()
    cuts = [cut.layer_name for cut in separating_layers(model)]
    for layer_name in cuts:
        if layer_name.startswith("backbone/"):  # its head is part of the backbone
            continue
        for seed in range(2):
            retrain_head(model, layer_name, (X, Y), epochs=1, seed=(seed, 0), verbose=0)
    return model, before, state()


@pytest.mark.parametrize(
    "what",
    ["summary", "saved", "layers", "backbone", "compiled", "tensors"],
)
def test_after_two_retrainings_at_each_layer(after_all, what):
    _, before, after = after_all
    assert after[what] == before[what]


def test_it_still_trains_with_its_own_optimizer(after_all):
    model, before, _ = after_all
    iterations = int(model.optimizer.iterations)
    history = model.fit(X, Y, batch_size=30, verbose=0)
    assert int(model.optimizer.iterations) == iterations + 3
    assert len(history.history) == 4
    assert bits(model.optimizer.variables) != before["compiled"]["optimizer"]


def nodes_of(model):
    return {
        layer.name: (len(layer._inbound_nodes), len(layer._outbound_nodes))
        for layer in model._flatten_layers()
    }


@pytest.fixture(scope="module")
def trained():
    return Trained(trained_model())


@pytest.mark.parametrize("layer_name", ["features", "backbone", "backbone/norm"])
def test_the_second_retraining_leaves_no_node_anywhere(trained, layer_name):
    model = trained.again()
    options = {"epochs": 1, "verbose": 0}
    retrain_head(model, layer_name, (X, Y), **options)
    halves = split_at(model, layer_name)
    first = [nodes_of(part) for part in (model, *halves)]
    retrain_head(model, layer_name, (X, Y), **options)
    assert [nodes_of(part) for part in (model, *halves)] == first


def test_names_that_keras_gives_go_on_where_they_were(trained):
    def numbers():
        """The numbers in the names that layers get now; the first name has none."""
        made = layers.Dense(1), layers.InputLayer((1,)), keras.Sequential()
        suffixes = [one.name.rpartition("_")[2] for one in made]
        return np.array([int(s) if s.isdigit() else 0 for s in suffixes])

    model = trained.again()
    numbers()
    before = numbers()
    retrain_head(model, "features", (X, Y), epochs=1, verbose=0)
    np.testing.assert_array_equal(numbers(), before + 1)
