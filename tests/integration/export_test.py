"""Tests for export.py: what is written is loaded where only TensorFlow is."""

import concurrent.futures
import dataclasses
import os
import pathlib
import signal
import textwrap
import threading
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests import programs
from tests.each_backend import needs_savedmodel
from tf_pseudofeat.evaluation.thresholds import Thresholds
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.serving.export import export_classifier, next_version

RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, 4)).astype("float32")
IMAGES = RNG.normal(size=(7, 6, 6, 1)).astype("float32")


def dense_model(activation="softmax", dtype=None, name=None):
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((4,), name=name)
    x = layers.Dense(5, activation="relu", name="features")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(inputs, layers.Dense(3, activation=activation, dtype=dtype)(x))


def conv_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, name="maps"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, np.arange(7) % 3, verbose=0)
    return model


def dict_model():
    left, right = keras.Input((1,), name="left"), keras.Input((3,), name="right")
    joined = layers.Concatenate(name="joined")([left, right])
    one = layers.Dense(3, activation="softmax")(joined)
    two = layers.Dense(1)(joined)
    return keras.Model({"left": left, "right": right}, {"kind": one, "size": two})


def mixed_model():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return dense_model(dtype="float32")
    finally:
        keras.config.set_dtype_policy(before)


def wide_model():
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((4,))
    x = layers.Dense(900, name="features")(x)
    return keras.Model(inputs, layers.Dense(300, activation="softmax")(x))


def fitted_gaussian(size=5):
    gaussian = ClassConditionalGaussian(3)
    gaussian.adapt(RNG.normal(size=(60, size)), np.arange(60) % 3)
    return gaussian


def numpy_of(outputs):
    return {name: np.asarray(value) for name, value in outputs.items()}


def names_of(folder, endpoint="serving_default"):
    """(names of the inputs, names of the outputs) of an endpoint."""
    signature = tf.saved_model.load(str(folder)).signatures[endpoint]
    inputs = signature.structured_input_signature[1]
    return set(inputs), set(signature.structured_outputs)


# ---- A process that has TensorFlow and nothing else. ---------------------------------

