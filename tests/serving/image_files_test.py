"""Tests for image_files.py: images as they lie in files."""

import io

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from keras import layers

from tests.ending_in import model_ending_in
from tf_pseudofeat.serving.endpoints import endpoints

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4)).astype("float32")


def gives_its_pixels(shape, dtype):
    image = keras.Input(shape, dtype=dtype, name="image")
    return keras.Model(image, layers.Reshape(shape, dtype=dtype)(image))


def pixels_of(files, shape, dtype="uint8"):
    """What a model gets to see of some files."""
    functions = endpoints(gives_its_pixels(shape, dtype), encoded_images=True)
    (pixels,) = functions["encoded"](tf.constant(files)).values()
    assert pixels.dtype == dtype
    return pixels.numpy().astype(float)


def picture(mode, height, width, seed=0):
    """A smooth picture, which JPEG keeps well."""
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), np.uint8)
    image = PIL.Image.fromarray(noise.squeeze(), mode)
    return image.resize((width, height), PIL.Image.Resampling.BICUBIC)


def file_of(image, kind):
    file = io.BytesIO()
    image.save(file, kind, quality=95)
    return file.getvalue()


def array_of(image):
    return np.asarray(image, float).reshape(image.height, image.width, -1)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
@pytest.mark.parametrize("mode, channels", [("L", 1), ("RGB", 3)])
def test_a_png_of_the_models_size_arrives_to_the_bit(mode, channels, dtype):
    images = [picture(mode, 8, 6, seed) for seed in range(3)]
    files = [file_of(image, "PNG") for image in images]
    seen = pixels_of(files, (8, 6, channels), dtype)
    np.testing.assert_array_equal(seen, [array_of(image) for image in images])
    assert seen.max() > 150  # from 0 to 255, not to 1


# Pillow rounds elsewhere, and `tf.io.decode_image` takes JPEG's fast transform, as the
# datasets that models are trained on do: up to 10 of 255 from the exact one.
@pytest.mark.parametrize("kind, difference", [("PNG", 2), ("JPEG", 12)])
@pytest.mark.parametrize("mode, channels", [("L", 3), ("RGB", 1), ("RGB", 3)])
def test_files_of_any_size_and_colour_are_fitted(kind, difference, mode, channels):
    sizes = [(40, 30), (17, 64), (5, 4)]
    files = [file_of(picture(mode, *size), kind) for size in sizes]
    seen = pixels_of(files, (12, 12, channels))
    for file, pixels in zip(files, seen, strict=True):
        image = PIL.Image.open(io.BytesIO(file)).convert(
            "L" if channels == 1 else "RGB"
        )
        fitted = image.resize((12, 12), PIL.Image.Resampling.BILINEAR)
        np.testing.assert_allclose(pixels, array_of(fitted), atol=difference)


def test_transparency_is_dropped():
    image = picture("RGBA", 8, 8)
    seen = pixels_of([file_of(image, "PNG")], (8, 8, 3))
    np.testing.assert_array_equal(seen[0], array_of(image)[..., :3])


def test_no_files_have_no_answers():
    assert pixels_of(np.zeros((0,), "S1"), (8, 8, 3)).shape == (0, 8, 8, 3)


def test_what_is_no_image_is_an_error_of_the_request():
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown image file"):
        pixels_of([b"not an image"], (8, 8, 3))


def of_any_size():
    return keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3)])


def two_images():
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    return keras.Model([left, right], layers.Add()([left, right]))


def test_images_of_any_size_are_served_as_arrays():
    model = of_any_size()
    function = endpoints(model)["serving_default"]
    for rows, height, width in [(1, 5, 7), (3, 4, 4)]:
        images = RNG.normal(size=(rows, height, width, 3)).astype("float32")
        (answer,) = function(images).values()
        np.testing.assert_allclose(answer, np.asarray(model(images)), atol=1e-5)


@pytest.mark.parametrize(
    "model, shapes",
    [
        (model_ending_in(3, None), r"\(None, 4\)"),
        (gives_its_pixels((8, 8, 4), "uint8"), r"\(None, 8, 8, 4\)"),
        (of_any_size(), r"\(None, None, None, 3\)"),
        (two_images(), r"\(None, 8, 8, 3\), \(None, 8, 8, 3\)"),
    ],
)
def test_encoded_images_need_one_image_of_known_size(model, shapes):
    with pytest.raises(ValueError, match=f"one image.*this one takes .{shapes}"):
        endpoints(model, encoded_images=True)
