"""Features in files serve everybody who takes features, to the bit, and stay there."""

import contextlib
import errno
import importlib
import os
import pathlib

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tests.heads import fit, score
from tests.noise import noisy
from tests.small_models import small_classifier
from tf_pseudofeat.core import stored_array
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.extraction import shard_folder
from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.extraction.shard_reader import load_features
from tf_pseudofeat.extraction.shard_writer import ShardWriter, write_index
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.head import task as task_module
from tf_pseudofeat.retraining.callback import PseudoFeatureHeadRetrainer
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.retraining.tune import tune
from tf_pseudofeat.sampling.interleave import interleave

interleave_module = importlib.import_module("tf_pseudofeat.sampling.interleave")
N = 300
RNG = np.random.default_rng(0)
Y = RNG.permutation(np.repeat([0, 1, 2], [200, 80, 20]))
X = (RNG.normal(size=(N, 4)) + 2 * np.eye(4)[Y]).astype("float32")
WEIGHT = RNG.uniform(0.5, 2, N).astype("float32")
COUNTS = {1: 90, 2: 150}


@pytest.fixture(autouse=True)
def few_rows_at_a_time(monkeypatch):
    """Nobody reads a whole array, nor more than is read at a time."""

    def whole(self, dtype=None, copy=None):
        raise AssertionError("all of it was read into memory")

    read = StoredArray.__getitem__

    def some(self, rows):
        found = read(self, rows)
        few = len(found) < N or stored_array._CHUNK_BYTES > 2**20
        assert few or "/features-0" not in self._paths[0], "all of it was read"
        return found

    monkeypatch.setattr(StoredArray, "__array__", whole)
    monkeypatch.setattr(StoredArray, "__getitem__", some)
    monkeypatch.setattr(stored_array, "_CHUNK_BYTES", 100 * X[0].nbytes)
    monkeypatch.setattr(task_module, "_SCORING_BATCH", 64)


@pytest.fixture
def in_files(tmp_path):
    """A function that writes features and gives them back as they are read."""

    def write(features, labels, *weight, rows_per_shard=70):
        folder = tmp_path / f"set-{len(list(tmp_path.iterdir()))}"
        with ShardWriter(folder, rows_per_shard) as writer:
            writer.add(features, labels, *weight)
        write_index(folder)
        return load_features(folder)

    return write


def make_head():
    keras.utils.set_random_seed(4)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])


def bits(model):
    return [value.tobytes() for value in model.get_weights()]


def content(dataset):
    """Every batch as bytes."""
    return [[tensor.numpy().tobytes() for tensor in batch] for batch in dataset]


def folders(path):
    return sorted(each.name for each in path.iterdir())


# ---- Extraction. ---------------------------------------------------------------------


@pytest.mark.parametrize("augment", [None, noisy])
def test_extraction_is_that_in_memory(tmp_path, augment):
    trunk = keras.Sequential(small_classifier().layers[:1])
    data = tf.data.Dataset.from_tensor_slices((X, Y, WEIGHT)).batch(32)
    options = {"augment": augment, "verbose": 0}
    expected = extract_features(trunk, data, **options)
    extracted = extract_features(trunk, data, cache_dir=tmp_path / "a", **options)
    again = load_features(tmp_path / "a")
    for received in (extracted, again):
        assert isinstance(received.features, StoredArray)
        chunks = np.concatenate(list(received.features.chunks()))
        assert chunks.tobytes() == expected.features.tobytes()
        np.testing.assert_array_equal(received.labels, expected.labels)
        np.testing.assert_array_equal(received.sample_weight, expected.sample_weight)
    with pytest.raises(ValueError, match="holds a set .*load_features"):
        extract_features(trunk, data, cache_dir=tmp_path / "a", **options)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_extraction_that_fails_leaves_nothing(tmp_path, error):
    calls = []

    def augment(x):
        calls.append(x)
        if len(calls) == 14:  # of the seventh batch in the second view
            raise error
        return x

    trunk = keras.Sequential(small_classifier().layers[:1])
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(30)
    with pytest.raises(error):
        extract_features(
            trunk, data, augment=augment, views=2, cache_dir=tmp_path / "a", verbose=0
        )
    assert len(calls) == 14
    assert folders(tmp_path) == []


