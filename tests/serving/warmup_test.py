"""Tests for warmup.py: the requests are read back, and answered."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tf_pseudofeat.serving.endpoints import endpoints
from tf_pseudofeat.serving.export import export_classifier
from tf_pseudofeat.serving.warmup import warmup_records

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 1)).astype("uint8")


def image_model():
    image = keras.Input((6, 6, 1), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Flatten(name="features")(x)
    return keras.Model(image, layers.Dense(2, activation="softmax")(x))


def dict_model():
    left, right = keras.Input((1,), name="left"), keras.Input((3,), name="right")
    joined = layers.Concatenate()([left, right])
    return keras.Model({"left": left, "right": right}, layers.Dense(2)(joined))


def requests_in(records):
    pb2 = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    for record in records:
        log = pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        yield log.predict_log.request


def test_the_file_has_a_request_to_each_endpoint_that_it_answers(tmp_path):
    pytest.importorskip("tensorflow_serving")
    path = export_classifier(
        image_model(),
        tmp_path / "digits",
        encoded_images=True,
        layer_name="features",
        warmup=IMAGES,
    )
    file = f"{path}/assets.extra/tf_serving_warmup_requests"
    requests = list(requests_in(tf.data.TFRecordDataset(file).as_numpy_iterator()))
    assert {request.model_spec.name for request in requests} == {"digits"}
    served = tf.saved_model.load(path).signatures
    asked = [request.model_spec.signature_name for request in requests]
    assert asked == ["serving_default", "encoded", "features"]
    assert set(asked) == set(served)
    answers = {}
    for name, request in zip(asked, requests, strict=True):
        inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        answers[name] = served[name](**{k: tf.constant(v) for k, v in inputs.items()})
    np.testing.assert_array_equal(
        answers["encoded"]["probabilities"],
        answers["serving_default"]["probabilities"],
    )


def test_inputs_are_of_the_dtype_and_name_that_the_model_takes():
    x = {"left": np.array([[1], [2]]), "right": np.ones((2, 3))}
    (request,) = requests_in(warmup_records(endpoints(dict_model()), x, "m"))
    for name, value in x.items():
        array = tf.make_ndarray(request.inputs[name])
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, value)


@pytest.mark.parametrize(
    "make, x, message",
    [
        (image_model, IMAGES[0], r"'image': \(None, 6, 6, 1\).*\[\(6, 6, 1\)\]"),
        (image_model, [IMAGES, IMAGES], r"received shapes \[\(3, .*\), \(3, .*\)\]"),
        (dict_model, np.ones((2, 4)), r"'right': \(None, 3\).*\[\(2, 4\)\]"),
    ],
)
def test_what_is_no_batch_of_inputs_raises(tmp_path, make, x, message):
    pytest.importorskip("tensorflow_serving")
    with pytest.raises(ValueError, match=message):
        export_classifier(make(), tmp_path, warmup=x)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(ImportError, match=r"tf-pseudofeat\[serving\]"):
        export_classifier(image_model(), tmp_path, warmup=IMAGES)
    assert list(tmp_path.iterdir()) == []
