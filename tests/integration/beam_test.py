"""Tests for beam.py: any bundling gives what one machine does, in real workers too."""

import dataclasses
import functools
import io
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
from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.extraction.shard_reader import load_features
from tf_pseudofeat.gaussians.moments import ClassMoments
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.gaussians.moments_file import load_moments
from tf_pseudofeat.serving.export import export_classifier
from tf_pseudofeat.splitting.split_at import split_at

beam = pytest.importorskip("apache_beam")
from apache_beam.ml.inference.base import RunInference  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.testing.util import assert_that  # noqa: E402

from examples import beam_extract  # noqa: E402
from examples.beam_sources import Digits, FeatureRows  # noqa: E402
from tests.paths import ROOT  # noqa: E402
from tests.same_moments import assert_same  # noqa: E402
from tf_pseudofeat.engines.beam import (  # noqa: E402
    BatchRows,
    ClassMomentsCoder,
    CombineClassMoments,
    ExtractFeatures,
    FeaturesModelHandler,
    WriteFeatureShards,
    WriteMoments,
)
from tf_pseudofeat.engines.beam_shards import (  # noqa: E402
    _write_index,
    _WriteShards,
)

PACKAGE = ROOT / "tf_pseudofeat"
KINDS = ("full", "tied", "diag", "low_rank")
every_kind = pytest.mark.parametrize("kind", KINDS)
C, D = 4, 6
FIELDS = ("count", "mean", "scatter")


def pipeline():
    """In this process. `DirectRunner` would first look for a binary on GitHub."""
    return beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))


def make_data(size=500, seed=0):
    """Far from the origin; class 3 has one example, and one batch alone has it."""
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 3, size - 1), 3)
    means = rng.normal(size=(C, D))
    return 100 + means[labels] + rng.normal(size=(size, D)), labels


def random_batches(features, labels, rng):
    cuts = np.sort(rng.choice(np.arange(1, len(labels)), 30, replace=False))
    order = rng.permutation(len(labels))
    pieces = np.split(features[order], cuts), np.split(labels[order], cuts)
    return list(zip(*pieces, strict=True))


def as_a_runner_might(combine, batches, rng):
    """Bundles, merges, compacts and sends in whatever order chance has."""
    coder = combine.get_accumulator_coder()
    bundles = [combine.create_accumulator() for _ in range(rng.integers(1, 9))]
    for batch in batches:
        number = rng.integers(len(bundles))
        bundles[number] = combine.add_input(bundles[number], batch)
        if rng.random() < 0.2:
            bundles[number] = combine.compact(bundles[number])
        if rng.random() < 0.2:
            bundles[number] = coder.decode(coder.encode(bundles[number]))
    while len(bundles) > 1:
        rng.shuffle(bundles)
        some = rng.integers(1, len(bundles) + 1)
        bundles = [combine.merge_accumulators(iter(bundles[:some])), *bundles[some:]]
        if rng.random() < 0.5:
            bundles.append(combine.create_accumulator())  # a bundle of nothing
        bundles[0] = coder.decode(coder.encode(bundles[0]))
        if some == 1:
            bundles = [combine.merge_accumulators(bundles)]
    return combine.extract_output(bundles[0])


# Combining.


@every_kind
@pytest.mark.parametrize("waiting_bytes", [0, 1000, 2**22])
def test_any_bundling_in_any_order_gives_what_one_machine_does(
    kind, waiting_bytes, monkeypatch
):
    monkeypatch.setattr(
        "tf_pseudofeat.engines.beam_moments._WAITING_BYTES", waiting_bytes
    )
    features, labels = make_data()
    expected = moments_of(features, labels, C, kind)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        batches = random_batches(features, labels, rng)
        received = as_a_runner_might(CombineClassMoments(C, kind), batches, rng)
        assert_same(received, expected)


def test_few_rows_wait_for_others_and_take_no_more_than_the_statistics(monkeypatch):
    monkeypatch.setattr("tf_pseudofeat.engines.beam_moments._WAITING_BYTES", 2**16)
    combine = CombineClassMoments(2, "tied")
    gathered, rows = combine.create_accumulator(), np.ones((64, 256), "float32")
    waiting, settled = [], 0
    for _ in range(200):
        gathered = combine.add_input(gathered, (rows, np.zeros(64)))
        waiting.append(gathered.buffered_bytes)
        settled += not gathered.batches
    statistics = 8 * (2 + 2 * 256 + 256 * 256)
    assert max(waiting) < statistics
    assert settled == 1 + (200 - 1) * rows.nbytes // (9 * rows.nbytes)


