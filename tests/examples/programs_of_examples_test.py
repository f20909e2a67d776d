"""The examples, on real but small data."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.attach_to_existing_model import retrain, somebody_elses_model
from examples.data import (
    imbalance,
    load_images,
    long_tail_sizes,
    only_classes,
    step_sizes,
    training_stream,
)
from examples.resnet import resnet
from tests import programs
from tests.each_backend import needs_savedmodel
from tests.paths import ROOT

_CIFAR10 = ROOT.parent / "shared" / "tfds"


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


def run(module, *flags, **environment):
    command = [sys.executable, "-m", module, *map(str, flags)]
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **environment,
    }
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )


def answer_of(version, images):
    """What a SavedModel says to images in PNG files."""
    files = [tf.io.encode_png(image).numpy() for image in images]
    served = tf.saved_model.load(str(version)).signatures["encoded"]
    answer = served(image_bytes=tf.constant(files))
    best = answer["classes"].numpy()[:, 0].astype(int)  # "0" to "9"
    np.testing.assert_array_equal(best, np.argmax(answer["probabilities"], axis=1))
    return answer


def test_step_imbalance_cuts_the_chosen_classes_to_a_fraction():
    counts = [100, 200, 300, 400]
    sizes, minority = step_sizes(counts, 2, 10, np.random.default_rng(0))
    assert len(minority) == 2
    for class_id, count in enumerate(counts):
        assert sizes[class_id] == (count // 10 if class_id in minority else count)


@pytest.mark.parametrize("num_minority", [-1, 4])
def test_step_imbalance_leaves_at_least_one_class_whole(num_minority):
    with pytest.raises(ValueError, match=f"0 to 3.*received {num_minority}"):
        step_sizes([9, 9, 9, 9], num_minority, 10, np.random.default_rng(0))


def test_a_long_tail_falls_by_a_constant_factor():
    sizes, minority = long_tail_sizes([5000] * 10, 100, np.random.default_rng(0))
    ordered = np.sort(sizes)[::-1]
    assert (ordered[0], ordered[-1]) == (5000, 50)
    np.testing.assert_allclose(ordered[1:] / ordered[:-1], 100 ** (-1 / 9), rtol=0.02)
    assert sorted(sizes[minority]) == sorted(ordered[5:])


def test_imbalance_cuts_training_images_only(digits):
    cut = imbalance(digits, num_minority=3, seed=1)
    before, after = np.bincount(digits.train_labels), np.bincount(cut.train_labels)
    for class_id in range(10):
        whole = before[class_id]
        assert after[class_id] == (whole // 10 if class_id in cut.minority else whole)
    assert cut.test_images is digits.test_images

    def rows(x, y):
        return {(i.tobytes(), int(k)) for i, k in zip(x, y, strict=True)}

    kept = rows(cut.train_images, cut.train_labels)
    assert kept <= rows(digits.train_images, digits.train_labels)


def test_imbalance_follows_from_its_seed(digits):
    first, again, other = (imbalance(digits, seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.train_images, again.train_images)
    assert first.minority == again.minority
    assert first.minority != other.minority


@pytest.mark.parametrize("augment", [None, "shift", "flip_and_shift"])
def test_the_training_stream_gives_every_example_once(digits, augment):
    images, labels = digits.train_images[:100], digits.train_labels[:100]
    stream = training_stream(images, labels, 32, augment, seed=3)
    batches = list(stream.as_numpy_iterator())
    assert [len(y) for _, y in batches] == [32, 32, 32, 4]
    streamed = np.concatenate([y for _, y in batches])
    np.testing.assert_array_equal(np.bincount(streamed), np.bincount(labels))
    assert batches[0][0].dtype == np.uint8
    again = training_stream(images, labels, 32, augment, seed=3)
    for (x, _), (same, _) in zip(batches, again.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(x, same)
    second_epoch = next(stream.as_numpy_iterator())
    assert not np.array_equal(second_epoch[1], batches[0][1])


def test_two_classes_of_a_set_are_a_set(digits):
    images = only_classes(digits, ["8", "3"])
    assert images.class_names == ["8", "3"]
    for new, old in enumerate([8, 3]):
        np.testing.assert_array_equal(
            images.train_images[images.train_labels == new],
            digits.train_images[digits.train_labels == old],
        )
        np.testing.assert_array_equal(
            images.test_images[images.test_labels == new],
            digits.test_images[digits.test_labels == old],
        )
    assert set(images.train_labels) == set(images.test_labels) == {0, 1}


@pytest.mark.parametrize("names", [["8"], ["8", "8"], ["8", "eleven"]])
def test_one_class_or_an_unknown_one_is_no_set(digits, names):
    with pytest.raises(ValueError, match="two or more different names"):
        only_classes(digits, names)


def test_a_missing_set_is_named_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no prepared 'cifar10'.*--download"):
        load_images("cifar10", data_dir=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not _CIFAR10.exists(), reason=f"no prepared CIFAR-10 in {_CIFAR10}")
def test_cifar10_loads_from_a_prepared_folder():
    images = load_images("cifar10", data_dir=_CIFAR10)
    assert images.train_images.shape == (50000, 32, 32, 3)
    assert images.train_images.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(images.test_labels), [1000] * 10)
    assert images.class_names[3] == "cat"


# He et al. (2015), table 6: 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters.
@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_residual_networks_have_the_size_of_the_paper(depth, millions):
    model = resnet(depth, (32, 32, 3), 10)
    weights = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    assert weights / 1e6 == pytest.approx(millions, rel=0.04)
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert len(convolutions) + 1 == depth


def test_a_depth_that_is_not_6n_plus_2_raises():
    with pytest.raises(ValueError, match="6n . 2.*received depth 18"):
        resnet(18, (32, 32, 3), 10)


@pytest.fixture
def shallow_mobilenet(monkeypatch):
    """MobileNet ends after its first block, as to trace all of it takes seconds."""
    whole = keras.applications.MobileNet

    def shallow(*args, pooling, **kwargs):
        assert pooling == "avg"
        backbone = whole(*args, pooling=pooling, **kwargs)
        x = backbone.get_layer("conv_pw_1_relu").output
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(backbone.inputs, x, name=backbone.name)

    monkeypatch.setattr(keras.applications, "MobileNet", shallow)


@pytest.mark.slow
@pytest.mark.usefixtures("shallow_mobilenet")
def test_a_model_that_was_trained_before_is_retrained(digits, tmp_path):
    keras.utils.set_random_seed(0)
    images = imbalance(digits, num_minority=8, ratio=50, seed=0)
    images = dataclasses.replace(
        images,
        test_images=images.test_images[:128],
        test_labels=images.test_labels[:128],
    )
    trained = somebody_elses_model(images, epochs=1, seed=0)
    trained.save(tmp_path / "trained.keras")
    train, test = (
        training_stream(x, y, 128)
        for x, y in (
            (images.train_images, images.train_labels),
            (images.test_images, images.test_labels),
        )
    )
    model, report = retrain(tmp_path / "trained.keras", train, test, seed=0)
    assert report.kept
    assert report.real == np.bincount(images.train_labels).tolist()
    x = images.test_images[:64]
    assert not np.array_equal(
        *(keras.ops.convert_to_numpy(m(x)) for m in (model, trained))
    )


@needs_savedmodel
def test_the_main_job_runs_from_images_to_a_saved_model(tmp_path):
    small = ("--depth=8", "--epochs=2", "--num_minority=8", "--imbalance_ratio=50")
    flags = (*small, "--augment", f"--output_dir={tmp_path}")
    done = programs.run("examples.resnet56", *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"min class accuracy +\d+\.\d +\d+\.\d", done.stdout)
    results = json.loads((tmp_path / "report.json").read_text())
    pace = results["pace"]
    assert pace["images"] == sum(results["report"]["real"])
    assert pace["retraining_seconds"] == sum(results["report"]["seconds"].values())
    assert f"{pace['images_per_second']:,.0f} images/s" in done.stdout
    assert results["settings"]["depth"] == 8
    assert len(results["report"]["after"]["recall"]) == 10
    assert (tmp_path / "report.png").stat().st_size > 1000
    images = load_images("digits").test_images[:20]
    answers = [answer_of(tmp_path / "served" / n, images) for n in "12"]
    trained = keras.models.load_model(tmp_path / "trained.keras")
    expected = trained.predict(images, verbose=0)
    np.testing.assert_allclose(answers[0]["probabilities"], expected, atol=1e-5)
    assert not np.allclose(answers[1]["probabilities"], expected, atol=1e-3)

    again = programs.run(
        "examples.resnet56", *flags, f"--trained={tmp_path}/trained.keras"
    )
    assert again.returncode == 0, again.stderr[-3000:]
    assert sorted(os.listdir(tmp_path / "served")) == ["1", "2", "3", "4"]
    assert f"{tmp_path}/served/3, the network as trained" in again.stdout
    assert f"{tmp_path}/served/4, the network retrained" in again.stdout
    files = ["report.json", "report.png", "served", "trained.keras"]
    assert sorted(os.listdir(tmp_path)) == files  # and nothing unfinished
    repeated = json.loads((tmp_path / "report.json").read_text())
    for key in ("before", "after", "pseudo", "loss"):
        assert repeated["report"][key] == results["report"][key]


def numbers_of(folder):
    """{what: value} of all that the main job wrote, but for the time it took."""
    report = json.loads((folder / "report.json").read_text())["report"]
    del report["seconds"]
    found = {"report": report}
    trained = keras.models.load_model(folder / "trained.keras")
    for variable in [*trained.variables, *trained.optimizer.variables]:
        found["trained", variable.path] = keras.ops.convert_to_numpy(variable).tobytes()
    for version in sorted(os.listdir(folder / "served")):
        prefix = folder / "served" / version / "variables" / "variables"
        reader = tf.train.load_checkpoint(str(prefix))
        for name in reader.get_variable_to_shape_map():
            if not name.startswith("_"):  # the graph of objects, with node numbers
                found[version, name] = np.asarray(reader.get_tensor(name)).tobytes()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--augment", "--depth=8", "--epochs=2")])
def test_one_seed_gives_one_report_and_the_same_weights_to_the_bit(tmp_path, flags):
    numbers = []
    for hash_seed in ("1", "2"):
        output = f"--output_dir={tmp_path / hash_seed}"
        done = run("examples.resnet56", output, *flags, PYTHONHASHSEED=hash_seed)
        assert done.returncode == 0, done.stderr[-3000:]
        numbers.append(numbers_of(tmp_path / hash_seed))
    assert {key[0] for key in numbers[0] if key != "report"} == {"trained", "1", "2"}
    assert numbers[0].keys() == numbers[1].keys()
    different = [key for key in numbers[0] if numbers[0][key] != numbers[1][key]]
    assert different == []


def test_a_wrong_layer_raises_before_training(tmp_path):
    flags = "--layer=nowhere", f"--output_dir={tmp_path}"
    done = programs.run("examples.resnet56", *flags)
    assert done.returncode != 0
    assert "no layer 'nowhere'" in done.stderr
    assert "Epoch 1" not in done.stdout