@contextlib.contextmanager
def full_disk(monkeypatch, after):
    """A disk on which so many files of arrays have room."""
    written = []

    def write(path, *args, **options):
        if pathlib.Path(path).suffix == ".npy" and args == ("wb",):
            written.append(path)
            if len(written) > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return open(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shard_folder, "open", write, raising=False)
        with pytest.raises(OSError, match=r"cannot be written \(No space left"):
            yield
    assert len(written) == after + 1


@pytest.mark.parametrize("after", range(4))
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, after):
    trunk = keras.Sequential(small_classifier().layers[:1])
    options = {"cache_dir": tmp_path / "a" / "b", "verbose": 0}
    if after < 2:  # a set without views has two files
        with full_disk(monkeypatch, after):
            extract_features(trunk, (X, Y), **options)
        assert folders(tmp_path) == []
    options |= {"extraction": Extraction.plain(), "epochs": 1}
    with full_disk(monkeypatch, after):  # in the features, or those to validate on
        unseen = X[::2], Y[::2]
        data = "features", (X, Y)
        retrain_head(small_classifier(), *data, validation_data=unseen, **options)
    assert folders(tmp_path) == []


def test_views_join_without_being_read(in_files):
    parts = [in_files(X, Y, WEIGHT), in_files(X[::-1], Y[::-1], WEIGHT[::-1])]
    joined = LabeledFeatures.concatenate(parts)
    assert joined.features.shape == (2 * N, 4)
    rows = RNG.permutation(2 * N)[: N - 1]
    expected = np.concatenate([X, X[::-1]])[rows]
    np.testing.assert_array_equal(joined.features[rows], expected)
    np.testing.assert_array_equal(joined.labels, np.concatenate([Y, Y[::-1]]))


# ---- Fitting. ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "low_rank"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_moments_are_those_in_memory(in_files, kind, dtype):
    x = X.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    expected = moments_of(x, Y, 4, kind)
    received = moments_of(in_files(x, Y).features, Y, 4, kind)
    for field in ("count", "mean", "scatter"):
        np.testing.assert_allclose(
            getattr(received, field),
            getattr(expected, field),
            rtol=1e-12 if dtype == "float64" else 1e-5,
            atol=1e-12 if dtype == "float64" else 1e-5,
        )
    if kind == "low_rank":  # of 4 features all directions are kept, in float32
        grams = [np.swapaxes(m.sketch, 1, 2) @ m.sketch for m in (received, expected)]
        np.testing.assert_allclose(*grams, rtol=1e-4, atol=1e-3)


def test_gaussians_are_those_in_memory(in_files):
    maps = X.reshape(N, 2, 2)
    expected, received = ClassConditionalGaussian(3), ClassConditionalGaussian(3)
    expected.adapt(maps, Y)
    received.adapt(in_files(maps, Y).features, np.eye(3)[Y])
    assert received.feature_shape == (2, 2)
    for mine, theirs in zip(received.weights, expected.weights, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_labels_of_another_length(in_files):
    features = in_files(X, Y).features
    with pytest.raises(ValueError, match=r"shape \(300, 4\) and 299 labels"):
        moments_of(features, Y[1:], 3)
    with pytest.raises(ValueError, match="must have the same length, at least 1"):
        interleave(features, Y[1:])


# ---- The stream. ---------------------------------------------------------------------


FORMS = {
    "plain": (X, Y),
    "one-hot, weighted": (X, np.eye(3, dtype="float32")[Y], WEIGHT),
    "bfloat16": (X.astype(ml_dtypes.bfloat16), Y),
    "float16 maps": (X.reshape(N, 2, 2, 1).astype("float16"), Y[:, None]),
}


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "fixed"])
@pytest.mark.parametrize("columns", FORMS.values(), ids=FORMS)
def test_the_stream_is_that_from_memory_to_the_bit(
    in_files, columns, fresh, monkeypatch
):
    monkeypatch.setattr(interleave_module, "_CHUNK_ROWS", 120)
    gaussian = ClassConditionalGaussian(3)
    gaussian.adapt(*columns[:2])

    def stream(features, labels, sample_weight=None):
        return interleave(
            features,
            labels,
            gaussian,
            COUNTS,
            batch_size=40,
            seed=(5, 6),
            sample_weight=sample_weight,
            fresh_each_epoch=fresh,
        ).repeat(2)

    loaded = in_files(*columns)
    received = stream(loaded.features, loaded.labels, loaded.sample_weight)
    expected = stream(*columns)
    assert received.element_spec == expected.element_spec
    assert len(received) == len(expected) == 2 * 14
    assert content(received) == content(expected)


