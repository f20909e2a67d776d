"""Tests for raw_inputs.py: what requests to a KerasHub task carry.

Tasks of KerasHub itself are exported in integration/preprocessing_test.py.
"""

import types

import keras
import pytest
import tensorflow as tf

from tf_pseudofeat.serving.raw_inputs import check_in_graph, raw_signature


def task(**preprocessor):
    return types.SimpleNamespace(
        name="task", preprocessor=types.SimpleNamespace(**preprocessor)
    )


def network(*shape):
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Identity()(inputs))


def converter(image_size, data_format=None):
    return types.SimpleNamespace(image_size=image_size, data_format=data_format)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (converter(None), (None, 8, 9, 3)),
        (converter((8, 9)), (None, None, None, 3)),
        (converter((8, 9), "channels_last"), (None, None, None, 3)),
        (converter((8, 9), "channels_first"), (None, 8, None, None)),
    ],
)
def test_an_image_has_any_size_where_it_is_resized(image, expected):
    signature = raw_signature(task(image_converter=image), network(8, 9, 3))
    assert signature == tf.TensorSpec(expected, tf.float32, name="image")


@pytest.mark.parametrize("name", [None, "review"])
def test_a_text_is_one_string(name):
    signature = raw_signature(task(tokenizer=object()), network(8), name)
    assert signature == tf.TensorSpec((None,), tf.string, name=name or "text")


@pytest.mark.parametrize("parts", [{}, {"tokenizer": None, "image_converter": None}])
def test_other_inputs_are_exported_without_their_preprocessing(parts):
    with pytest.raises(ValueError, match="'task', a SimpleNamespace, .*preprocess=Fal"):
        raw_signature(task(**parts), network(8))


def test_a_preprocessor_that_does_not_run_in_a_graph_is_told():
    signature = tf.TensorSpec((None,), tf.string)
    model = task(call=None)
    model.preprocess_samples = lambda x: 1 / 0
    with pytest.raises(ValueError, match="does not run in a TensorFlow graph: ZeroDiv"):
        check_in_graph(model, signature)
    model.preprocess_samples = tf.strings.length
    assert check_in_graph(model, signature).dtype == tf.int32
