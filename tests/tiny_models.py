"""Small SavedModels with the signatures of an export, made without Keras."""

import os
import pathlib

import numpy as np
import tensorflow as tf

__all__ = ["SIDE", "probabilities", "save_classifier", "save_oddities"]

SIDE = 8  # of the grey images


def _spec(name, *shape, dtype=tf.float32):
    return tf.TensorSpec(shape, dtype, name=name)


def _weights(seed, num_classes):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(SIDE * SIDE, num_classes)).astype("float32")


def probabilities(images, seed, num_classes=10):
    """What `save_classifier`'s model says of uint8 images [B, SIDE, SIDE, 1]."""
    x = np.asarray(images, "float32").reshape(len(images), -1) / 255
    logits = x @ _weights(seed, num_classes)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def save_classifier(folder, seed=0, class_names=None, encoded=True, num_classes=10):
    """A linear classifier, written aside and renamed to `folder` as an export is.

    Args:
        folder: `<name>/<version number>`.
        seed: of the weights.
        class_names: list; with them there are the outputs `classes` and `scores`.
        encoded: whether JPEG and PNG bytes are taken.
        num_classes: where there are no class names.
    """
    folder, module = pathlib.Path(folder), tf.Module()
    num_classes = len(class_names or range(num_classes))
    module.weights = tf.Variable(_weights(seed, num_classes))

    def classify(images):
        x = tf.reshape(tf.cast(images, tf.float32) / 255, (-1, SIDE * SIDE))
        outputs = {"probabilities": tf.nn.softmax(x @ module.weights)}
        if class_names:
            best = tf.math.top_k(outputs["probabilities"], num_classes)
            outputs["classes"] = tf.gather(tf.constant(class_names), best.indices)
            outputs["scores"] = best.values
        return outputs

    def decoded(image):
        image = tf.io.decode_image(image, channels=1, expand_animations=False)
        image = tf.image.resize(image, (SIDE, SIDE))
        return tf.cast(tf.round(image), tf.uint8)

    @tf.function(input_signature=[_spec("image", None, SIDE, SIDE, 1, dtype=tf.uint8)])
    def serving_default(image):
        return classify(image)

    @tf.function(input_signature=[_spec("image_bytes", None, dtype=tf.string)])
    def encoded_images(image_bytes):
        return classify(tf.map_fn(decoded, image_bytes, fn_output_signature=tf.uint8))

    signatures = {"serving_default": serving_default}
    if encoded:
        signatures["encoded"] = encoded_images
    if class_names:
        names = folder.parent / "class_names.txt"
        names.parent.mkdir(parents=True, exist_ok=True)
        names.write_text("".join(f"{name}\n" for name in class_names), "utf-8")
        module.class_names = tf.saved_model.Asset(str(names))
    aside = folder.with_name(f".{folder.name}.aside")
    tf.saved_model.save(module, str(aside), signatures)
    os.rename(aside, folder)


def save_oddities(folder):
    """A model of many types, with a signature for each thing that can go wrong."""
    pair = [_spec("left", None, 2), _spec("right", None, dtype=tf.int32)]

    @tf.function(input_signature=pair)
    def two_inputs(left, right):
        total = tf.reduce_sum(left, axis=1) + tf.cast(right, tf.float32)
        return {"total": total, "text": tf.strings.as_string(right)}

    @tf.function(input_signature=[_spec("x", None)])
    def no_rows(x):
        return {"total": tf.reduce_sum(x)}

    @tf.function(input_signature=[_spec("x", None)])
    def reciprocal(x):
        return {"y": 1 / x}

    @tf.function(input_signature=[_spec("x", None, dtype=tf.string)])
    def strings(x):
        return {"same_bytes": x, "text": x}

    @tf.function(input_signature=[_spec("x", None, dtype=tf.bool)])
    def flags(x):
        return {"y": ~x}

    @tf.function(input_signature=[_spec("x", None, dtype=tf.complex64)])
    def complex_numbers(x):
        return {"y": tf.abs(x)}

    @tf.function(input_signature=[_spec("x", None)])
    def half_precision(x):
        return {"y": tf.cast(x, tf.bfloat16)}

    @tf.function(input_signature=[_spec("x", None, dtype=tf.string)])
    def broken(x):
        return {"y": tf.map_fn(tf.io.read_file, x)}

    @tf.function(input_signature=[_spec("x", None, dtype=tf.int32)])
    def slow(x):
        y = tf.cast(x, tf.float32)
        for _ in tf.range(tf.reduce_max(x)):
            y = tf.sin(y)
        return {"y": tf.zeros_like(x) + tf.cast(tf.reduce_sum(y) > 1e9, tf.int32)}

    tf.saved_model.save(
        tf.Module(),
        str(folder),
        {
            "serving_default": two_inputs,
            "no_rows": no_rows,
            "reciprocal": reciprocal,
            "strings": strings,
            "flags": flags,
            "complex_numbers": complex_numbers,
            "half_precision": half_precision,
            "broken": broken,
            "slow": slow,
        },
    )