def test_real_features_alone(in_files):
    loaded = in_files(X, Y)
    assert content(interleave(*loaded)) == content(interleave(X, Y))


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "fixed"])
def test_an_epoch_resumes_where_it_was_saved(in_files, tmp_path, fresh, monkeypatch):
    monkeypatch.setattr(interleave_module, "_CHUNK_ROWS", 120)
    loaded = in_files(X, Y)
    gaussian = ClassConditionalGaussian(3)
    gaussian.adapt(*loaded)
    settings = {"batch_size": 40, "fresh_each_epoch": fresh}
    # Twice the same, as a process that starts anew makes it.
    streams = [
        interleave(*loaded, gaussian, COUNTS, **settings),
        interleave(
            StoredArray(loaded.features._paths), Y, gaussian, COUNTS, **settings
        ),
    ]
    before = iter(streams[0])
    for _ in range(5):
        next(before)
    saved = tf.train.Checkpoint(iterator=before).write(str(tmp_path / "checkpoint"))
    expected = content(before)
    after = iter(streams[1])
    tf.train.Checkpoint(iterator=after).read(saved)
    assert content(after) == expected


# ---- The head. -----------------------------------------------------------------------


def test_a_head_is_trained_and_scored_as_from_memory(in_files):
    gaussian = ClassConditionalGaussian(3)
    gaussian.adapt(X, Y)
    results, heads = [], []
    for features in (LabeledFeatures(X, Y, WEIGHT), in_files(X, Y, WEIGHT)):
        heads.append(make_head())
        results.append(
            fit(
                heads[-1],
                features,
                features,
                num_classes=3,
                gaussian=gaussian,
                counts=COUNTS,
                epochs=2,
                tau=0.5,
            )
        )
    assert results[0] == results[1]
    assert bits(heads[0]) == bits(heads[1])


def test_a_single_output_is_scored_as_from_memory(in_files):
    head = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    labels = Y.clip(max=1)
    expected = score(head, LabeledFeatures(X, labels), 2, [1])
    assert score(head, in_files(X, labels), 2, [1]) == expected


@pytest.fixture
def one_chunk(monkeypatch):
    """So that moments are not merged, and the same to the bit."""
    monkeypatch.setattr(stored_array, "_CHUNK_BYTES", 2**26)


