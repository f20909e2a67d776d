"""Tests for views.py: where a view comes from, and that nothing else is changed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tf_pseudofeat as tfpf
from tf_pseudofeat.extraction.features import read_features
from tf_pseudofeat.extraction.views import Shifts, choose_views

IMAGES = np.random.default_rng(0).normal(size=(40, 16, 16, 3)).astype("f4")
ROWS = np.random.default_rng(1).normal(size=(40, 5)).astype("f4")
LABELS = np.arange(40) % 4


@pytest.mark.parametrize(
    "x, source",
    [
        (IMAGES, "small shifts of images"),
        ((255 * IMAGES).astype("u1"), "small shifts of images"),
        (IMAGES[..., :2], "none"),
        (IMAGES > 0, "none"),
        (IMAGES[:, :15], "none"),
        (ROWS, "none"),
        ([ROWS, IMAGES], "small shifts of images"),
    ],
)
def test_images_are_shifted_and_all_else_is_looked_at_as_it_is(x, source):
    found = choose_views(tfpf.Extraction(), x)
    assert (found.name, found.is_view) == (source, source != "none")
    assert not choose_views(tfpf.Extraction.plain(), x).is_view


def test_what_the_user_passes_makes_the_views():
    found = choose_views(tfpf.Extraction(augment=np.negative), IMAGES)
    assert (found.name, found.augment) == ("augment", np.negative)


def test_each_view_has_shifts_of_its_own_that_follow_from_the_seed():
    trunk = keras.Sequential([keras.Input((16, 16, 3)), layers.Flatten()])
    extraction = tfpf.Extraction(views=2, per_class=None)

    def views(seed):
        data = (IMAGES, LABELS)
        found = read_features(trunk, data, extraction, seed=seed, verbose=0)
        return [view.features for view in found.views]

    one, same, other = views((1, 2)), views((1, 2)), views((1, 3))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert not np.allclose(*one)


@pytest.mark.parametrize("dtype", ["f4", "u1", "f8"])
@pytest.mark.parametrize("shape", [(16, 24, 3), (16, 16, 1), (24, 16, 4)])
def test_an_image_is_shifted_by_whole_pixels_and_reflected_at_its_border(dtype, shape):
    images = np.random.default_rng(2).integers(0, 255, (50, *shape)).astype(dtype)
    changed = Shifts(images)(images, (3, 4))
    assert changed.dtype == images.dtype
    most = [side // 8 for side in shape[:2]]
    seen = set()
    for image, shifted in zip(images, changed, strict=True):
        padding = [(m, m) for m in most] + [(0, 0)]
        wide = np.pad(image, padding, mode="reflect")
        matching = [
            (i, j)
            for i in range(2 * most[0] + 1)
            for j in range(2 * most[1] + 1)
            if np.array_equal(wide[i : i + shape[0], j : j + shape[1]], shifted)
        ]
        assert matching
        seen.update(matching)
    assert len(seen) > 6


def test_images_with_channels_first_are_shifted_along_height_and_width():
    images = np.moveaxis(IMAGES, 3, 1)
    keras.config.set_image_data_format("channels_first")
    try:
        changed = Shifts(images)(images, (3, 4))
    finally:
        keras.config.set_image_data_format("channels_last")
    expected = Shifts(IMAGES)(IMAGES, (3, 4))
    np.testing.assert_array_equal(np.moveaxis(changed, 1, 3), expected)


def test_only_images_among_the_inputs_are_shifted():
    x = {
        "image": IMAGES,
        "row": ROWS,
        "ids": np.arange(40),
        "words": tf.constant(["a"] * 40),
        "ragged": tf.ragged.constant([[1.5]] * 40),
    }
    changed = Shifts(x)(x, (1, 2))
    assert not np.array_equal(changed.pop("image"), IMAGES)
    for name, leaf in changed.items():
        assert leaf is x[name]


def test_images_of_one_example_are_shifted_alike():
    pair = Shifts([IMAGES, 2 * IMAGES])([IMAGES, 2 * IMAGES], (1, 2))
    np.testing.assert_array_equal(2 * pair[0], pair[1])