@every_kind
def test_what_was_extracted_or_merged_does_not_change_afterwards(kind, monkeypatch):
    monkeypatch.setattr("tf_pseudofeat.engines.beam_moments._WAITING_BYTES", 0)
    combine, expected = CombineClassMoments(C, kind), moments_of(*make_data(), C, kind)

    def added(accumulator):
        return combine.add_input(accumulator, make_data())

    accumulator = added(combine.create_accumulator())
    output = combine.extract_output(accumulator)
    merged = combine.merge_accumulators([combine.create_accumulator(), accumulator])
    combine.extract_output(added(merged))
    assert_same(combine.extract_output(accumulator), expected)
    combine.extract_output(added(accumulator))
    assert_same(output, expected)


@every_kind
def test_what_is_sent_is_bytes_of_the_size_that_is_promised(kind):
    combine = CombineClassMoments(C, kind)
    sent = combine.compact(combine.add_input(combine.create_accumulator(), make_data()))
    promised = {
        "full": C + C * D + C * D**2,
        "tied": C + C * D + D**2,
        "diag": C + 2 * C * D,
        "low_rank": C + 2 * C * D + C * D * D,  # of rank D
    }
    size = 8 * promised[kind]
    assert isinstance(sent, bytes)
    assert size < len(sent) < size + 1500
    assert combine.get_accumulator_coder().encode(sent) is sent
    assert combine.compact(combine.create_accumulator()) == b""


def test_the_coder_is_beam_s_own_choice_and_has_one_form_for_each_value():
    coder = beam.coders.registry.get_coder(ClassMoments)
    assert isinstance(coder, ClassMomentsCoder)
    assert coder.is_deterministic()
    moments = moments_of(*make_data(), C)
    encoded = coder.encode(moments)
    assert coder.encode(moments_of(*make_data(), C)) == encoded
    assert coder.encode(coder.decode(encoded)) == encoded


def test_a_pickle_among_the_accumulators_raises():
    file = io.BytesIO()
    np.savez(file, count=np.array([{}]), mean=[[1.0]], scatter=[[1.0]], kind="diag")
    combine = CombineClassMoments(1, "diag")
    with pytest.raises(ValueError, match="dtype is object.*needs pickle"):
        combine.merge_accumulators([file.getvalue()])


def test_globally_by_key_and_with_fanout(kind="tied"):
    features, labels = make_data()
    batches = random_batches(features, labels, np.random.default_rng(1))
    odd = [batch for number, batch in enumerate(batches) if number % 2]
    expected = moments_of(features, labels, C, kind)
    expected_odd = moments_of(*map(np.concatenate, zip(*odd, strict=True)), C, kind)

    def same(expected, received):
        (moments,) = received
        assert_same(moments, expected)

    with pipeline() as p:
        combine = CombineClassMoments(C, kind)
        rows = p | beam.Create(list(enumerate(batches))) | beam.Reshuffle()
        values = rows | beam.Values()
        total = values | "One" >> beam.CombineGlobally(combine)
        fanned = values | "Fanned" >> beam.CombineGlobally(combine).with_fanout(3)
        keyed = rows | "Key" >> beam.MapTuple(lambda number, x: (number % 2, x))
        by_key = keyed | "Key by key" >> beam.CombinePerKey(combine)
        hot = keyed | "Hot" >> beam.CombinePerKey(combine).with_hot_key_fanout(3)
        assert total.element_type is ClassMoments
        for name, moments in {"one": total, "fanned": fanned}.items():
            assert_that(moments, functools.partial(same, expected), name)
        for name, moments in {"by key": by_key, "hot": hot}.items():
            moments = moments | f"{name}: odd" >> beam.Filter(lambda pair: pair[0] == 1)
            moments = moments | f"{name}: values" >> beam.Values()
            assert_that(moments, functools.partial(same, expected_odd), name)


def test_of_no_batch_there_are_no_moments():
    combine = CombineClassMoments(C)
    with pytest.raises(ValueError, match=r"no batch.*without_defaults\(\)"):
        combine.extract_output(combine.create_accumulator())
    with pipeline() as p:
        nothing = p | beam.Create([])
        moments = nothing | beam.CombineGlobally(combine).without_defaults()
        assert_that(moments, lambda received: received == [] or pytest.fail(received))


# The trunk.


def model_of(inputs, joined):
    features = layers.Dense(5, activation="tanh", name="features")(joined)
    return keras.Model(inputs, layers.Dense(C, activation="softmax")(features))


def image_model(seed=0):
    keras.utils.set_random_seed(seed)
    image = keras.Input((3, 3, 1), name="image")
    return model_of(image, layers.Flatten()(layers.Rescaling(1 / 255)(image)))


