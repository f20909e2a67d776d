"""Tests for lengths.py: features of one shape."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.extraction.lengths import check_length, check_lengths


def trunk(pooled):
    layers = [keras.Input((None, 3)), keras.layers.Conv1D(4, 2)]
    last = [keras.layers.GlobalMaxPooling1D()] if pooled else []
    return keras.Sequential([*layers, *last], name="words")


def sequences(length):
    shape = tf.TensorSpec([None, length, 3], tf.float32)
    labels = tf.TensorSpec([None], tf.int64)
    return tf.data.Dataset.from_generator(list, output_signature=(shape, labels))


def test_an_open_length_is_told_before_anything_is_read():
    with pytest.raises(ValueError, match=r"at 'words' have shape \[None, 4\].*pooling"):
        check_lengths(trunk(pooled=False), sequences(None))
    with pytest.raises(ValueError, match=r"at 'conv'.*of shape \[None, None, 3\]"):
        check_lengths(trunk(pooled=False), sequences(None), "conv")


def test_one_length_and_pooled_features_are_of_one_shape():
    check_lengths(trunk(pooled=False), sequences(7))
    check_lengths(trunk(pooled=True), sequences(None))
    check_lengths(trunk(pooled=False), (np.zeros((2, 7, 3)), np.zeros(2)))


def test_a_batch_of_another_shape_is_named():
    check_length("Batch 3", np.zeros((2, 5, 4)), (5, 4))
    with pytest.raises(
        ValueError, match=r"Batch 3: .* \[6, 4\], .*first batch \[5, 4\]"
    ):
        check_length("Batch 3", np.zeros((2, 6, 4)), (5, 4))