SERVE = """
    import pathlib, sys

    # As if they were not installed.
    for name in ("keras", "tf_keras", "tf_pseudofeat", "tensorflow_probability"):
        sys.modules[name] = None
    import numpy as np
    import tensorflow as tf

    for folder in pathlib.Path(sys.argv[1]).iterdir():
        arrays = dict(np.load(folder / "inputs.npz"))
        loaded = tf.saved_model.load(str(folder / "1"))
        results = {}
        for endpoint, signature in loaded.signatures.items():
            for rows in (1, 7):
                inputs = {k: tf.constant(v[:rows]) for k, v in arrays.items()}
                for name, value in signature(**inputs).items():
                    results[f"{endpoint}/{name}/{rows}"] = value.numpy()
        np.savez(folder / "outputs.npz", **results)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """{case: (what was exported, what the other process answered)}."""
    folder = tmp_path_factory.mktemp("served")
    gaussian = fitted_gaussian()
    densities = {"layer_name": "features", "gaussian": gaussian}
    cases = {
        "dense": (dense_model(), {"features": X}, densities),
        "conv": (conv_model(), {"image": IMAGES}, {"layer_name": "maps"}),
        "dict": (dict_model(), {"left": X[:, :1], "right": X[:, 1:]}, {}),
        "mixed": (mixed_model(), {"features": X}, densities),
    }
    for name, (model, inputs, settings) in cases.items():
        returned = export_classifier(model, folder / name / "1", **settings)
        assert returned == str(folder / name / "1")
        np.savez(folder / name / "inputs.npz", **inputs)
    done = programs.run(
        "-c", textwrap.dedent(SERVE), folder, imports="tests.serving_imports"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        name: (model, gaussian, dict(np.load(folder / name / "outputs.npz")))
        for name, (model, _, _) in cases.items()
    }


def endpoints(answers):
    return {key.rpartition("/")[0] for key in answers}


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("case", ["dense", "mixed"])
def test_probabilities_features_and_densities_are_served(served, case, rows):
    model, gaussian, answers = served[case]
    assert endpoints(answers) == {
        "serving_default/probabilities",
        "features/features",
        "log_density/log_density",
    }
    tolerance = 1e-5 if case == "dense" else 1e-2
    expected = model.predict(X[:rows], verbose=0)
    answer = answers[f"serving_default/probabilities/{rows}"]
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, expected, atol=tolerance)
    trunk = keras.Model(model.input, model.get_layer("features").output)
    features = trunk.predict(X[:rows], verbose=0)
    answer = answers[f"features/features/{rows}"]
    assert answer.dtype == features.dtype
    np.testing.assert_allclose(answer, features, atol=tolerance)
    densities = gaussian.distribution.log_prob(features[:, None].astype("float32"))
    answer = answers[f"log_density/log_density/{rows}"]
    np.testing.assert_allclose(answer, densities, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 7])
def test_images_give_logits_and_feature_maps(served, rows):
    model, _, answers = served["conv"]
    assert endpoints(answers) == {"serving_default/logits", "features/features"}
    expected = model.predict(IMAGES[:rows], verbose=0)
    answer = answers[f"serving_default/logits/{rows}"]
    np.testing.assert_allclose(answer, expected, atol=1e-5)
    maps = np.asarray(model.get_layer("maps")(IMAGES[:rows]))
    answer = answers[f"features/features/{rows}"]
    np.testing.assert_allclose(answer, maps, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7])
def test_dicts_of_inputs_and_outputs_keep_their_names(served, rows):
    model, _, answers = served["dict"]
    assert endpoints(answers) == {"serving_default/kind", "serving_default/size"}
    inputs = {"left": X[:rows, :1], "right": X[:rows, 1:]}
    expected = model.predict(inputs, verbose=0)
    for name in ("kind", "size"):
        answer = answers[f"serving_default/{name}/{rows}"]
        np.testing.assert_allclose(answer, expected[name], atol=1e-5)


# ---- Names. --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "activation, name, settings, expected",
    [
        ("softmax", None, {}, ("features", "probabilities")),
        ("sigmoid", "measurements", {}, ("measurements", "probabilities")),
        (None, None, {}, ("features", "logits")),
        ("tanh", None, {}, ("features", "outputs")),
        ("softmax", None, {"input_name": "x", "output_name": "y"}, ("x", "y")),
    ],
)
def test_names_of_input_and_output(tmp_path, activation, name, settings, expected):
    model = dense_model(activation, name=name)
    export_classifier(model, tmp_path / "1", **settings)
    assert names_of(tmp_path / "1") == ({expected[0]}, {expected[1]})


def test_several_outputs_keep_their_layers_names(tmp_path):
    inputs = keras.Input((4,), name="x")
    outputs = [layers.Dense(2, name="one")(inputs), layers.Dense(3, name="two")(inputs)]
    export_classifier(keras.Model(inputs, outputs), tmp_path / "1")
    assert names_of(tmp_path / "1") == ({"x"}, {"one", "two"})


def test_every_endpoint_says_that_the_batch_may_have_any_size(tmp_path):
    settings = {"layer_name": "features", "gaussian": fitted_gaussian()}
    export_classifier(dense_model(), tmp_path / "1", **settings)
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    shapes = {"serving_default": [None, 3], "features": [None, 5]}
    shapes["log_density"] = [None, 3]
    for endpoint, shape in shapes.items():
        signature = signatures[endpoint]
        (given,) = signature.structured_input_signature[1].values()
        assert given.shape.as_list() == [None, 4]
        (result,) = signature.structured_outputs.values()
        assert result.shape.as_list() == shape


@pytest.mark.parametrize("classes_at_a_time", [1, 2, 3])
def test_densities_of_low_rank_are_served(tmp_path, monkeypatch, classes_at_a_time):
    monkeypatch.setattr(
        "tf_pseudofeat.gaussians.diagonal._DEVIATIONS", 5 * classes_at_a_time
    )
    model, gaussian = dense_model(), ClassConditionalGaussian(3, "low_rank", rank=2)
    gaussian.adapt(RNG.normal(size=(60, 5)), np.arange(60) % 3)
    export_classifier(model, tmp_path / "1", layer_name="features", gaussian=gaussian)
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    x = tf.constant(RNG.normal(size=(7, 4)).astype("float32"))
    (features,) = signatures["features"](x).values()
    (received,) = signatures["log_density"](x).values()
    expected = gaussian.distribution.log_prob(features[:, None])
    np.testing.assert_allclose(received, expected, rtol=1e-4)


# ---- What travels, and what does not. ------------------------------------------------


def files_of(folder):
    return b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())


def variables_of(folder):
    found = tf.train.list_variables(str(folder / "variables" / "variables"))
    return [(name, tuple(shape)) for name, shape in found if shape]


def test_statistics_of_the_training_data_travel_only_if_asked_for(tmp_path):
    model, gaussian = dense_model(), fitted_gaussian()
    export_classifier(model, tmp_path / "1", layer_name="features")
    export_classifier(model, tmp_path / "2", layer_name="features", gaussian=gaussian)
    mean, scatter = (getattr(gaussian.moments, n) for n in ("mean", "scatter"))
    whitening = gaussian.whitening.numpy().tobytes()
    assert whitening in files_of(tmp_path / "2")
    assert whitening not in files_of(tmp_path / "1")
    for version in "12":  # They are not what densities are made of.
        assert mean.tobytes() not in files_of(tmp_path / version)
        assert scatter.tobytes() not in files_of(tmp_path / version)
    shapes = {shape for _, shape in variables_of(tmp_path / "1")}
    assert shapes == {tuple(weight.shape) for weight in model.weights}


def test_state_of_the_optimizer_does_not_travel(tmp_path):
    model = conv_model()
    momentum = model.optimizer.variables[2].numpy()
    assert momentum.any()
    export_classifier(model, tmp_path / "1")
    assert momentum.tobytes() not in files_of(tmp_path / "1")
    names = [n for n, _ in variables_of(tmp_path / "1") if n.startswith("weights/")]
    assert len(names) == len(model.weights)


@pytest.mark.parametrize("make", [dense_model, wide_model, mixed_model])
def test_each_weight_is_stored_once(tmp_path, make):
    model = make()
    path = export_classifier(model, tmp_path, layer_name="features")
    weights = sum(weight.numpy().nbytes for weight in model.weights)
    data = pathlib.Path(path, "variables", "variables.data-00000-of-00001")
    stored = data.stat().st_size
    assert weights <= stored <= 1.1 * weights + 2000


@pytest.mark.tensorflow(reason="strings")
def test_vocabularies_travel(tmp_path):
    words = np.array([["red"], ["blue"], ["unheard of"]])
    word = keras.Input((1,), dtype="string", name="word")
    lookup = keras.layers.StringLookup(
        vocabulary=["red", "blue"], output_mode="one_hot"
    )
    nested = keras.Sequential([keras.Input((1,), dtype="string"), lookup])
    model = keras.Model(word, layers.Dense(3, activation="softmax")(nested(word)))
    served = tf.saved_model.load(export_classifier(model, tmp_path)).signatures
    answer = served["serving_default"](word=tf.constant(words))["probabilities"]
    np.testing.assert_allclose(answer, model(tf.constant(words)), atol=1e-6)
    assert len(np.unique(answer[:, 0])) == 3


class Noise(layers.Layer):
    """Draws in inference as well, so its seed is part of what is served."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + keras.random.uniform(keras.ops.shape(x), seed=self.seeds)