def test_a_retraining_is_that_in_memory(tmp_path, one_chunk):
    settings = {
        "validation_data": (X[::2], Y[::2]),
        "augment": noisy,
        "views": 2,
        "per_class": 60,
        "epochs": 2,
        "monitor": None,
        "verbose": 0,
    }
    models = [small_classifier(), small_classifier()]
    reports = [
        retrain_head(models[0], "features", (X, Y), **settings),
        retrain_head(models[1], "features", (X, Y), cache_dir=tmp_path, **settings),
    ]
    assert bits(models[0]) == bits(models[1])
    assert reports[0].after == reports[1].after
    assert reports[0].recipe.to_dict() == reports[1].recipe.to_dict()
    assert reports[0].used == reports[1].used == [120, 120, 40]
    assert folders(tmp_path) == ["validation", "view-0", "view-1"]
    for view in ("view-0", "view-1"):
        assert load_features(tmp_path / view).features.shape == (140, 5)
    assert load_features(tmp_path / "validation").features.shape == (N // 2, 5)
    with pytest.raises(ValueError, match=r"validation already holds a set"):
        retrain_head(models[1], "features", (X, Y), cache_dir=tmp_path)


def test_plain_features_are_a_set_of_their_own(tmp_path):
    settings = {"epochs": 1, "verbose": 0, "cache_dir": tmp_path}
    report = retrain_head(
        small_classifier(),
        "features",
        (X, Y),
        extraction=Extraction.plain(),
        **settings,
    )
    assert report.used == report.real == [200, 80, 20]
    assert folders(tmp_path) == ["training"]
    assert load_features(tmp_path / "training").features.shape == (N, 5)
    with pytest.raises(ValueError, match=r"training already holds a set"):
        retrain_head(small_classifier(), "features", (X, Y), **settings)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_retraining_that_fails_in_a_view_leaves_no_features(tmp_path, error):
    seen = []

    def fails(x):
        seen.append(len(x))
        if len(seen) == 5:  # the first is the check, then both views of a batch
            raise error("in the middle")
        return x

    options = {"batch_size": 60, "epochs": 1, "verbose": 0}
    extraction = Extraction(augment=fails, views=2, cache_dir=tmp_path, batch_size=150)
    model = small_classifier()
    with pytest.raises(error, match="in the middle"):
        retrain_head(model, "features", (X, Y), extraction=extraction, **options)
    assert folders(tmp_path) == []
    report = retrain_head(model, "features", (X, Y), extraction=extraction, **options)
    assert report.extraction.num_views == 2 and report.used == [400, 160, 40]
    assert folders(tmp_path) == ["view-0", "view-1"]


@pytest.mark.parametrize(
    "extraction",
    [Extraction(augment=noisy, views=2, per_class=60), Extraction.plain()],
    ids=["views", "plain"],
)
def test_settings_are_chosen_as_in_memory(tmp_path, extraction, one_chunk):
    data = small_classifier(), "features", (X, Y), (X[::2], Y[::2])
    settings = {"extraction": extraction, "epochs": 1, "verbose": 0}
    tunings = [
        tune(*data, **settings),
        tune(*data, cache_dir=tmp_path / "a", **settings),
    ]
    assert len(tunings[0].trials) >= 16
    assert tunings[0].trials == tunings[1].trials
    assert tunings[0].chosen == tunings[1].chosen
    assert tunings[0].recipe == tunings[1].recipe
    assert tunings[0].estimate == tunings[1].estimate


def test_a_retraining_chooses_its_settings(tmp_path):
    unseen = X[::2], Y[::2]
    report = retrain_head(
        small_classifier(),
        "features",
        (X, Y),
        validation_data=unseen,
        recipe="auto",
        augment=noisy,
        epochs=1,
        cache_dir=tmp_path,
        verbose=0,
    )
    assert report.tuning.counts == np.bincount(unseen[1]).tolist()
    assert report.recipe.blend == report.tuning.chosen.blend
    assert report.recipe.tau == report.tuning.chosen.tau
    assert folders(tmp_path) == ["validation", "view-0"]


def test_the_callback_leaves_no_features_behind(tmp_path, one_chunk):
    cache = tmp_path / "new" / "cache"
    seen = []

    class Watch(keras.layers.Layer):
        def call(self, x, training=False):
            seen.append(folders(cache) if cache.exists() else [])
            return x

    settings = {"epochs": 1, "verbose": 0, "augment": Watch(), "views": 1}
    retrainer = PseudoFeatureHeadRetrainer(
        "features", (X, Y), every=1, cache_dir=cache, **settings
    )
    small_classifier().fit(X, Y, epochs=2, verbose=0, callbacks=[retrainer])
    assert retrainer.report.kept
    assert folders(tmp_path) == []
    assert len({name for names in seen for name in names}) == 2  # one at a time
