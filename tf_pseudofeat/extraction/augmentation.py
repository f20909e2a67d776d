"""Augments batches reproducibly, by Keras layers or by functions."""

import functools
import inspect

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.seeds import rng_for, seed_layers, seeded_backend_rng

__all__ = ["augment_once", "augmenter", "not_augmented"]


def augment_once(augment, x):
    """Augments one batch of inputs, to check that it works."""
    return augmenter(augment, (0, 0), 0)(x, 0)


def augmenter(augment, seed, view):
    """Returns a function from a batch and its number to an augmented batch."""
    rng = rng_for("views", seed, view)
    if isinstance(augment, keras.layers.Layer):
        return functools.partial(_augmented_by_layer, augment, rng)
    try:
        seeded = "seed" in inspect.signature(augment).parameters
    except ValueError:  # written in C
        seeded = False
    if not seeded:
        return lambda x, step: augment(_copied(x))
    first = int(rng.integers(2**31))
    return lambda x, step: augment(
        _copied(x), seed=tf.constant([first, step], tf.int32)
    )


def _copied(x):
    """Copies arrays, as the function may change them in place."""
    return keras.tree.map_structure(
        lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, x
    )


def not_augmented(x, step):
    """Returns the batch unchanged."""
    del step
    return x


def _augmented_by_layer(layer, rng, x, step):
    del step
    seed_layers(layer, rng)
    with seeded_backend_rng(rng):
        return layer(x, training=True)