def test_state_that_is_used_in_inference_travels(tmp_path):
    x = inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, Noise()(x))
    path = export_classifier(model, tmp_path)
    expected = [model(X, training=False) for _ in range(2)]
    served = tf.saved_model.load(path).signatures["serving_default"]
    for draw in expected:
        np.testing.assert_allclose(served(x=tf.constant(X))["outputs"], draw, atol=1e-6)
    assert not np.allclose(*expected)


def test_names_of_classes_travel_as_an_asset(tmp_path):
    names = ["chat", "chien", "\u00e9l\u00e9phant"]
    path = export_classifier(dense_model(), tmp_path, class_names=names)
    moved = pathlib.Path(path).rename(tmp_path / "2")
    loaded = tf.saved_model.load(str(moved))
    asset = pathlib.Path(loaded.class_names.asset_path.numpy().decode())
    assert asset == moved / "assets" / "class_names.txt"
    assert asset.read_text(encoding="utf-8").splitlines() == names
    answer = loaded.signatures["serving_default"](features=tf.constant(X))
    best = [name.decode() for name in answer["classes"].numpy()[:, 0]]
    assert best == [names[i] for i in np.argmax(answer["probabilities"], axis=1)]


def test_model_is_not_changed(tmp_path):
    model = conv_model()
    before = model.predict(IMAGES, verbose=0)
    export_classifier(model, tmp_path / "1", layer_name="pool")
    np.testing.assert_array_equal(model.predict(IMAGES, verbose=0), before)
    model.fit(IMAGES, np.arange(7) % 3, verbose=0)


