"""A KerasHub task, trained, retrained and served, without a download."""

import numpy as np
import pytest
import tensorflow as tf

from examples.data import imbalance, load_images, validation_and_test
from tests.each_backend import needs_savedmodel

hub = pytest.importorskip(
    "examples.fine_tune_keras_hub", reason="the extra `test` has keras-hub"
)


@pytest.fixture(scope="module")
def images():
    return imbalance(load_images("digits"), seed=0)


@pytest.fixture(scope="module")
def task(images):
    hub.keras.utils.set_random_seed(0)
    task = hub.small_classifier(images.num_classes)
    x = hub.colored(images.train_images)
    hub.fine_tune(task, x, images.train_labels, epochs=8)
    return task


def served(version, images):
    """What a SavedModel says to raw images, and to the same in PNG files."""
    signatures = tf.saved_model.load(version).signatures
    files = [tf.io.encode_png(image).numpy() for image in images]
    by_pixels = signatures["serving_default"](image=tf.constant(images, tf.float32))
    by_files = signatures["encoded"](image_bytes=tf.constant(files))
    for name in ("probabilities", "scores"):
        np.testing.assert_allclose(by_pixels[name], by_files[name], atol=1e-5)
    return by_pixels


@needs_savedmodel
def test_what_is_retrained_is_what_is_served(images, task, tmp_path):
    names = [f"digit {name}" for name in images.class_names]
    train = hub.colored(images.train_images), images.train_labels
    validation, test = ((hub.colored(x), y) for x, y in validation_and_test(images))
    x = test[0][:20]
    as_trained = task.predict(x, verbose=0)
    weights = task.backbone.get_weights()
    report, scores, versions = hub.retrain_and_export(
        task, train, validation, test, names, tmp_path
    )
    assert report.kept and report.scored_on == "validation data"
    assert report.before["balanced_accuracy"] < report.after["balanced_accuracy"]
    assert scores[0] < scores[1]  # on images that chose nothing
    for before, after in zip(weights, task.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)

    assert versions == [str(tmp_path / "1"), str(tmp_path / "2")]
    retrained = task.predict(x, verbose=0)
    assert np.abs(retrained - as_trained).max() > 0.01
    for version, expected in zip(versions, (as_trained, retrained), strict=True):
        answer = served(version, x)
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-5)
        best = [f"digit {place}" for place in expected.argmax(axis=1)]
        assert [name.decode() for name in answer["classes"].numpy()[:, 0]] == best


def test_a_preset_gives_its_backbone_and_a_new_head(task, images, tmp_path):
    task.save_to_preset(str(tmp_path))
    other = hub.pretrained_classifier(str(tmp_path), num_classes=3)
    weights = task.backbone.get_weights()
    for mine, theirs in zip(weights, other.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    answer = other.predict(hub.colored(images.test_images[:4]), verbose=0)
    assert answer.shape == (4, 3)
    np.testing.assert_allclose(answer.sum(axis=1), 1, rtol=1e-5)
