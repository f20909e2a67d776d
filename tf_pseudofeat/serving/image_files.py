"""Decodes JPEG and PNG files to the images that a model takes."""

import keras
import tensorflow as tf

__all__ = ["image_file_decoder"]


def image_file_decoder(inputs, signature, prepare):
    """Returns a function from JPEG or PNG files `[B]` to inputs of a model's layers.

    Args:
        inputs: `tf.TensorSpec`s of the layers' inputs.
        signature: `tf.TensorSpec`s of the inputs of `predict`: the same, or images of
            any size.
        prepare: function from inputs of `predict` to inputs of the layers.
    """
    decoded = _decoded(inputs)
    if signature is inputs:
        return decoded
    (image,) = keras.tree.flatten(inputs)
    sides_are_open = None in signature.shape[1:]

    def prepared(file):
        pixels = tf.io.decode_image(
            file, channels=image.shape[-1], expand_animations=False
        )
        pixels.set_shape((None, None, image.shape[-1]))
        (whole,) = keras.tree.flatten(prepare(tf.cast(pixels, tf.float32)[tf.newaxis]))
        whole.set_shape((1, *image.shape[1:]))
        return whole[0]

    def prepared_files(files):
        spec = tf.TensorSpec(image.shape[1:], image.dtype)
        images = tf.map_fn(prepared, files, fn_output_signature=spec)
        return keras.tree.pack_sequence_as(inputs, [images])

    return prepared_files if sides_are_open else lambda files: prepare(decoded(files))


def _decoded(signature):
    """Returns a function from JPEG or PNG files `[B]` to inputs of the model."""
    (image, *more) = keras.tree.flatten(signature)
    shape = image.shape[1:]
    if more or len(shape) != 3 or None in shape or shape[-1] not in (1, 3):
        raise ValueError(
            f"`encoded_images` is for a model of one image [B, height, width, 1 or 3] "
            f"of known size; this one takes "
            f"{[tuple(spec.shape) for spec in (image, *more)]}. Export it without, or "
            f"add a Resizing layer after an input of known size."
        )
    height, width, channels = shape
    dtype = image.dtype

    def decode(file):
        pixels = tf.io.decode_image(file, channels=channels, expand_animations=False)
        pixels.set_shape((None, None, channels))
        pixels = tf.image.resize(pixels, (height, width), antialias=True)
        if dtype.is_integer:
            pixels = tf.round(pixels)
        return tf.cast(pixels, dtype)

    def decoded(files):
        images = tf.map_fn(
            decode, files, fn_output_signature=tf.TensorSpec(shape, dtype)
        )
        return keras.tree.pack_sequence_as(signature, [images])

    return decoded
