"""Tests for balanced_losses.py: against NumPy, and what they do to a training."""

import functools

import keras
import numpy as np
import pytest

import tf_pseudofeat as tfpf
from tests.trained import Trained, compiled, train
from tf_pseudofeat import BalancedSoftmax, ClassBalancedCrossentropy

RNG = np.random.default_rng(0)
COUNTS = [70, 25, 5]
LOGITS = RNG.normal(size=(12, 3)).astype("float32") * 3
IDS = np.arange(12) % 3
WEIGHT = np.linspace(0.5, 2, 12).astype("float32")
LOSSES = [BalancedSoftmax, ClassBalancedCrossentropy]


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def expected(kind, logits, ids, counts):
    """Each example by itself, float64."""
    counts, logits = np.array(counts, float), logits.astype(float)
    if kind is BalancedSoftmax:
        p = softmax(logits + np.log(counts))
        return -np.log(p[np.arange(len(ids)), ids])
    weight = np.array([(1 - 0.9999) / (1 - 0.9999**n) for n in counts])
    weight *= len(counts) / weight.sum()
    return -np.log(softmax(logits)[np.arange(len(ids)), ids]) * weight[ids]


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("form", ["ids", "column", "one-hot", "floats"])
@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_the_loss_is_that_of_its_formula(kind, form, outputs):
    labels = {
        "ids": IDS,
        "column": IDS[:, None],
        "one-hot": np.eye(3)[IDS],
        "floats": IDS.astype("float32"),
    }[form]
    values = LOGITS if outputs == "logits" else softmax(LOGITS)
    loss = kind(COUNTS, from_logits=outputs == "logits")
    mine = expected(kind, LOGITS, IDS, COUNTS)
    received = loss(labels, values)
    np.testing.assert_allclose(received, mine.mean(), rtol=1e-5)
    received = loss(labels, values, sample_weight=WEIGHT)
    np.testing.assert_allclose(received, (mine * WEIGHT).mean(), rtol=1e-5)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("from_logits", [True, False])
def test_one_output_is_two_classes(kind, from_logits):
    logits, ids = LOGITS[:, :1], IDS % 2
    both = np.concatenate([np.zeros_like(logits), logits], axis=1)
    outputs = logits if from_logits else softmax(both)[:, 1:]
    received = kind([90, 10], from_logits=from_logits)(ids[:, None], outputs)
    mine = expected(kind, both, ids, [90, 10]).mean()
    np.testing.assert_allclose(received, mine, rtol=1e-5)


def test_balanced_softmax_of_equal_counts_is_the_cross_entropy():
    received = BalancedSoftmax([4, 4, 4], from_logits=True)(IDS, LOGITS)
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(IDS, LOGITS)
    np.testing.assert_allclose(received, plain, rtol=1e-6)


@pytest.mark.parametrize(
    ("beta", "weights"),
    [(0.0, [1, 1, 1]), (1 - 1e-12, np.array([1 / 70, 1 / 25, 1 / 5]))],
)
def test_beta_is_between_no_weights_and_those_of_inverse_counts(beta, weights):
    received = ClassBalancedCrossentropy(COUNTS, beta=beta).class_weights()
    expected = 3 * np.array(weights) / np.sum(weights)
    np.testing.assert_allclose(received, expected, rtol=1e-5)


def test_counts_may_be_by_class_id():
    assert BalancedSoftmax({2: 5, 0: 70, 1: 25}).counts == (70, 25, 5)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("counts", [[3, 0], [3, -1], [3], 3, [np.nan, 1], ["a", "b"]])
def test_counts_that_are_none_are_named(kind, counts):
    with pytest.raises(ValueError, match="`counts`"):
        kind(counts)


@pytest.mark.parametrize("kind", LOSSES)
def test_outputs_of_other_classes_are_named(kind):
    with pytest.raises(ValueError, match=r"`counts` has 2 classes; received outputs"):
        kind([3, 4])(IDS, LOGITS)


@pytest.mark.parametrize("beta", [1, -0.1, 2])
def test_beta_out_of_range(beta):
    with pytest.raises(ValueError, match=r"`beta` must be in \[0, 1\)"):
        ClassBalancedCrossentropy(COUNTS, beta=beta)


def trained(loss, x, y):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="relu", name="features"),
            keras.layers.Dense(3),
        ]
    )
    compiled(model, keras.optimizers.Adam(0.02), loss)
    train(model, x, y, epochs=12, batch_size=50)
    return model


@pytest.fixture(scope="module")
def data():
    y = np.repeat([0, 1, 2], [700, 250, 50])
    x = RNG.normal(size=(1000, 3)).astype("float32")
    x[np.arange(1000), y] += 1
    return x, y


@pytest.fixture(scope="module")
def balanced(data):
    """A network trained on a balanced loss, by the kind of the loss."""
    return functools.cache(
        lambda kind: Trained(trained(kind([700, 250, 50], from_logits=True), *data))
    )


@pytest.fixture(scope="module")
def plain_recall(data):
    """Of the rare class, by a network that was trained on no balanced loss."""
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return rare_recall(trained(plain, *data), data)


def rare_recall(model, data):
    x, y = data
    return np.mean(model.predict(x[y == 2], verbose=0).argmax(axis=1) == 2)


@pytest.mark.integration
@pytest.mark.parametrize(
    "kind",
    [BalancedSoftmax, pytest.param(ClassBalancedCrossentropy, marks=pytest.mark.slow)],
)
def test_a_model_learns_its_rare_class_and_is_saved(
    kind, data, balanced, plain_recall, tmp_path
):
    model = balanced(kind).again()
    assert rare_recall(model, data) > plain_recall + 0.2
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again.loss, kind)
    assert again.loss.get_config() == model.loss.get_config()
    np.testing.assert_allclose(
        again.evaluate(*data, verbose=0), model.evaluate(*data, verbose=0), rtol=1e-5
    )


@pytest.mark.integration
@pytest.mark.parametrize("kind", LOSSES)
def test_a_retraining_does_not_balance_twice(kind, data, balanced):
    model = balanced(kind).again()
    loss = model.loss
    with pytest.raises(ValueError, match="compiled with.*correct twice.*and tau=0"):
        tfpf.retrain_head(model, "features", data, verbose=0)
    with pytest.raises(ValueError, match="`loss` is.*correct twice"):
        tfpf.retrain_head(model, "features", data, loss=loss, verbose=0)
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    settings = {"loss": plain, "tau": 0.0, "epochs": 1, "verbose": 0}
    assert tfpf.retrain_head(model, "features", data, **settings).kept
