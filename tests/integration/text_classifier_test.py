"""A text classifier of the usual form: TextVectorization and Dense layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tf_pseudofeat as tfpf
from tests.trained import Trained, compiled

pytestmark = pytest.mark.tensorflow(reason="texts in the network")

Y = np.arange(60) % 5 // 4  # 48 and 12 of two classes
TEXTS = np.where(Y == 0, "the dull film", "a great plot")
DATA = tf.data.Dataset.from_tensor_slices((TEXTS, Y)).batch(32)
QUIET = {"epochs": 1, "verbose": 0}


@pytest.fixture(
    scope="module",
    params=[pytest.param("multi_hot", marks=pytest.mark.slow), "tf_idf"],
)
def trained(request):
    keras.utils.set_random_seed(1)
    words = layers.TextVectorization(max_tokens=9, output_mode=request.param)
    words.adapt(TEXTS)
    texts = keras.Input((1,), dtype="string")
    x = layers.Dense(4, activation="relu", name="features")(words(texts))
    outputs = layers.Dense(2, activation="softmax", name="end")(x)
    loss = "sparse_categorical_crossentropy"
    model = compiled(keras.Model(texts, outputs), "sgd", loss)
    model.fit(DATA, verbose=0)
    return Trained(model)


@pytest.fixture
def model(trained):
    return trained.again()


def test_it_is_retrained_saved_and_loaded(model, tmp_path):
    before = model.predict(tf.constant(TEXTS), verbose=0)
    report = tfpf.retrain_head(
        model, None, DATA, validation_data=(TEXTS, Y), monitor=None, **QUIET
    )
    assert report.layer_name == "features" and report.feature_shape == (4,)
    after = model.predict(tf.constant(TEXTS), verbose=0)
    assert not np.array_equal(before, after)
    model.save(tmp_path / "texts.keras")
    loaded = keras.models.load_model(tmp_path / "texts.keras")
    np.testing.assert_array_equal(loaded.predict(tf.constant(TEXTS), verbose=0), after)
    tfpf.retrain_head(loaded, "features", DATA, monitor=None, **QUIET)


def test_the_export_answers_what_predict_does(model, tmp_path):
    features, labels = tfpf.extract_features(
        tfpf.split_at(model, "features").trunk, DATA, verbose=0
    )
    gaussian = tfpf.ClassConditionalGaussian(2, covariance_type="tied")
    gaussian.adapt(features, labels)
    path = tfpf.export_classifier(
        model,
        tmp_path,
        class_names=["bad", "good"],
        layer_name="features",
        gaussian=gaussian,
        input_name="text",
    )
    served = tf.saved_model.load(path).signatures
    texts = tf.constant(TEXTS)[:, None]
    answer = served["serving_default"](text=texts)
    expected = model.predict(texts[:, 0], verbose=0)  # of one rank, as in all tests
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=1e-6)
    assert answer["classes"].shape == (60, 2)
    served_features = served["features"](text=texts)["features"]
    np.testing.assert_allclose(served_features, features, rtol=1e-6)


def test_its_outputs_are_adjusted(model):
    adjusted = tfpf.adjust_logits(model, [48, 12])
    assert adjusted.predict(tf.constant(TEXTS), verbose=0).shape == (60, 2)