def images_and_labels(size=90):
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (size, 3, 3, 1), dtype=np.uint8)
    return images, rng.integers(0, C, size)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """`(model, folder of its SavedModel)`."""
    model, folder = image_model(), tmp_path_factory.mktemp("served")
    return model, export_classifier(model, folder, layer_name="features")


def test_run_inference_gives_the_features_of_the_trunk(served):
    model, path = served
    images, _ = images_and_labels()
    expected = split_at(model, "features").trunk.predict(images, verbose=0)

    def same(received):
        order = {x.tobytes(): row for x, row in zip(images, expected, strict=True)}
        assert len(received) == len(images)
        for result in received:
            row = order[result.example.tobytes()]
            np.testing.assert_allclose(result.inference, row, atol=1e-6)
            assert result.model_id == path

    with pipeline() as p:
        handler = FeaturesModelHandler(path, max_batch_size=32)
        assert_that(p | beam.Create(list(images)) | RunInference(handler), same)


def test_a_newer_model_is_another_folder(served, tmp_path):
    newer = image_model(seed=1)
    handler = FeaturesModelHandler(served[1])
    handler.update_model_path(export_classifier(newer, tmp_path, layer_name="features"))
    images, _ = images_and_labels()
    results = handler.run_inference(list(images), handler.load_model())
    expected = split_at(newer, "features").trunk.predict(images, verbose=0)
    received = np.stack([result.inference for result in results])
    np.testing.assert_allclose(received, expected, atol=1e-6)
    handler.update_model_path(None)  # what a side input says before it knows
    assert handler.load_model() is not None
    assert handler.get_num_bytes(list(images)) == images.nbytes


def test_inputs_by_name(tmp_path):
    inputs = {"left": keras.Input((2,), name="left"), "right": keras.Input((3,))}
    inputs["right"] = keras.Input((3,), name="right")
    model = model_of(inputs, layers.Concatenate()(list(inputs.values())))
    handler = FeaturesModelHandler(
        export_classifier(model, tmp_path, layer_name="features")
    )
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(7, n)) for name, n in (("left", 2), ("right", 3))}
    rows = [{name: array[i] for name, array in x.items()} for i in range(7)]
    results = handler.run_inference(rows, handler.load_model())
    expected = split_at(model, "features").trunk.predict(x, verbose=0)
    received = np.stack([result.inference for result in results])
    np.testing.assert_allclose(received, expected, atol=1e-6)
    assert handler.get_num_bytes(rows) == 7 * 5 * 8


def test_features_keep_their_labels(served, tmp_path):
    model, path = served
    images, labels = images_and_labels()
    expected, _ = extract_features(
        split_at(model, "features").trunk, (images, labels), verbose=0
    )

    def same(batches):
        features, found = map(np.concatenate, zip(*batches, strict=True))
        assert features.dtype == np.float32
        order = np.lexsort(features.T)
        wanted = np.lexsort(expected.T)
        np.testing.assert_allclose(features[order], expected[wanted], atol=1e-6)
        np.testing.assert_array_equal(found[order], labels[wanted])

    with pipeline() as p:
        rows = p | beam.Create(list(zip(images, labels.tolist(), strict=True)))
        batches = rows | ExtractFeatures(path, batch_size=16)
        assert_that(batches, same)
        moments = batches | beam.CombineGlobally(CombineClassMoments(C, "diag"))
        moments | WriteMoments(str(tmp_path / "moments.npz"))
    received = load_moments(tmp_path / "moments.npz")
    assert_same(received, moments_of(expected, labels, C, "diag"), 1e-5)
    assert os.listdir(tmp_path) == ["moments.npz"]


def test_rows_become_batches():
    def checked(batches):
        sizes = [len(labels) for _, labels in batches]
        assert sum(sizes) == 25
        assert max(sizes) == 10
        for features, labels in batches:
            np.testing.assert_array_equal(features[:, 0], labels)

    with pipeline() as p:
        rows = p | beam.Create([(np.full(3, i), i) for i in range(25)])
        assert_that(rows | BatchRows(10), checked)


# Shards.


def by_row(features, labels):
    """Rows with their labels, in an order that does not depend on theirs."""
    rows = np.column_stack([features, labels])
    return rows[np.lexsort(rows.T)]


def test_shards_hold_every_row_once(tmp_path):
    features, labels = make_data()
    batches = random_batches(features, labels, np.random.default_rng(0))
    with pipeline() as p:
        folder = (
            p
            | beam.Create(batches)
            | beam.Reshuffle()
            | WriteFeatureShards(tmp_path / "features", rows_per_shard=100)
        )
        assert_that(folder, lambda received: received == [str(tmp_path / "features")])
    stored = load_features(tmp_path / "features")
    assert max(stored.features.lengths) == 100
    np.testing.assert_array_equal(by_row(*stored), by_row(features, labels))


