"""Tests for computed_shapes.py: the shapes that come out, not those declared."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.small_models import small_classifier
from tf_pseudofeat.splitting.computed_shapes import computed_shapes
from tf_pseudofeat.splitting.split_at import split_at

TEXTS = tf.constant([["a b"], ["c d e"], ["a c"], ["b"]])


def text_classifier(mode, *others):
    words = layers.TextVectorization(max_tokens=8, output_mode=mode)
    words.adapt(TEXTS)
    texts = keras.Input((1,), dtype="string", name="texts")
    x = layers.Concatenate()([words(texts), *others]) if others else words(texts)
    x = layers.Dense(5, activation="relu", name="features")(x)
    inputs = [texts, *others] if others else texts
    return keras.Model(inputs, layers.Dense(2, activation="softmax", name="end")(x))


@pytest.mark.tensorflow(reason="texts in the network")
@pytest.mark.parametrize("mode", ["multi_hot", "tf_idf", "count"])
def test_a_text_classifier_is_split_where_its_features_are(mode):
    model = text_classifier(mode)
    computed = tuple(model(TEXTS).shape)
    assert computed_shapes(model) == [(None, *computed[1:])] == [(None, 2)]
    split = split_at(model, "features")
    assert split.head.input.shape == (None, 5)
    assert split.check(model, TEXTS) == 0.0
    np.testing.assert_array_equal(split.head(split.trunk(TEXTS)), model(TEXTS))


@pytest.mark.tensorflow(reason="texts in the network")
def test_a_split_inside_a_nested_model():
    encoder = keras.Sequential([*text_classifier("multi_hot").layers], name="encoder")
    texts = keras.Input((1,), dtype="string")
    model = keras.Model(texts, layers.Dense(3, activation="softmax")(encoder(texts)))
    split = split_at(model, "encoder/features")
    assert split.head.input.shape == (None, 5)
    assert split.check(model, TEXTS) == 0.0


def test_other_models_are_not_called():
    model = small_classifier(loss=None)
    model.call = None
    assert computed_shapes(model) == [(None, 3)]


def test_sizes_that_are_open_stay_open():
    inputs = keras.Input((None, 4))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    assert computed_shapes(model) == [(None, None, 3)]


@pytest.mark.tensorflow(reason="texts in the network")
def test_texts_as_numbers_keep_what_keras_declares():
    words = layers.TextVectorization(max_tokens=8)
    words.adapt(TEXTS)
    texts = keras.Input((1,), dtype="string")
    model = keras.Model(texts, layers.Embedding(8, 3)(words(texts)))
    assert computed_shapes(model) == [(None, None, 3)]


@pytest.mark.tensorflow(reason="texts in the network")
@pytest.mark.parametrize(
    "after",
    [
        [layers.LSTM(4)],
        [layers.Conv1D(4, 7), layers.GlobalMaxPooling1D()],
        [keras.layers.Lambda(lambda x: x[:, :2]), layers.Reshape((6,))],
    ],
    ids=["LSTM", "Conv1D", "Reshape"],
)
def test_what_takes_more_than_an_empty_text_is_not_asked(after):
    words = layers.TextVectorization()
    words.adapt(TEXTS)
    x = texts = keras.Input((1,), dtype="string")
    for layer in [words, layers.Embedding(8, 3), *after]:
        x = layer(x)
    x = layers.Dense(5, name="features")(x)
    model = keras.Model(texts, layers.Dense(2)(x))
    assert split_at(model, "features").head.input.shape == (None, 5)


@pytest.mark.tensorflow(reason="texts in the network")
def test_beside_what_cannot_be_made_up_shapes_are_as_declared():
    image = keras.Input((None, None, 1))
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(2, 3)(image))
    words = layers.TextVectorization(max_tokens=8, output_mode="multi_hot")
    words.adapt(TEXTS)
    texts = keras.Input((), dtype="string")
    model = keras.Model([texts, image], layers.Concatenate()([words(texts), x]))
    (shape,) = computed_shapes(model)
    assert shape == tuple(model.output.shape)