# ---- The folder. ---------------------------------------------------------------------


def test_folder_of_versions_gets_the_next(tmp_path):
    served = tmp_path / "served"
    for path, version in [(served, 1), (served / "7", 7), (f"{served}/", 8)]:
        assert export_classifier(dense_model(), path) == str(served / str(version))
    assert sorted(path.name for path in served.iterdir()) == ["1", "7", "8"]


def test_version_that_exists_is_not_overwritten_and_the_next_is_named(tmp_path):
    export_classifier(dense_model(), tmp_path / "served" / "1")
    before = files_of(tmp_path)
    with pytest.raises(FileExistsError, match="not overwritten") as caught:
        export_classifier(dense_model("sigmoid"), tmp_path / "served" / "1")
    assert str(tmp_path / "served" / "2") in str(caught.value)
    assert files_of(tmp_path) == before


def while_writing(monkeypatch, then):
    """Has `then(folder)` called when a SavedModel has been written aside."""
    save = tf.saved_model.save

    def saved(module, folder, **kwargs):
        save(module, folder, **kwargs)
        then(pathlib.Path(folder))

    monkeypatch.setattr(tf.saved_model, "save", saved)


def test_two_at_once_get_a_number_each(tmp_path, monkeypatch):
    both_have_written = threading.Barrier(2, timeout=60)
    while_writing(monkeypatch, lambda folder: both_have_written.wait())
    models = [dense_model("softmax"), dense_model("sigmoid")]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(export_classifier, models, [tmp_path / "served"] * 2))
    assert sorted(paths) == [str(tmp_path / "served" / n) for n in "12"]
    for model, path in zip(models, paths, strict=True):
        served = tf.saved_model.load(path).signatures["serving_default"]
        answer = served(features=tf.constant(X))["probabilities"]
        np.testing.assert_allclose(answer, model.predict(X, verbose=0), atol=1e-5)


def test_named_version_that_another_took_meanwhile_is_theirs(tmp_path, monkeypatch):
    def another(folder):
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "saved_model.pb").write_bytes(b"theirs")

    while_writing(monkeypatch, another)
    with pytest.raises(FileExistsError, match="1 exists.*the next one, .*2"):
        export_classifier(dense_model(), tmp_path / "1")
    assert files_of(tmp_path) == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, error):
    def fail(folder):
        raise error("disk full")

    with monkeypatch.context() as patch:
        while_writing(patch, fail)
        with pytest.raises(error, match="disk full"):
            export_classifier(dense_model(), tmp_path / "served")
    assert list((tmp_path / "served").iterdir()) == []
    assert export_classifier(dense_model(), tmp_path / "served")[-1] == "1"