def test_a_bundle_that_was_tried_again_counts_once(tmp_path):
    first, second = ((np.full((30, 2), i, "f4"), np.full(30, i)) for i in (1, 2))

    def bundle(batches):
        writer = _WriteShards(str(tmp_path), 20)
        writer.start_bundle()
        for batch in batches:
            writer.process(batch)
        return writer

    def committed(writer):
        return [windowed.value for windowed in writer.finish_bundle()]

    lost = committed(bundle([first]))  # the runner never hears of it
    killed = bundle([first])  # in the middle: a whole shard, and rows in memory
    kept = committed(bundle([first])) + committed(bundle([second]))
    assert not set(lost) & set(kept)
    assert not committed(bundle([]))
    assert _write_index(kept, str(tmp_path)) == str(tmp_path)
    _write_index(kept, str(tmp_path))  # its own try that was not heard of
    stored = load_features(tmp_path)
    expected = map(np.concatenate, zip(first, second, strict=True))
    np.testing.assert_array_equal(by_row(*stored), by_row(*expected))
    with pytest.raises(ValueError, match="already holds a set of features"):
        _write_index(lost, str(tmp_path))
    before = len(os.listdir(tmp_path))
    killed.teardown()  # where the worker itself goes on
    assert len(os.listdir(tmp_path)) == before - 3


# Workers that are processes, the example, and the head that follows from it.


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
    model.fit(digits.train_images, digits.train_labels, epochs=10, verbose=0)
    path = tmp_path_factory.mktemp("digits") / "trained.keras"
    model.save(path)
    return path


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


# What is read.


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


# What must not get in.


@pytest.mark.parametrize(
    "batch, message",
    [
        (np.ones((3, 2)), r"batches \(features .*received a ndarray. BatchRows"),
        ((np.ones(2), 1), r"shapes \(2,\) and \(\). BatchRows"),
        ((np.ones((3, 2)), [1, 2]), r"shapes \(3, 2\) and \(2,\)"),
        ((np.ones((1, 2)), [9]), "class ids 0 to 3"),
        ((np.full((1, 2), np.nan), [1]), "NaN or infinite"),
    ],
)
def test_what_is_no_batch(batch, message):
    combine = CombineClassMoments(C)
    with pytest.raises(ValueError, match=message):
        combine.compact(combine.add_input(combine.create_accumulator(), batch))


def test_features_of_two_sizes():
    combine = CombineClassMoments(C)
    first, second = ((np.ones((1, size)), [1]) for size in (2, 3))
    gathered = combine.add_input(combine.create_accumulator(), first)
    with pytest.raises(ValueError, match=r"the same shape; .*\[1, 2\] and \[1, 3\]"):
        combine.add_input(gathered, second)
    with pytest.raises(ValueError, match=r"\[4, 2\] and .*\[4, 3\]"):
        combine.add_input(combine.compact(gathered), second)
        combine.merge_accumulators(
            combine.add_input(combine.create_accumulator(), batch)
            for batch in (first, second)
        )


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


@pytest.mark.parametrize(
    "transform",
    [
        BatchRows(),
        ExtractFeatures("served/1"),
        WriteFeatureShards("features"),
        WriteMoments("moments.npz"),
    ],
)
def test_a_runner_that_loses_rows(transform):
    class DaskRunner(beam.runners.PipelineRunner):  # its package may be missing
        pass

    elements = beam.Pipeline(DaskRunner()) | beam.Create([])
    with pytest.raises(NotImplementedError, match="DaskRunner.*10 rows.*gave 8"):
        elements | transform


def test_beam_s_own_dask_runner_is_recognized():
    pytest.importorskip("distributed")
    name = "apache_beam.runners.dask.dask_runner.DaskRunner"
    for pipeline in (
        beam.Pipeline(name),
        beam.Pipeline(options=PipelineOptions([f"--runner={name}"])),
    ):
        with pytest.raises(NotImplementedError, match=r"tf_pseudofeat\.engines\.parts"):
            pipeline | beam.Create([]) | BatchRows()


def test_a_model_without_features(served, tmp_path):
    path = export_classifier(served[0], tmp_path)
    with pytest.raises(ValueError, match=r"\['serving_default'\].*layer_name=\.\.\."):
        FeaturesModelHandler(path).load_model()
    with pytest.raises(OSError, match="nowhere"):
        FeaturesModelHandler(str(tmp_path / "nowhere")).load_model()


# Without Beam.


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
