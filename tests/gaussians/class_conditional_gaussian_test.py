"""Tests for class_conditional_gaussian.py: how it is fitted, merged, saved and set."""

import json
import resource
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.fitted_gaussians import (
    NUM_CLASSES,
    assert_same_layer,
    every_type,
    fitted,
    make_data,
    scipy_log_density,
    weights_of,
)
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


# Densities.


@every_type
@pytest.mark.parametrize("batch_size", [1, 10, 97])
def test_a_stream_fits_as_the_arrays_do(covariance_type, batch_size):
    features, labels = make_data(size=6)
    features = features.reshape(-1, 2, 3)
    expected = fitted((features, labels), covariance_type)
    columns = (features, tf.one_hot(labels, NUM_CLASSES), np.ones(len(labels)))
    dataset = tf.data.Dataset.from_tensor_slices(columns).batch(batch_size)
    streamed = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    streamed.adapt(dataset)
    assert_same_layer(streamed, expected, rtol=1e-4)
    streamed.adapt(iter(dataset))  # a generator, which can be read once
    assert_same_layer(streamed, expected, rtol=1e-4)


@every_type
def test_a_second_adapt_leaves_nothing_stale(covariance_type):
    first, second = make_data(seed=1), make_data((50, 30, 9), seed=2)
    gaussian = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    model = keras.Sequential([keras.Input((4,)), gaussian])
    gaussian.adapt(*first)
    stale = model.predict(first[0], verbose=0), gaussian.distribution.mean()
    report = str(gaussian.report)
    gaussian.adapt(*second)
    expected = fitted(second, covariance_type)
    assert_same_layer(gaussian, expected)
    fresh = model.predict(first[0], verbose=0)  # with the function compiled before
    np.testing.assert_allclose(fresh, expected(first[0]), rtol=1e-5)
    mean = gaussian.distribution.mean()
    np.testing.assert_array_equal(mean, expected.distribution.mean())
    assert str(gaussian.report) == str(expected.report) != report
    assert np.abs(fresh - stale[0]).max() > 0.1
    assert np.abs(mean - stale[1]).max() > 0.1


@every_type
def test_updates_count_when_they_are_finalized(covariance_type):
    features, labels = make_data()
    gaussian = fitted((features[:50], labels[:50]), covariance_type)
    before = weights_of(gaussian)
    gaussian.update_state(features[50:], labels[50:])
    for now, then in zip(weights_of(gaussian), before, strict=True):
        np.testing.assert_array_equal(now, then)
    gaussian.finalize_state()
    assert_same_layer(gaussian, fitted((features, labels), covariance_type), 1e-4)


@every_type
@pytest.mark.parametrize("seed", [0, 1])
def test_merged_parts_are_the_whole(covariance_type, seed):
    features, labels = make_data(size=6)
    features = features.reshape(-1, 3, 2)
    owner = np.random.default_rng(seed).integers(4, size=len(labels))
    owner[labels == 2] = 1  # a class that one worker alone has seen
    parts = [ClassConditionalGaussian(NUM_CLASSES, covariance_type) for _ in range(6)]
    for worker in range(4):  # two have seen nothing
        mine = owner == worker
        parts[worker].update_state(features[mine], labels[mine])
    np.random.default_rng(seed).shuffle(parts)
    merged = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    merged.merge_state(parts)
    merged.finalize_state()
    assert_same_layer(merged, fitted((features, labels), covariance_type), 1e-4)


@every_type
@pytest.mark.parametrize("shape", [(6,), (3, 2)])
def test_moments_from_elsewhere_fit_as_their_features_do(covariance_type, shape):
    features, labels = make_data(size=6)
    features = features.reshape(-1, *shape)
    expected = fitted((features, labels), covariance_type)
    gaussian = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    gaussian.adapt_moments(expected.moments, shape)
    assert_same_layer(gaussian, expected)
    assert str(gaussian.report) == str(expected.report)
    gaussian.adapt(-features, labels)
    gaussian.adapt_moments(expected.moments)  # the shape is known; nothing is added
    assert_same_layer(gaussian, expected)