def test_folder_appears_whole(tmp_path, monkeypatch):
    """Whoever watches for version numbers sees none while the files are written."""
    seen = []
    while_writing(monkeypatch, lambda folder: seen.append(os.listdir(tmp_path)))
    export_classifier(dense_model(), tmp_path / "1")
    ((name,),) = seen
    assert not name.isdecimal()
    assert os.listdir(tmp_path) == ["1"]
    assert (tmp_path / "1").stat().st_mode & 0o777 == 0o755


KILLED = """
    import os, signal, sys
    import keras
    import tensorflow as tf
    from tf_pseudofeat.serving.export import export_classifier

    save = tf.saved_model.save

    def save_and_die(*args, **kwargs):
        save(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    tf.saved_model.save = save_and_die
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    export_classifier(model, sys.argv[1])
"""


@pytest.mark.slow
@needs_savedmodel
def test_export_that_is_killed_leaves_no_version(tmp_path):
    done = programs.run("-c", textwrap.dedent(KILLED), tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".unfinished-")
    assert export_classifier(dense_model(), tmp_path) == str(tmp_path / "1")


@pytest.mark.parametrize(
    "there, expected",
    [
        ([], "1"),
        (["1"], "2"),
        (["1", "9", "10"], "11"),
        (["3", "best", ".unfinished-4", "5x", "-6", "\u0667"], "4"),
    ],
)
def test_next_version(tmp_path, there, expected):
    for name in there:
        (tmp_path / name).mkdir()
    assert next_version(tmp_path) == tmp_path / expected
    assert next_version(str(tmp_path)) == tmp_path / expected


def test_next_version_in_a_folder_that_is_not_there(tmp_path):
    assert next_version(tmp_path / "new") == tmp_path / "new" / "1"
    assert not (tmp_path / "new").exists()


# ---- What is refused. ----------------------------------------------------------------


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="written")
        self.last = layers.Dense(3)

    def call(self, x):
        return self.last(x)


@pytest.mark.parametrize(
    "model, settings, message",
    [
        (dense_model(), {"class_names": ["a", "b"]}, "2 names for 3"),
        (dense_model(), {"gaussian": fitted_gaussian()}, "pass `layer_name`"),
        (
            dense_model(),
            {"gaussian": ClassConditionalGaussian(3), "layer_name": "features"},
            "has not seen features yet",
        ),
        (dense_model(), {"layer_name": "featuers"}, "no layer 'featuers'"),
        (Subclassed(), {}, "'written' .* has no graph of layers"),
        (keras.Sequential([layers.Dense(3)]), {}, "Build it if it is Sequential"),
    ],
    ids=["names", "no layer", "not fitted", "unknown layer", "subclassed", "not built"],
)
def test_what_cannot_be_exported_raises(tmp_path, model, settings, message):
    with pytest.raises(ValueError, match=message):
        export_classifier(model, tmp_path / "1", **settings)
    assert list(tmp_path.iterdir()) == []


@needs_savedmodel
def test_thresholds_that_bring_nothing_are_exported_with_a_warning(tmp_path):
    names = ["red", "green", "blue"]
    good = Thresholds((0.0, 1.0, 0.0), 2.0, "f1", 0.5, 0.6, 0.1, [5, 5, 5])
    useless = dataclasses.replace(good, estimate=0.25, improves=False)
    calibrated = dataclasses.replace(useless, bias=(0.0,) * 3)
    message = r"No improvement of 'f1' .* is 0.5000 without .* 0.2500 is expected with"
    with pytest.warns(UserWarning, match=message) as record:
        export(tmp_path, useless, names)
    assert record[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(tmp_path, good, names)
        export(tmp_path, calibrated, names)
    assert (tmp_path / "3").is_dir()


def export(folder, thresholds, names):
    model = dense_model()
    return export_classifier(model, folder, class_names=names, thresholds=thresholds)
