"""Tests for views.py: where a view comes from, and that nothing else is changed."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tf_pseudofeat as tfpf
from tf_pseudofeat.features import read_features
from tf_pseudofeat.views import Shifts, choose_views

IMAGES = np.random.default_rng(0).normal(size=(40, 16, 16, 3)).astype("f4")
ROWS = np.random.default_rng(1).normal(size=(40, 5)).astype("f4")
LABELS = np.arange(40) % 4
PLAIN = tfpf.Extraction(per_class=None)


def trunk_of(*inside, shape=(5,)):
    keras.utils.set_random_seed(0)
    steps = [*inside, layers.Flatten(), layers.Dense(3, name="features")]
    return keras.Sequential([keras.Input(shape), *steps])


def state(model):
    return [keras.ops.convert_to_numpy(v).tobytes() for v in model.variables]


def extracted(trunk, data, extraction=PLAIN, **settings):
    settings = {"seed": (1, 2), "verbose": 0, **settings}
    return read_features(trunk, data, extraction, **settings)


def first_of(dataset):
    return next((x, y.numpy()) for x, y in dataset)


@pytest.mark.parametrize(
    "inside, x, source",
    [
        ([layers.RandomFlip(name="flip")], IMAGES, "random layers (flip)"),
        ([layers.Dropout(0.5)], IMAGES, "small shifts of images"),
        ([], IMAGES[..., :2], "none"),
        ([], IMAGES > 0, "none"),
        ([], IMAGES[:, :3], "none"),
        ([layers.Dropout(0.5)], ROWS, "none"),
        ([], ROWS, "none"),
    ],
)
def test_the_first_source_that_there_is_makes_the_views(inside, x, source):
    trunk = trunk_of(*inside, shape=x.shape[1:])
    assert choose_views("auto", trunk, x).name == source
    assert choose_views(None, trunk, x).name == "none"


def test_a_layer_inside_a_nested_or_a_subclassed_model_is_found():
    class Outer(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = trunk_of(layers.RandomFlip(name="deep"), shape=(16, 16, 3))

        def call(self, x):
            return self.inner(x)

    trunk = Outer()
    found = extracted(trunk, (IMAGES, LABELS))
    assert found.source.name == "random layers (deep)"
    assert not np.allclose(found.views[0].features, trunk.predict(IMAGES, verbose=0))


def test_a_dataset_that_is_itself_augmented_is_its_own_view():
    trunk = trunk_of()
    clean = tf.data.Dataset.from_tensor_slices((ROWS, LABELS))

    random = tf.random.Generator.from_seed(1)

    def jitter(x, y):
        return x + random.normal(tf.shape(x)), y

    augmented = clean.map(jitter).batch(8)
    found = extracted(trunk, augmented, first=first_of(augmented))
    assert found.source.name == "the augmented dataset"
    two = tfpf.Extraction(per_class=None, views=2)
    found = extracted(trunk, augmented, two, first=first_of(augmented))
    first, second = (view.features for view in found.views)
    assert np.abs(first - second).mean() > 0.1
    for other in (clean.batch(8), clean.shuffle(40).map(jitter).batch(8)):
        found = extracted(trunk, other, first=first_of(other))
        assert found.source.name == "none"


@pytest.mark.parametrize("layer", [layers.RandomFlip, layers.RandomTranslation])
def test_random_layers_are_active_and_all_else_is_not(layer):
    arguments = (0.3, 0.3) if layer is layers.RandomTranslation else ()
    norm, drop = layers.BatchNormalization(), layers.Dropout(0.9)
    random = layer(*arguments)
    trunk = trunk_of(random, norm, drop, shape=(16, 16, 3))
    before, plain = state(trunk), trunk.predict(IMAGES, verbose=0)
    found = extracted(trunk, (IMAGES, LABELS), tfpf.Extraction(views=2, per_class=None))
    assert state(trunk) == before
    assert "call" not in vars(random)
    first, second = (view.features for view in found.views)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(trunk.predict(IMAGES, verbose=0), plain)
    if layer is layers.RandomFlip:  # each is one of the two, so no unit was dropped
        flipped = trunk.predict(IMAGES[:, :, ::-1], verbose=0)
        upside = trunk.predict(IMAGES[:, ::-1], verbose=0)
        both = trunk.predict(IMAGES[:, ::-1, ::-1], verbose=0)
        choices = np.stack([plain, flipped, upside, both])
        error = np.abs(choices - first).max(axis=-1).min(axis=0)
        assert error.max() < 1e-4


def test_after_an_error_the_layers_are_as_they_were():
    flip = layers.RandomFlip()
    trunk = trunk_of(flip, shape=(16, 16, 3))
    wrong = IMAGES.copy()
    wrong[30] = np.inf
    before = state(trunk)
    with pytest.raises(ValueError, match="Batch 0.*infinite"):
        extracted(trunk, (wrong, LABELS))
    assert state(trunk) == before
    assert "call" not in vars(flip)


@pytest.mark.parametrize(
    "inside, x",
    [
        ([layers.RandomFlip()], IMAGES),
        ([layers.RandomTranslation(0.2, 0.2)], IMAGES),
        ([], IMAGES),
    ],
)
def test_the_same_seed_gives_the_same_views_and_another_others(inside, x):
    trunk = trunk_of(*inside, shape=x.shape[1:])
    one, same, other = (
        extracted(trunk, (x, LABELS), seed=seed).views[0].features
        for seed in ((1, 2), (1, 2), (1, 3))
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("dtype", ["f4", "u1", "f8"])
@pytest.mark.parametrize("shape", [(16, 24, 3), (8, 8, 1), (4, 4, 4)])
def test_an_image_is_shifted_by_whole_pixels_and_reflected_at_its_border(dtype, shape):
    images = np.random.default_rng(2).integers(0, 255, (50, *shape)).astype(dtype)
    changed = Shifts(images)(images, (3, 4))
    assert changed.dtype == images.dtype
    most = [max(1, side // 8) for side in shape[:2]]
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
