"""Tests for beam.py: pipelines as a whole, real workers, sources and the guide."""

import dataclasses
import os
import re
import runpy
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from examples.data import imbalance, load_images
from examples.retrain_from_shards import retrain
from tests.trained import train
from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.extraction.shard_reader import load_features
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.serving.export import export_classifier
from tf_pseudofeat.splitting.split_at import split_at

beam = pytest.importorskip("apache_beam")
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402

from examples import beam_extract  # noqa: E402
from examples.beam_sources import Digits, FeatureRows  # noqa: E402
from tests.beam_data import (  # noqa: E402
    C,
    by_row,
    image_model,
    images_and_labels,
    make_data,
)
from tests.paths import ROOT  # noqa: E402
from tests.same_moments import assert_same  # noqa: E402
from tf_pseudofeat.engines.beam import (  # noqa: E402
    BatchRows,
    CombineClassMoments,
    ExtractFeatures,
    WriteFeatureShards,
)

PACKAGE = ROOT / "tf_pseudofeat"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """`(model, folder of its SavedModel)`."""
    model, folder = image_model(), tmp_path_factory.mktemp("served")
    return model, export_classifier(model, folder, layer_name="features")


@pytest.fixture(scope="module")
def digits_model(tmp_path_factory):
    """The path of a little network for digits, trained for moments."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Flatten()(layers.Rescaling(1 / 255)(image))
    x = layers.Dense(12, activation="relu", name="features")(x)
    model = keras.Model(image, layers.Dense(10, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    digits = imbalance(load_images("digits"))
    train(model, digits.train_images, digits.train_labels, epochs=10)
    path = tmp_path_factory.mktemp("digits") / "trained.keras"
    model.save(path)
    return path


@pytest.mark.slow
def test_two_worker_processes_extract_what_one_process_does(digits_model, tmp_path):
    model = keras.models.load_model(digits_model)
    path = export_classifier(model, tmp_path / "served", layer_name="features")
    workers = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    options = PipelineOptions(["--runner=FnApiRunner", *workers])
    counted = tmp_path / "workers"
    counted.mkdir()

    class Counted(Digits):  # in here it is sent as a whole, and not by its name
        def read(self, start, stop):
            (counted / str(os.getpid())).touch()
            time.sleep(0.2)  # else one may be done before the other has begun
            yield from Digits.read(self, start, stop)

    moments = beam_extract.extract(
        Counted(range_rows=50), path, "full", tmp_path / "out", options
    )
    assert len(os.listdir(counted)) == 2
    assert str(os.getpid()) not in os.listdir(counted)
    digits = imbalance(load_images("digits"))
    labels = digits.train_labels
    expected, _ = extract_features(
        split_at(model, "features").trunk, (digits.train_images, labels), verbose=0
    )
    assert_same(moments, moments_of(expected, labels, 10), 1e-5)
    stored = load_features(tmp_path / "out" / "features")
    np.testing.assert_allclose(
        by_row(*stored), by_row(expected, labels), rtol=1e-5, atol=1e-5
    )
    before = model.get_layer("features").get_weights()
    result, _ = retrain(model, "features", tmp_path / "out", verbose=0)
    assert result.after["balanced_accuracy"] > result.before["balanced_accuracy"]
    for now, then in zip(
        model.get_layer("features").get_weights(), before, strict=True
    ):
        np.testing.assert_array_equal(now, then)


def read_all(source):
    """All rows, range by range in another order, and the ranges."""
    ranges = source.ranges()
    pieces = {start: list(source.read(start, stop)) for start, stop in ranges[::-1]}
    return [row for start, _ in ranges for row in pieces[start]], ranges


def test_a_tfds_set_is_read_in_ranges_within_its_files(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
    columns = {"image": images, "label": np.arange(50) % 3}
    tfds.dataset_builders.store_as_tfds_dataset(
        name="squares",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(4, 4, 1)),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
        ),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices(columns)},
        data_dir=tmp_path,
        download_config=tfds.download.DownloadConfig(num_shards=3),
    )
    source = beam_extract.source_of("squares", tmp_path, image_size=8)
    rows, ranges = read_all(dataclasses.replace(source, range_rows=7, image_size=None))
    assert source.num_classes == 3
    assert len(ranges) == 9  # 3 of each file
    found = {image.tobytes(): label for image, label in rows}
    given = zip(images, columns["label"].tolist(), strict=True)
    assert found == {image.tobytes(): label for image, label in given}
    (image, _), *_ = source.read(0, 1)
    assert (image.shape, image.dtype) == ((8, 8, 1), np.uint8)
    with pytest.raises(ValueError, match=r"splits \['train'\]; received 'test'"):
        dataclasses.replace(source, split="test").ranges()


def test_digits_are_those_that_the_main_job_trains_on():
    rows, ranges = read_all(Digits(seed=3))
    expected = imbalance(load_images("digits"), seed=3)
    assert [len(ranges), ranges[-1][1]] == [3, len(expected.train_labels)]
    images, labels = map(np.stack, zip(*rows, strict=True))
    np.testing.assert_array_equal(images, expected.train_images)
    np.testing.assert_array_equal(labels, expected.train_labels)


def test_a_feature_file_is_read_in_batches(tmp_path):
    features, labels = make_data(100)
    np.savez(tmp_path / "f.npz", features=np.float16(features), labels=labels)
    source = FeatureRows(str(tmp_path / "f.npz"), range_rows=30)
    batches, _ = read_all(source)
    assert [len(some) for _, some in batches] == [30, 30, 30, 10]
    moments = beam_extract.extract(
        source,
        None,
        "diag",
        tmp_path / "out",
        PipelineOptions(["--runner=FnApiRunner"]),
    )
    expected = np.float32(np.float16(features))
    assert_same(moments, moments_of(expected, labels, C, "diag"), 1e-5)
    np.savez(tmp_path / "g.npz", features=features)
    with pytest.raises(ValueError, match=r"g.npz lacks the arrays \['labels'\]"):
        FeatureRows(str(tmp_path / "g.npz")).ranges()
    with pytest.raises(FileNotFoundError, match="no feature file"):
        FeatureRows(str(tmp_path / "h.npz")).ranges()


def test_the_pipeline_of_the_guide_runs(served, tmp_path, monkeypatch):
    guide = (PACKAGE.parent / "docs" / "guide" / "clusters.md").read_text()
    (code,) = re.findall(r"^```py\n(import apache_beam.*?)^```$", guide, re.S | re.M)
    images, labels = images_and_labels()
    rows = list(zip(images, labels.tolist(), strict=True))
    code = code.replace('"served/1"', repr(served[1]))
    monkeypatch.chdir(tmp_path)
    session = {"rows": rows}
    exec(compile(code, "clusters.md", "exec"), session)
    assert session["gaussian"].moments.count[:C].sum() == len(rows)
    assert len(load_features("shards").labels) == len(rows)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CombineClassMoments(0), "`num_classes`.*received 0"),
        (lambda: CombineClassMoments(3, "round"), "`kind` must be .*'round'"),
        (lambda: BatchRows(0), "`batch_size`.*received 0"),
        (lambda: ExtractFeatures("served/1", 0.5), "`batch_size`.*received 0.5"),
        (lambda: WriteFeatureShards("gs://bucket/x"), "Mount the bucket"),
    ],
)
def test_settings_are_checked_on_the_launcher(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_without_beam_an_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)  # as if it were not there
    with pytest.raises(ImportError, match=r"pip install 'tf-pseudofeat\[beam\]'"):
        runpy.run_path(str(PACKAGE / "engines" / "beam.py"))


@pytest.mark.parametrize(
    "file",
    sorted(PACKAGE.rglob("*.py")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_nothing_else_in_the_package_imports_it(file):
    imports = re.findall(r"^\s*(?:from|import) .*", file.read_text(), re.M)
    of_beam = [line for line in imports if re.search(r"\bbeam\b|apache_beam", line)]
    assert bool(of_beam) == file.stem.startswith("beam")