@pytest.mark.integration
def test_training_changes_nothing():
    features, labels = make_data()
    gaussian = fitted((features, labels))
    before = weights_of(gaussian)
    head = keras.layers.Dense(NUM_CLASSES, activation="softmax")
    model = keras.Sequential([keras.Input((4,)), gaussian, head])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(features, labels, verbose=0)
    assert model.trainable_weights == head.trainable_weights
    for now, then in zip(weights_of(gaussian), before, strict=True):
        np.testing.assert_array_equal(now, then)


@every_type
def test_before_it_is_fitted_every_density_is_zero(covariance_type):
    gaussian = ClassConditionalGaussian(2, covariance_type)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    np.testing.assert_array_equal(gaussian(x), np.full((5, 2), -np.inf))
    assert gaussian.moments is None
    assert gaussian.report is None


# Saving and loading.


@every_type
@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_a_model_file_holds_all_of_it(tmp_path, covariance_type, shape):
    features, labels = make_data()
    features = features.reshape(-1, *shape)
    rank = 2 if covariance_type == "low_rank" else None
    settings = {"covariance_scale": 2.0, "rank": rank}
    gaussian = fitted((features, labels), covariance_type, **settings)
    inner = keras.Sequential([keras.Input(shape), gaussian], name="inner")
    inputs = keras.Input(shape)
    outputs = keras.layers.Softmax()(inner(keras.layers.Identity()(inputs)))
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")  # in safe mode
    again = loaded.get_layer("inner").layers[-1]
    assert isinstance(again, ClassConditionalGaussian)
    assert_same_layer(again, gaussian)
    assert again.get_config() == gaussian.get_config()
    assert str(again.report) == str(gaussian.report)
    expected = model.predict(features, verbose=0)
    np.testing.assert_array_equal(loaded.predict(features, verbose=0), expected)
    # What was loaded can be fitted further.
    for each in (gaussian, again):
        each.update_state(features + 1, labels)
        each.finalize_state()
    assert_same_layer(again, gaussian)


@every_type
@pytest.mark.parametrize("was_fitted", [False, True])
def test_a_weights_file_replaces_what_was_there(tmp_path, covariance_type, was_fitted):
    def model_of(gaussian):
        return keras.Sequential([keras.Input((4,)), gaussian])

    path = tmp_path / "of.weights.h5"
    gaussian = fitted(None, covariance_type)
    model_of(gaussian).save_weights(path)
    other = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    if was_fitted:
        other.adapt(*make_data(seed=5))
    model_of(other).load_weights(path)
    assert_same_layer(other, gaussian)


def test_a_file_of_an_unfitted_layer_unfits(tmp_path):
    unfitted, gaussian = ClassConditionalGaussian(NUM_CLASSES), fitted()
    models = [
        keras.Sequential([keras.Input((4,)), each]) for each in (unfitted, gaussian)
    ]
    models[0].save_weights(tmp_path / "of.weights.h5")
    models[1].load_weights(tmp_path / "of.weights.h5")
    assert gaussian.moments is None
    assert gaussian.report is None
    for mine, theirs in zip(weights_of(gaussian), weights_of(unfitted), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def file_of_fitted(path, change):
    """A `.keras` file of a layer in a model, with something else in its config."""
    keras.Sequential([keras.Input((4,)), fitted(name="gaussian")]).save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "ClassConditionalGaussian":
            change(layer)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer["build_config"].update(input_shape=[None, 2**22]),
        lambda layer: layer["build_config"].update(input_shape=[None, 2**40, 2**40]),
        lambda layer: layer["config"].update(num_classes=2**50),
    ],
    ids=["many features", "beyond 64 bits", "many classes"],
)
def test_a_file_that_claims_more_than_memory_has(tmp_path, change):
    file_of_fitted(tmp_path / "a.keras", change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"Covariances of shape .* need .* GiB"):
        keras.saving.load_model(tmp_path / "a.keras")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**18  # KiB


