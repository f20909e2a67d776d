"""Networks trained by a process on jax without TensorFlow, beside Keras's own `fit`."""

import json
import os
import subprocess
import sys

import jax
import keras
import numpy as np
import pytest

from examples.data import imbalance, load_images, only_classes
from examples.packed import pack
from examples.resnet import resnet
from examples.train_on_jax import random_views
from examples.trunks import Recipe, network_features, trained_network
from tests import programs
from tests.paths import ROOT
from tests.trained import compiled

_SHAPE = {"dataset": "digits", "depth": 8, "batch_size": 147}  # four steps an epoch
_LONG = Recipe(**_SHAPE, epochs=20, augment="shift")
_MIXED = Recipe(**_SHAPE, epochs=1, mixed_precision=True, seed=1)
_STILL = Recipe(**_SHAPE, epochs=1, learning_rate=1e-30)
_SHORT = Recipe(**_SHAPE, epochs=1)
_RECIPES = [_LONG, _MIXED, _STILL, _SHORT]

# Keras asks whether "tensorflow" is in sys.modules, so None there does not hide it.
_WITHOUT = """
import runpy, sys

class Nothing:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "tf_pseudofeat", "sklearn"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nothing)
runpy.run_module("examples.train_on_jax", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


def flags_of(packed, output_dir):
    return [f"--packed={packed}", f"--output_dir={output_dir}", "--steps=2"]


def train(packed, output_dir):
    environment = {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=1",  # compiles in less time
    }
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT, *flags_of(packed, output_dir)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """The folders of the four networks, packed and trained, and their pace by name."""
    packed, output_dir = tmp_path_factory.mktemp("in"), tmp_path_factory.mktemp("out")
    pack(_RECIPES, digits, packed)
    done = train(packed, output_dir)
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, (output_dir / "pace.jsonl").read_text().splitlines())
    return packed, output_dir, {line["name"]: line for line in lines}


def test_packed_rows_are_the_images_of_the_recipe(digits, tmp_path):
    classes = ("3", "8", "5")
    recipes = [
        Recipe("digits", classes, num_minority=1),
        Recipe("digits", classes, profile="long_tail", ratio=5, seed=2),
    ]
    pack(recipes[:1], digits, tmp_path)
    pack(recipes, digits, tmp_path)
    lines = (tmp_path / "networks.jsonl").read_text().splitlines()
    networks = [json.loads(line) for line in lines]
    assert [network["name"] for network in networks] == list(map(str, recipes))
    for network, recipe in zip(networks, recipes, strict=True):
        cut = imbalance(
            only_classes(digits, classes),
            *(recipe.profile, recipe.num_minority, recipe.ratio, recipe.seed),
        )
        with np.load(tmp_path / f"{network['images']}.npz") as arrays:
            packed = [arrays[f"train_{kind}"] for kind in ("images", "labels")]
            test_labels = arrays["test_labels"]
        np.testing.assert_array_equal(packed[0][network["rows"]], cut.train_images)
        np.testing.assert_array_equal(packed[1][network["rows"]], cut.train_labels)
        np.testing.assert_array_equal(test_labels, cut.test_labels)
        assert network["num_classes"] == 3


def test_compare_packs(tmp_path):
    flags = ["--num_minority=1,2", "--depth=8", f"--pack={tmp_path}/packed"]
    done = programs.run("examples.compare", *flags, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "Packed 2 networks" in done.stdout
    assert not (tmp_path / "trunks").exists()


@pytest.mark.parametrize("flip", [False, True])
def test_views_are_shifts_and_flips_by_an_eighth(flip):
    images = np.random.default_rng(0).integers(1, 256, (300, 16, 8, 3), "uint8")
    views = np.array(random_views(images, jax.random.key(0), flip))
    border, (height, width) = 2, images.shape[1:3]
    padded = np.pad(images, [(0, 0), (border, border), (border, border), (0, 0)])
    seen = set()
    for image, view in zip(padded, views, strict=True):
        found = {
            (row, column, flipped)
            for row in range(2 * border + 1)
            for column in range(2 * border + 1)
            for flipped in (False, True)
            if np.array_equal(
                image[row : row + height, column : column + width],
                view[:, ::-1] if flipped else view,
            )
        }
        assert len(found) == 1
        seen |= found
    assert len(seen) == (50 if flip else 25)


@pytest.mark.slow
def test_the_experiment_finds_a_network_that_predicts_the_same(digits, trained):
    _, output_dir, pace = trained
    for recipe, tolerance in ((_LONG, 0.0015), (_MIXED, 0.03)):
        cut, line = recipe.cut(digits), pace[str(recipe)]
        model = trained_network(recipe, cut, output_dir / "trunks")
        probabilities = model.predict(cut.test_images, verbose=0)
        in_float32 = resnet(8, (8, 8, 1), 10)
        in_float32.set_weights(model.get_weights())
        same = in_float32.predict(cut.test_images, verbose=0)
        np.testing.assert_allclose(probabilities, same, atol=1e-6)
        right = probabilities.argmax(axis=1) == cut.test_labels
        assert abs(right.mean() - line["test_accuracy"]) <= tolerance
        recalls = [right[cut.test_labels == label].mean() for label in range(10)]
        np.testing.assert_allclose(recalls, line["recalls"], atol=10 * tolerance)
    assert pace[str(_LONG)]["training_accuracy"] > 0.8
    assert pace[str(_MIXED)]["dtype"] == "mixed_bfloat16"


@pytest.mark.slow
def test_its_features_are_extracted_and_not_trained_again(digits, trained):
    _, output_dir, pace = trained
    file = network_features(_LONG, digits, output_dir / "trunks")
    predicted = (file.features @ file.kernel + file.bias).argmax(axis=1)
    accuracy = np.mean(predicted == file.labels)
    assert abs(accuracy - pace[str(_LONG)]["training_accuracy"]) < 0.01


@pytest.mark.slow
def test_a_compiled_loop_trains_as_fit_does(digits, trained):
    _, output_dir, _ = trained
    still, short = (
        keras.models.load_model(output_dir / "trunks" / str(recipe) / "trained.keras")
        for recipe in (_STILL, _SHORT)
    )
    cut = _SHORT.cut(digits)
    model = resnet(8, (8, 8, 1), 10)
    initial = model.get_weights()  # for moving means and variances: zeros and ones
    learned = {id(variable) for variable in model.trainable_variables}
    model.set_weights(
        [
            weight if id(variable) in learned else fresh
            for variable, weight, fresh in zip(
                model.weights, still.get_weights(), initial, strict=True
            )
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(_SHORT.learning_rate, 4)
    loss = "sparse_categorical_crossentropy"
    compiled(model, keras.optimizers.Adam(schedule), loss, jit_compile=False)
    before = np.concatenate([np.ravel(v) for v in still.trainable_variables])
    order = np.random.default_rng([0, 7]).permutation(len(cut.train_labels))
    x, y = cut.train_images[order], cut.train_labels[order]
    model.fit(x, y, batch_size=147, shuffle=False, verbose=0)
    ours, theirs = (
        np.concatenate([np.ravel(v) for v in each.trainable_variables]) - before
        for each in (short, model)
    )
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99
    np.testing.assert_allclose(np.linalg.norm(ours), np.linalg.norm(theirs), rtol=0.01)
    for ours, theirs in zip(
        short.non_trainable_variables, model.non_trainable_variables, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.02)


@pytest.mark.slow
def test_the_pace_is_that_of_the_steps_after_the_first_loop(trained):
    _, _, pace = trained
    line = pace[str(_LONG)]
    assert (line["images"], line["epochs"], line["steps"]) == (588, 20, 80)
    later = line["seconds_in_all"] - line["seconds_of_first_call"]
    np.testing.assert_allclose(line["seconds_a_step"], later / 78, rtol=0.01)
    np.testing.assert_allclose(line["images_a_second"], 147 / line["seconds_a_step"])
    np.testing.assert_allclose(line["seconds_an_epoch"], 4 * line["seconds_a_step"])
    assert 0 < line["share_of_matmul"] < 1.5


@pytest.mark.slow
def test_what_is_there_is_not_trained_again(trained):
    packed, output_dir, pace = trained
    place = output_dir / "trunks" / str(_SHORT) / "trained.keras"
    stamp = place.stat().st_mtime_ns
    done = train(packed, output_dir)
    assert done.returncode == 0, done.stderr
    assert "Training" not in done.stdout
    assert place.stat().st_mtime_ns == stamp
    assert len((output_dir / "pace.jsonl").read_text().splitlines()) == len(pace)


@pytest.mark.slow
def test_another_backend_raises(trained):
    packed, output_dir, _ = trained
    flags = flags_of(packed, output_dir)
    done = programs.run("examples.train_on_jax", *flags, KERAS_BACKEND="tensorflow")
    assert done.returncode == 1
    assert "KERAS_BACKEND=jax" in done.stderr
