"""Tests for tracing.py: models as one graph, and what TensorFlow says of tracing."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.core.tracing import (
    compiled,
    forward,
    inference,
    without_retracing_warnings,
)
from tf_pseudofeat.retraining.retrain import retrain_head

RETRACED = "5 out of the last 5 calls to <function> triggered tf.function retracing."


@pytest.fixture
def warned(caplog):
    """The messages of TensorFlow's logger, which it does not always propagate."""
    logger = logging.getLogger("tensorflow")
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records]
    logger.removeHandler(caplog.handler)
    logger.propagate = propagates


@pytest.mark.tensorflow(reason="a warning of TensorFlow")
def test_tensorflow_warns_of_the_sixth_function_made_in_one_place(warned):
    def trace_six():
        for _ in range(6):
            tf.function(lambda x: x + 1)(tf.zeros(2))

    def trace_other_six():
        for _ in range(6):
            tf.function(lambda x: x - 1)(tf.zeros(2))

    with without_retracing_warnings():
        trace_six()
    assert not warned()
    trace_other_six()
    assert all("triggered tf.function retracing" in text for text in warned())
    assert warned()


def test_all_other_warnings_pass_and_the_filter_goes_with_an_error(warned):
    logger = logging.getLogger("tensorflow")
    filters = list(logger.filters)
    with pytest.raises(KeyError), without_retracing_warnings():
        logger.warning(RETRACED)
        logger.warning("something else")
        raise KeyError
    assert logger.filters == filters
    logger.warning(RETRACED)
    assert warned() == ["something else", RETRACED]


def test_a_retraining_does_not_warn_of_its_own_models(warned, monkeypatch):
    called, fit = [], keras.Model.fit

    def warns(self, *args, **kwargs):
        called.append(self.name)
        logging.getLogger("tensorflow").warning(RETRACED)
        return fit(self, *args, **kwargs)

    layers = [keras.layers.Dense(4, name="features"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.repeat([0, 1], [30, 10])
    monkeypatch.setattr(keras.Model, "fit", warns)
    retrain_head(model, "features", (x, y), verbose=0, epochs=2)
    assert called
    assert not warned()


@pytest.mark.tensorflow(reason="a function of TensorFlow")
def test_functions_made_in_one_place_are_not_one_function(warned):
    for _ in range(7):
        compiled(lambda x: x * 2)(tf.zeros(2))
    assert not warned()


def test_forward_is_predict_whatever_the_batches():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(11, 3)).astype("float32")
    for batch_size in (1, 4, 11, 1024):
        given = forward(model, batch_size)(x)
        expected = model.predict(x, batch_size=batch_size, verbose=0)
        np.testing.assert_array_equal(given, expected)


def test_forward_sees_the_weights_of_the_moment_and_no_dropout():
    layers = [keras.layers.Dropout(0.5), keras.layers.Dense(1, use_bias=False)]
    model = keras.Sequential([keras.Input((2,)), *layers])
    call, x = forward(model, 8), np.ones((20, 2), "float32")
    for kernel in (1.0, 3.0):
        model.set_weights([np.full((2, 1), kernel)])
        np.testing.assert_allclose(call(x), np.full((20, 1), 2 * kernel))


def test_forward_gives_the_first_of_several_outputs():
    inputs = keras.Input((2,))
    outputs = [keras.layers.Dense(1)(inputs), keras.layers.Dense(5)(inputs)]
    model = keras.Model(inputs, outputs)
    assert forward(model, 4)(np.ones((6, 2), "float32")).shape == (6, 1)


class Traced(keras.layers.Layer):
    """Counts how often its `call` is traced."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def call(self, x):
        self.shapes.append(tuple(x.shape))
        return 2 * x


@pytest.mark.tensorflow(reason="elsewhere nothing is traced")
def test_one_trace_serves_batches_of_any_size():
    model = keras.Sequential([keras.Input((3,)), Traced()])
    del model.layers[0].shapes[:]  # of the building
    for rows in (4, 4, 1, 7):
        x = np.full((rows, 3), rows, "float32")
        np.testing.assert_array_equal(inference(model)(x), 2 * x)
    assert model.layers[0].shapes == [(None, 3)]


@pytest.mark.tensorflow(reason="elsewhere nothing is traced")
def test_sequences_of_every_length_do_not_warn(warned):
    inputs = {"a": keras.Input((None, 2), name="a"), "b": keras.Input((1,), name="b")}
    model = keras.Model(inputs, keras.layers.GlobalMaxPooling1D()(inputs["a"]))
    for length in range(1, 9):
        x = {"a": np.ones((4, length, 2), "float32"), "b": np.ones((4, 1), "float32")}
        np.testing.assert_array_equal(inference(model)(x), np.ones((4, 2)))
    assert not warned()


@pytest.mark.tensorflow(reason="quantization of a compiled model")
def test_a_quantized_model_is_traced_anew():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    x = np.random.default_rng(0).normal(size=(5, 8)).astype("float32")
    exact = inference(model)(x)
    model.quantize("int8")
    quantized = inference(model)(x)
    np.testing.assert_array_equal(quantized, model(x))
    assert not np.array_equal(quantized, exact)


class Static(keras.layers.Layer):
    """A layer that needs the number of rows when it is traced."""

    def call(self, x):
        return tf.reshape(x, (x.shape[0], 4, 1))


class InNumPy(keras.layers.Layer):
    """A layer that needs values, so functions must run eagerly."""

    def call(self, x):
        return tf.constant(x.numpy()) if hasattr(x, "numpy") else 1 / 0


@pytest.mark.tensorflow(reason="elsewhere nothing is traced")
def test_a_model_of_a_known_number_of_rows_is_traced_for_it():
    model = keras.Sequential([keras.Input(batch_shape=(3, 2, 2)), Static()])
    x = np.ones((3, 2, 2), "float32")
    np.testing.assert_array_equal(inference(model)(x), np.ones((3, 4, 1)))


@pytest.mark.tensorflow(reason="elsewhere nothing is traced")
def test_nothing_is_traced_where_functions_run_eagerly():
    tf.config.run_functions_eagerly(True)
    try:
        np.testing.assert_array_equal(inference(InNumPy())(np.ones((3, 2))), 1)
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize("mask_zero", [False, True])
def test_a_mask_of_the_outputs_is_noted(mask_zero):
    embedding = keras.layers.Embedding(5, 2, mask_zero=mask_zero)
    model = keras.Sequential([keras.Input((3,)), embedding])
    inference(model)(np.ones((2, 3), "int32"))
    assert inference(model).is_masked == mask_zero


@pytest.mark.tensorflow(reason="texts as inputs")
def test_texts_are_inputs():
    lookup = keras.layers.StringLookup(vocabulary=["a", "b"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), lookup])
    for dtype in (object, str):
        texts = np.array([["b"], ["c"], ["a"]], dtype)
        np.testing.assert_array_equal(inference(model)(texts), [[2], [0], [1]])