@pytest.mark.parametrize("shape", [[None, -4], [None, "4"], [None, 4.5], [None, 0], []])
def test_a_file_with_a_shape_that_is_none(tmp_path, shape):
    file_of_fitted(
        tmp_path / "a.keras",
        lambda layer: layer["build_config"].update(input_shape=shape),
    )
    with pytest.raises(ValueError, match="Features must have a known shape"):
        keras.saving.load_model(tmp_path / "a.keras")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"count": np.ones(4)}, r"a `count` of float64 \[4\]; kind 'full'"),
        ({"count": np.full(3, 1.5)}, "a count that is not a whole number, 1.5"),
        ({"mean": np.ones((3, 4), "f4")}, "a `mean` of float32"),
        ({"mean": np.ones(3)}, r"means of shape \[3\]"),
        ({"mean": np.full((3, 4), np.nan)}, "NaN or infinity in `mean`"),
        ({"scatter": np.ones((3, 4))}, "a `scatter` of float64"),
        ({"scatter": -np.ones((3, 4, 4))}, "class 0 has negative squares"),
        ({"scatter": None}, "has arrays .*'full' has"),
        ({"sketch": np.ones((3, 4, 4), "f4")}, "has arrays .*'full' has"),
    ],
)
def test_a_file_with_other_statistics(tmp_path, monkeypatch, changes, message):
    def save(self, store):
        arrays = {f: getattr(self.moments, f) for f in ("count", "mean", "scatter")}
        for field, array in (arrays | changes).items():
            if array is not None:
                store[field] = array

    monkeypatch.setattr(ClassConditionalGaussian, "save_own_variables", save)
    model = keras.Sequential([keras.Input((4,)), fitted(name="gaussian")])
    model.save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match=rf"The file of gaussian .*{message}"):
        keras.saving.load_model(tmp_path / "a.keras")


def test_statistics_of_other_features(tmp_path):
    model = keras.Sequential([keras.Input((4,)), fitted(name="gaussian")])
    other = fitted(make_data(size=5), name="gaussian")
    keras.Sequential([keras.Input((5,)), other]).save_weights(tmp_path / "a.weights.h5")
    before = [weight.copy() for weight in model.get_weights()]
    with pytest.raises(ValueError, match="moments have 5 features"):
        model.load_weights(tmp_path / "a.weights.h5")
    assert model.layers[-1].moments is not None
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@every_type
def test_parameters_that_were_set_are_saved_too(tmp_path, covariance_type):
    model = keras.Sequential([keras.Input((4,)), fitted(None, covariance_type)])
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.save(tmp_path / "clone.keras")
    loaded = keras.saving.load_model(tmp_path / "clone.keras")
    for mine, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    features = make_data()[0]
    np.testing.assert_array_equal(loaded(features), model(features))


@every_type
def test_mixed_precision_changes_nothing(tmp_path, mixed_precision, covariance_type):
    features, labels = make_data(mean=100.0)
    gaussian = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    model = keras.Sequential([keras.Input((4,)), gaussian])
    gaussian.adapt(features, labels)
    assert {weight.dtype for weight in gaussian.weights} == {"float32"}
    expected = scipy_log_density(gaussian, features)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        received = each.predict(features, verbose=0)
        assert received.dtype == np.float32
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
    assert_same_layer(loaded.layers[-1], gaussian)
    assert gaussian.sample([0], (1, 2)).dtype == tf.float32


@every_type
def test_the_config_makes_the_same_layer(covariance_type):
    gaussian = ClassConditionalGaussian(
        5, covariance_type, shrinkage=0.25, covariance_scale=3.0, name="mine"
    )
    again = ClassConditionalGaussian.from_config(gaussian.get_config())
    assert again.get_config() == gaussian.get_config()
    again.adapt(*make_data())
    expected = fitted(None, covariance_type, 5, shrinkage=0.25, covariance_scale=3.0)
    assert_same_layer(again, expected)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 1)])
def test_the_shape_of_the_output_is_known_before_it_is_called(shape):
    gaussian = ClassConditionalGaussian(7)
    assert gaussian(keras.Input(shape)).shape == (None, 7)
    assert gaussian.compute_output_shape((5, *shape)) == (5, 7)


