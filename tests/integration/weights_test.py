"""Tests for weights.py: means of weights keep what the layers promise."""

import keras
import numpy as np
import pytest

import tf_pseudofeat as tfpf
from tests.small_models import small_classifier
from tests.trained import train
from tf_pseudofeat.head.weights import (
    blend_weights,
    product_layers,
    recorded_prior,
    weights_of,
)

X = np.random.default_rng(0).normal(size=(120, 4)).astype("float32")
Y = np.repeat([0, 1, 2], [70, 30, 20])
X[np.arange(120), Y] += 2


def make_model(**of_last):
    adam = keras.optimizers.Adam(0.05)
    return small_classifier(optimizer=adam, seed=0, of_last=of_last, jit_compile=False)


def test_a_constraint_holds_of_a_mean_of_weights():
    head = make_model(kernel_constraint=keras.constraints.UnitNorm()).layers[-1]
    old, new = np.eye(5, 3), -0.9 * np.eye(5, 3)[::-1] + 0.1
    head.kernel.assign(old)
    before = weights_of(head)
    head.kernel.assign(new)
    blend_weights(head, before, weights_of(head), 0.5)
    norms = np.linalg.norm(head.kernel, axis=0)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)
    assert np.linalg.norm((old + new) / 2, axis=0).max() < 0.9  # it had to be applied


def test_a_retrained_head_keeps_its_constraint():
    model = make_model(kernel_constraint=keras.constraints.NonNeg())
    model.fit(X, Y, batch_size=60, epochs=2, verbose=0)
    tfpf.retrain_head(model, "features", (X, Y), blend=0.5, epochs=2, verbose=0)
    assert np.min(model.layers[-1].kernel) >= 0


def test_products_of_weights_are_not_averaged():
    model = make_model()
    model.layers[-1].enable_lora(2)
    model.fit(X, Y, epochs=1, verbose=0)
    assert product_layers(tfpf.split_at(model, "features").head) == ["end"]
    before = model.get_weights()
    with pytest.raises(
        ValueError, match=r"layer 'end' multiplies weights .*Pass blend=0"
    ):
        tfpf.retrain_head(model, "features", (X, Y), blend=0.5, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    report = tfpf.retrain_head(model, "features", (X, Y), epochs=1, verbose=0)
    assert report.recipe.blend == 0.0


def test_a_quantized_kernel_is_not_made_anew():
    model = make_model()
    model.quantize("int8")
    with pytest.raises(
        ValueError, match="layer 'end' is quantized, so its kernel would"
    ):
        tfpf.retrain_head(model, "features", (X, Y), fresh_head=True, verbose=0)


def test_weights_that_balance_already_are_not_balanced_again():
    weight = (1 / np.bincount(Y))[Y]
    model = make_model()
    train(model, X, Y, sample_weight=weight * 40, epochs=15)
    report = tfpf.retrain_head(model, "features", (X, Y, weight), epochs=3, verbose=0)
    assert report.pseudo == [0, 0, 0]
    np.testing.assert_allclose(report.prior, 1 / 3)
    assert report.after["balanced_accuracy"] > report.before["balanced_accuracy"] - 0.05


def test_a_label_of_weight_0_is_not_looked_at():
    labels = np.where(np.arange(120) % 4 == 0, -1, Y)
    weight = (labels >= 0).astype("float32")
    rows = labels >= 0
    reports = []
    for data in ((X, labels, weight), (X[rows], Y[rows])):
        model = make_model()
        reports.append(
            tfpf.retrain_head(
                *(model, "features", data), validation_data=data, epochs=1, verbose=0
            )
        )
    assert reports[0].real == reports[1].real == np.bincount(Y[rows]).tolist()
    assert reports[0].before["accuracy"] == reports[1].before["accuracy"]


def test_validation_weights_count_in_the_guard():
    weight = np.where(Y == 0, 1.0, 5.0)
    report = tfpf.retrain_head(
        make_model(),
        "features",
        (X, Y),
        validation_data=(X, Y, weight),
        epochs=1,
        verbose=0,
    )
    shares = np.bincount(Y, weight) / weight.sum()
    np.testing.assert_allclose(report.before["true_share"], shares)


def test_a_search_leaves_what_was_noted_of_the_prior():
    """Or the next retraining takes a prior off that is gone."""
    model = make_model()
    train(model, X, Y, epochs=15)
    settings = {"epochs": 2, "verbose": 0}
    split = tfpf.split_at(model, "features")
    tfpf.retrain_head(model, split, (X, Y), monitor=None, **settings)
    noted = recorded_prior(split.head)
    assert noted is not None
    tfpf.diagnose(model, split, (X, Y), (X, Y), **settings)
    assert recorded_prior(split.head) == noted
    tfpf.tune(model, split, (X, Y), (X, Y), **settings)
    assert recorded_prior(split.head) == noted


def test_a_weight_that_is_frozen_by_itself_stays_frozen():
    """The flag of a BatchNormalization sets those of its weights."""
    keras.utils.set_random_seed(0)
    norm = keras.layers.BatchNormalization(name="norm")
    layers = [keras.layers.Dense(5, name="features"), norm, keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    norm.gamma.trainable = False
    settings = {"epochs": 1, "verbose": 0}
    tfpf.retrain_head(model, "features", (X, Y), **settings)
    tfpf.retrain_head(model, "features", (X, Y), freeze_batch_norm=False, **settings)
    assert [v.name for v in norm.trainable_variables] == ["beta"]
    assert not norm.gamma.trainable and norm.beta.trainable and norm.trainable
