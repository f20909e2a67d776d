"""Tests for readings.py: the loss says what a linear output means."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pseudofeat as tfpf
from tests.trained import train
from tf_pseudofeat.splitting.readings import reading_of

LABELS = np.repeat([0, 1], [260, 40])
INPUTS = np.random.default_rng(0).normal(size=(300, 3)).astype("float32")
INPUTS[LABELS == 1] += [1.5, 1.0, 0.0]


def own_loss(labels, outputs):
    return keras.ops.mean(keras.ops.square(outputs), axis=-1)


@pytest.mark.parametrize(
    ("activation", "loss", "meaning", "threshold"),
    [
        ("linear", "binary_crossentropy", "numbers", 0.5),
        ("linear", keras.losses.CategoricalCrossentropy(), "numbers", 0.5),
        ("linear", keras.losses.sparse_categorical_crossentropy, "numbers", 0.5),
        ("linear", keras.losses.BinaryCrossentropy(from_logits=True), "logits", 0.0),
        ("linear", "crossentropy", "numbers", 0.5),
        ("linear", own_loss, "logits", 0.0),
        ("linear", None, "logits", 0.0),
        ("log_softmax", None, "logits", 0.0),
        (None, keras.losses.BinaryCrossentropy(from_logits=True), "logits", 0.0),
        ("linear", "mse", "numbers", 0.5),
        ("linear", keras.losses.MeanSquaredError(), "numbers", 0.5),
        ("linear", keras.losses.mean_absolute_error, "numbers", 0.5),
        ("linear", keras.losses.Huber(), "numbers", 0.5),
        ("linear", "log_cosh", "numbers", 0.5),
        ("linear", "hinge", "numbers", 0.0),
        ("linear", keras.losses.SquaredHinge(), "numbers", 0.0),
        ("tanh", "hinge", "numbers", 0.0),
        ("linear", keras.losses.CategoricalHinge(), "numbers", 0.0),
        ("sigmoid", "mse", "probabilities", 0.5),
        ("softmax", None, "probabilities", 0.5),
        (None, None, "probabilities", 0.5),
    ],
)
def test_outputs_are_read_by_activation_and_loss(activation, loss, meaning, threshold):
    reading = reading_of(activation, loss)
    assert (reading.meaning, reading.threshold) == (meaning, threshold)


def trained(loss):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="relu", name="features"),
            keras.layers.Dense(1, name="end"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), loss)
    train(model, INPUTS, LABELS.astype("float32"), epochs=15)
    return model


@pytest.mark.integration
@pytest.mark.parametrize(
    ("loss", "threshold"),
    [("mse", 0.5), pytest.param("hinge", 0.0, marks=pytest.mark.slow)],
)
def test_an_output_that_is_no_logit_is_decided_and_served_as_what_it_is(
    loss, threshold, tmp_path
):
    model = trained(loss)
    decided = model.predict(INPUTS, verbose=0)[:, 0] > threshold
    report = tfpf.retrain_head(model, "features", (INPUTS, LABELS), epochs=2, verbose=0)
    assert report.before["accuracy"] == np.mean(decided == LABELS)
    assert report.before["log_loss"] is None  # there is no probability
    assert report.recipe.tau == 0.0  # nor a prior to take off
    for call in (
        lambda: tfpf.retrain_head(model, "features", (INPUTS, LABELS), tau=1.0),
        lambda: tfpf.adjust_logits(model, [260, 40]),
        lambda: tfpf.choose_thresholds(model, (INPUTS, LABELS)),
        lambda: tfpf.export_classifier(model, tmp_path, class_names=["a", "b"]),
    ):
        with pytest.raises(ValueError, match="trained with the loss"):
            call()
    path = tfpf.export_classifier(model, tmp_path / "served")
    served = tf.saved_model.load(path).signatures["serving_default"]
    np.testing.assert_allclose(
        served(tf.constant(INPUTS))["outputs"],
        model.predict(INPUTS, verbose=0),
        rtol=1e-5,
    )
