"""Tests for preprocessing.py: what `fit` and `predict` see is what is extracted."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tf_pseudofeat as tfpf
from tests.tiny_tasks import image_classifier, text_classifier, texts_of
from tests.trained import compiled
from tf_pseudofeat.data.preprocessing import (
    as_arrays,
    overrides_predict,
    predict_batch,
    preprocess_batch,
    preprocessed,
    preprocesses,
)
from tf_pseudofeat.retraining.task import resolve_task

pytestmark = pytest.mark.filterwarnings("ignore:.*rolled back")


def images_of(labels, dtype="uint8", side=12):
    """Grey squares whose brightness is their class, so that scaling matters."""
    rng = np.random.default_rng(3)
    bright = 70 + 50 * labels[:, None, None, None]
    noise = rng.normal(0, 25, (len(labels), side, side, 3))
    return np.clip(bright + noise, 0, 255).astype(dtype)


def trained(model, x, y, epochs=3):
    optimizer = keras.optimizers.Adam(3e-3)
    loss = "sparse_categorical_crossentropy"
    compiled(model, optimizer, loss, jit_compile=False)
    model.fit(x, y, epochs=epochs, batch_size=16, verbose=0)
    return model


IMAGE_LABELS = np.repeat(np.arange(3), [40, 40, 6])
TEXT_LABELS = np.repeat(np.arange(2), [50, 8])


@pytest.fixture(scope="module")
def images():
    x = images_of(IMAGE_LABELS)
    return trained(image_classifier(), x, IMAGE_LABELS), x, IMAGE_LABELS


@pytest.fixture(scope="module")
def texts():
    x = texts_of(TEXT_LABELS)
    return trained(text_classifier(), x, TEXT_LABELS), x, TEXT_LABELS


@pytest.fixture(params=["images", pytest.param("texts", marks=pytest.mark.slow)])
def task(request):
    """A trained task, raw inputs of its `fit`, labels, and where to split."""
    model, x, y = request.getfixturevalue(request.param)
    weights = model.get_weights()
    layer = {"images": "pooler", "texts": "classifier_dropout"}[request.param]
    yield model, x, y, layer
    model.set_weights(weights)


@pytest.fixture(scope="module")
def split_of():
    """Splits a model once, so that its trunk is traced once."""
    return functools.cache(tfpf.split_at)


def balanced_accuracy(model, x, y):
    """That of `predict`, whose pipeline `predict_on_batch` does not make anew."""
    x = x.tolist() if x.ndim == 1 else x
    predicted = np.asarray(model.predict_on_batch(x)).argmax(axis=1)
    return np.mean([(predicted[y == k] == k).mean() for k in np.unique(y)])


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(16)


class Batches(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return -(-len(self.y) // 16)

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return list(self.x[rows]), self.y[rows]


FORMS = [
    lambda x, y: (x, y),
    lambda x, y: (list(x), y),
    lambda x, y: (x, y, np.ones(len(y))),
    dataset,
    Batches,
]


# ---- Tasks of KerasHub. --------------------------------------------------------------


def test_the_layer_named_in_these_tests_separates(task):
    model, _, _, layer = task
    assert layer in [cut.layer_name for cut in tfpf.separating_layers(model)]


def test_predict_is_head_of_trunk_of_what_is_preprocessed(task):
    model, x, _, layer = task
    assert preprocesses(model) and overrides_predict(model)
    trunk, head = split = tfpf.split_at(model, layer)
    outputs = head(trunk(preprocess_batch(model, x)))
    predicted = model.predict(x, verbose=0)
    np.testing.assert_allclose(outputs, predicted, atol=1e-5)
    assert split.check(model, x) < 1e-5
    np.testing.assert_array_equal(predict_batch(model, x), model.predict_on_batch(x))
    np.testing.assert_allclose(predict_batch(model, x), predicted, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_retraining_scores_what_predict_gives(task, form, split_of):
    model, x, y, layer = task
    before = balanced_accuracy(model, x, y)
    report = tfpf.retrain_head(
        model,
        split_of(model, layer),
        form(x, y),
        validation_data=form(x, y),
        augment=None,
        epochs=5,
        verbose=0,
    )
    assert report.before["balanced_accuracy"] == pytest.approx(before)
    after = balanced_accuracy(model, x, y)
    kept = report.after if report.kept else report.before
    assert kept["balanced_accuracy"] == pytest.approx(after)
    assert after >= before


def test_thresholds_diagnosis_and_tuning_see_what_predict_sees(task):
    model, x, y, layer = task
    before = balanced_accuracy(model, x, y)
    for data in [(list(x), y), dataset(x, y)]:
        thresholds = tfpf.choose_thresholds(model, data)
        assert thresholds.before == pytest.approx(before)
    diagnosis = tfpf.diagnose(model, layer, (x, y), dataset(x, y), epochs=2, verbose=0)
    assert diagnosis.remedies[0].score == pytest.approx(before)
    assert not any("adjust_logits" in remedy.code for remedy in diagnosis.remedies)
    tuning = tfpf.tune(model, layer, (x, y), (x, y), epochs=2, verbose=0)
    assert 0 <= tuning.recipe.blend <= 1
    assert balanced_accuracy(model, x, y) == before


def test_callback_preprocesses_its_data_and_not_those_of_fit_again(task):
    model, x, y, layer = task
    retrainer = tfpf.PseudoFeatureHeadRetrainer(
        layer, (x, y), every=2, augment=None, epochs=2
    )
    model.fit(
        x,
        y,
        validation_data=(x, y),
        epochs=2,
        batch_size=16,
        verbose=0,
        callbacks=[retrainer],
    )
    report = retrainer.report
    assert report.scored_on == "validation data"
    scores = report.after if report.kept else report.before
    after = balanced_accuracy(model, x, y)
    assert scores["balanced_accuracy"] == pytest.approx(after)


def test_preprocessor_that_was_taken_away_is_not_asked_for(images):
    model, x, y = images
    inputs = preprocess_batch(model, x)
    preprocessor, model.preprocessor = model.preprocessor, None
    try:
        assert not preprocesses(model)
        assert preprocessed(model, (x, y))[0] is x
        data = as_arrays(model, (inputs, y))
        split = tfpf.split_at(model, "pooler")
        assert data[0] is inputs and split.check(model, inputs) < 1e-5
    finally:
        model.preprocessor = preprocessor


def test_logit_adjustment_that_would_lose_the_preprocessor_raises(images):
    model, _, y = images
    with pytest.raises(ValueError, match=r"'images' preprocesses.*blend=1, tau=1"):
        tfpf.adjust_logits(model, np.bincount(y))


def test_arrays_are_preprocessed_batch_by_batch(images):
    model, x, y = images
    data = preprocessed(model, as_arrays(model, (list(x), y)))
    assert data[0].shape == x.shape and data[0].dtype == x.dtype
    sizes, original = [], model.preprocessor
    model.preprocessor = lambda x: sizes.append(len(x)) or original(x)
    try:
        small = tfpf.Extraction(batch_size=16, augment=None, per_class=10)
        job = resolve_task(model, "pooler", (list(x), y), extraction=small)
        del sizes[:]
        job.extract(seed=(1, 2), verbose=0)
    finally:
        model.preprocessor = original
    assert sizes == [16, 10]  # 10, 10 and 6 examples of the classes


def test_logit_adjustment_is_done_in_place(images):
    model, x, y = images
    weights = model.get_weights()
    bare = keras.Model(model.inputs, model.outputs)
    adjusted = tfpf.adjust_logits(bare, np.bincount(y))
    expected = adjusted.predict(preprocess_batch(model, x), verbose=0)
    tfpf.retrain_head(model, "pooler", (x, y), monitor=None, blend=1, tau=1, verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-4)
    model.set_weights(weights)


def test_list_of_images_of_several_sizes_raises(images):
    model, x, y = images
    ragged = [x[0], x[1, :5], *x[2:]]
    with pytest.raises(ValueError, match="cannot become one array"):
        tfpf.retrain_head(model, "pooler", (ragged, y))


# ---- Exports of them. ----------------------------------------------------------------


def png(images):
    return tf.constant([tf.io.encode_png(image).numpy() for image in images])


def test_served_is_what_predict_gives(task, tmp_path):
    model, x, y, layer = task
    trunk, _ = tfpf.split_at(model, layer)
    inputs = preprocess_batch(model, x)
    features, labels = tfpf.extract_features(trunk, (inputs, y), verbose=0)
    gaussian = tfpf.ClassConditionalGaussian(len(np.unique(y)))
    gaussian.adapt(features, labels)
    path = tfpf.export_classifier(
        model, tmp_path, layer_name=layer, gaussian=gaussian, encoded_images=x.ndim > 1
    )
    served = tf.saved_model.load(path).signatures
    (spec,) = served["serving_default"].structured_input_signature[1].values()
    assert spec.name == ("image" if x.ndim > 1 else "text")
    raw = tf.constant(x) if x.ndim == 1 else tf.constant(x, tf.float32)
    expected = model.predict(x, verbose=0)

    def asked(endpoint, value):
        (name,) = served[endpoint].structured_input_signature[1]
        (answer,) = served[endpoint](**{name: value}).values()
        return answer.numpy()

    np.testing.assert_allclose(asked("serving_default", raw), expected, atol=1e-5)
    np.testing.assert_allclose(asked("serving_default", raw[:1]), expected[:1], 1e-4)
    np.testing.assert_allclose(asked("features", raw), features, rtol=1e-3, atol=1e-4)
    densities = np.asarray(gaussian(features))
    np.testing.assert_allclose(asked("log_density", raw), densities, 1e-2, 1e-1)
    if x.ndim > 1:
        np.testing.assert_allclose(asked("encoded", png(x)), expected, atol=1e-5)


def test_served_images_may_have_any_size_that_predict_takes(images, tmp_path):
    model, _, y = images
    path = tfpf.export_classifier(model, tmp_path, encoded_images=True)
    served = tf.saved_model.load(path).signatures
    for side in (9, 20):
        x = images_of(y[:5], side=side)
        expected = model.predict(x.astype("float32"), verbose=0)
        answer = served["serving_default"](image=tf.constant(x, tf.float32))
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
        answer = served["encoded"](image_bytes=png(x))
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)


def test_export_without_the_preprocessor_takes_what_it_gives(task, tmp_path):
    model, x, _, _ = task
    path = tfpf.export_classifier(model, tmp_path, preprocess=False)
    served = tf.saved_model.load(path).signatures["serving_default"]
    specs = served.structured_input_signature[1]
    inputs = preprocess_batch(model, x)
    inputs = inputs if isinstance(inputs, dict) else {next(iter(specs)): inputs}
    inputs = {name: tf.cast(inputs[name], spec.dtype) for name, spec in specs.items()}
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(served(**inputs)["probabilities"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "give, message",
    [
        (lambda real: lambda x: real(np.asarray(x)), "does not run in a TensorFlow"),
        (lambda real: lambda x: x / 2, "neither one image nor one text"),
    ],
)
def test_preprocessor_that_cannot_be_served_raises(images, give, message, tmp_path):
    model, _, _ = images
    original = model.preprocessor
    model.preprocessor = give(original)
    if "graph" in message or "TensorFlow" in message:
        model.preprocessor.image_converter = original.image_converter
    try:
        with pytest.raises(ValueError, match=f"{message}.*preprocess=False"):
            tfpf.export_classifier(model, tmp_path)
        assert tfpf.export_classifier(model, tmp_path, preprocess=False)
    finally:
        model.preprocessor = original


# ---- Models with a `predict` of their own. -------------------------------------------

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = np.arange(40) % 3


def network(kind=keras.Model):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    x = layers.Dense(5, activation="relu", name="features")(inputs)
    outputs = layers.Dense(3, activation="softmax")(x)
    model = kind(inputs, outputs, name="own")
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


class Predict(keras.Model):
    def predict(self, x):
        return super().predict(10 * x, verbose=0)


class PredictStep(keras.Model):
    def predict_step(self, data):
        return super().predict_step((10 * data[0],))


class PredictOnBatch(keras.Model):
    def predict_on_batch(self, x):
        return super().predict_on_batch(10 * x)


class Harmless(keras.Model):
    def predict_step(self, data):
        return super().predict_step((1 * data[0],))


@pytest.mark.parametrize("kind", [Predict, PredictStep, PredictOnBatch])
def test_predict_that_the_layers_do_not_give_raises(kind):
    model = network(kind)
    for call in [
        lambda: tfpf.retrain_head(model, "features", (X, Y)),
        lambda: tfpf.split_at(model, "features").check(model, X),
    ]:
        with pytest.raises(ValueError, match=r"is not model.predict\(x\).*`predict`"):
            call()


def test_predict_of_ones_own_that_gives_the_same_is_fine():
    model = network(Harmless)
    assert overrides_predict(model)
    assert tfpf.split_at(model, "features").check(model, X) < 1e-6


def test_predict_is_not_traced_where_it_is_that_of_keras(monkeypatch):
    model = network()
    monkeypatch.setattr(keras.Model, "predict_on_batch", None)
    assert not overrides_predict(model)
    assert tfpf.split_at(model, "features").check(model, X) < 1e-6


def test_preprocessor_that_nothing_applies_is_compared():
    model = network()
    model.preprocessor = layers.Rescaling(0.1)
    assert overrides_predict(model) and not preprocesses(model)
    assert tfpf.split_at(model, "features").check(model, X) < 1e-6


@pytest.mark.parametrize("kind", [Predict, PredictStep, PredictOnBatch])
def test_thresholds_are_of_what_predict_gives(kind):
    model = network(kind)
    expected = network().predict(10 * X, verbose=0)
    np.testing.assert_allclose(predict_batch(model, X), expected, rtol=1e-5)
