"""Tests for examples/complete_features.py: the images behind a feature file."""

import dataclasses

import keras
import numpy as np
import pytest

import tf_pseudofeat as tfpf
from examples.complete_features import complete
from examples.data import imbalance, load_images
from examples.trunks import FeatureFile


@pytest.fixture(scope="module")
def images():
    return load_images("digits")


@pytest.fixture(scope="module")
def trunk():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(12, activation="tanh")]
    rescaled = keras.layers.Rescaling(1 / 255)
    return keras.Sequential([keras.Input((8, 8, 1)), rescaled, *layers])


def scaled_trunk(trunk):
    """The same features, of images from -1 to 1."""
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, trunk((inputs + 1) * 127.5))


@pytest.fixture(scope="module")
def file(images, trunk, tmp_path_factory):
    cut = imbalance(images, num_minority=5, ratio=10, seed=0)
    file = FeatureFile(
        features=trunk.predict(cut.train_images, verbose=0),
        labels=cut.train_labels,
        test_features=trunk.predict(cut.test_images, verbose=0),
        test_labels=cut.test_labels,
        minority=np.array(cut.minority),
        kernel=np.zeros((12, 10), "f4"),
        bias=np.zeros(10, "f4"),
    )
    path = tmp_path_factory.mktemp("features") / "file.npz"
    file.write(path)
    return FeatureFile.read(path)  # as float16


@pytest.mark.parametrize("scale", [False, True])
def test_removed_images_are_found_again(file, images, trunk, scale):
    network = scaled_trunk(trunk) if scale else trunk
    done = complete(file, network, images, "shift", views=2, scale=scale)
    cut = imbalance(images, num_minority=5, ratio=10, seed=0)
    expected = trunk.predict(cut.removed_images, verbose=0)
    order, other = (
        np.lexsort(np.round(features, 3).T)
        for features in (done.removed_features, expected)
    )
    np.testing.assert_allclose(done.removed_features[order], expected[other], atol=2e-3)
    np.testing.assert_array_equal(
        np.bincount(done.removed_labels), np.bincount(cut.removed_labels)
    )


def test_views_are_of_the_images_that_were_kept(file, images, trunk):
    done = complete(file, trunk, images, "shift", views=2)
    assert done.view_features.shape == (2, *file.features.shape)
    away = np.linalg.norm(done.view_features - file.features, axis=-1)
    mixed = np.linalg.norm(done.view_features - file.features[::-1], axis=-1)
    # Digits of 8 x 8 change much when they move by one; a few do not move at all.
    assert (away < 2e-3).any()
    assert away.mean() < 0.9 * mixed.mean()
    # Scaled or not, the same views.
    scaled = complete(file, scaled_trunk(trunk), images, "shift", views=2, scale=True)
    np.testing.assert_allclose(scaled.view_features, done.view_features, atol=1e-4)


def test_another_network_raises(file, images, trunk):
    other = keras.models.clone_model(trunk)
    with pytest.raises(ValueError, match="the model, its --layer, --scale or the set"):
        complete(file, other, images, "shift")


def test_a_row_that_is_there_twice_raises(file, images, trunk):
    twice = dataclasses.replace(
        file, features=file.features[[0, 0, 1]], labels=file.labels[[0, 0, 1]]
    )
    with pytest.raises(ValueError, match="1 rows of the file are the same image"):
        complete(twice, trunk, images, "shift")


def test_the_parts_that_were_there_stay(file, images, trunk):
    done = complete(file, trunk, images, "shift", views=1)
    for name in ("features", "labels", "test_features", "kernel", "minority"):
        np.testing.assert_array_equal(getattr(done, name), getattr(file, name))
    trunk_features = tfpf.extract_features(
        trunk, (images.test_images, images.test_labels)
    ).features
    np.testing.assert_allclose(done.test_features, trunk_features, atol=2e-3)