# Errors.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, r"whole number of at least 1; received 0"),
        ({"num_classes": 2.5}, r"whole number of at least 1; received 2.5"),
        ({"covariance_type": "half"}, r"must be one of .*received 'half'"),
        ({"shrinkage": 2}, r"`shrinkage` must be 'oas' or .*received 2"),
        ({"covariance_scale": 0.0}, r"`covariance_scale` must be .*received 0.0"),
    ],
)
def test_settings_are_checked_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassConditionalGaussian(**({"num_classes": 2} | arguments))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.full((97, 4), np.nan)}, r"Class 0 has 60 of 60 .* NaN or inf"),
        ({"labels": np.full(97, 3)}, r"class ids 0 to 2; example 0 has label 3"),
        ({"labels": np.zeros(96)}, r"shape \(97, 4\) and 96 labels"),
        ({"labels": np.zeros((97, 2))}, r"2 wide, but there are 3 classes"),
        ({"features": np.zeros(97)}, r"known shape \[B, D\] or .*received \(None,\)"),
        ({"labels": np.eye(97)[0]}, r"Class 1 has 1 example; a 'full' covariance"),
    ],
)
def test_data_that_cannot_be_fitted_raises(change, message):
    features, labels = make_data()
    data = {"features": features, "labels": labels} | change
    with pytest.raises(ValueError, match=message):
        ClassConditionalGaussian(NUM_CLASSES).adapt(**data)


@every_type
@pytest.mark.parametrize(("unit", "dtype"), [(1e60, "float64"), (1e-42, "float32")])
def test_what_float32_cannot_hold_raises(covariance_type, unit, dtype):
    features, labels = make_data()
    gaussian = fitted((features, labels), covariance_type)
    expected = gaussian.sample([0, 1, 2], (1, 2))
    with pytest.raises(ValueError, match=r"eviations from .* Scale the features"):
        gaussian.adapt((np.float64(features) * unit).astype(dtype), labels)
    np.testing.assert_array_equal(gaussian.sample([0, 1, 2], (1, 2)), expected)


def test_an_empty_stream_raises():
    with pytest.raises(ValueError, match=r"The stream of features is empty"):
        ClassConditionalGaussian(2).adapt(iter([]))


@pytest.mark.parametrize(
    "use",
    [
        lambda gaussian: gaussian.feature_shape,
        lambda gaussian: gaussian.distribution,
        lambda gaussian: gaussian.sample([0], (1, 2)),
        lambda gaussian: gaussian.finalize_state(),
    ],
)
def test_what_needs_a_fit_says_so(use):
    with pytest.raises(ValueError, match=r"call `adapt\(features, labels\)`"):
        use(ClassConditionalGaussian(2))


def test_features_of_another_shape_need_another_layer():
    message = r"holds features of shape \[B, 4\]; received \[97, 2, 2\]"
    with pytest.raises(ValueError, match=message):
        fitted().update_state(make_data()[0].reshape(-1, 2, 2), make_data()[1])
    with pytest.raises(ValueError, match=message.replace("97", "None")):
        other = make_data()[0].reshape(-1, 2, 2), make_data()[1]
        fitted().merge_state([fitted(other)])


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize(
    ("num_classes", "covariance_type"), [(NUM_CLASSES, "diag"), (4, "full")]
)
def test_only_layers_of_the_same_settings_merge(empty, num_classes, covariance_type):
    gaussian = ClassConditionalGaussian(NUM_CLASSES) if empty else fitted()
    other = fitted(None, covariance_type, num_classes)
    message = rf"has 3 classes and 'full', .* has {num_classes} and '{covariance_type}'"
    with pytest.raises(ValueError, match=message):
        gaussian.merge_state([other])


@pytest.mark.parametrize("empty", [False, True])
def test_only_layers_of_the_same_rank_merge(empty):
    gaussian = ClassConditionalGaussian(NUM_CLASSES, "low_rank", rank=2)
    if not empty:
        gaussian.adapt(*make_data())
    other = fitted(None, "low_rank", rank=3)
    message = r"3 classes and 'low_rank' of rank 2, .* 3 and 'low_rank' of rank 3"
    with pytest.raises(ValueError, match=message):
        gaussian.merge_state([other])
    gaussian.merge_state([fitted(None, "low_rank", rank=2)])
    four = ClassConditionalGaussian(NUM_CLASSES, "low_rank")  # all of 4 features
    four.merge_state([fitted(None, "low_rank", rank=4)])
    assert four.moments.rank == 4


@pytest.mark.parametrize("shape", [(None, 3), ()])
def test_features_must_have_a_known_shape(shape):
    message = r"must have a known shape .* Split at a layer of fixed size"
    with pytest.raises(ValueError, match=message):
        ClassConditionalGaussian(2)(keras.Input(shape))
