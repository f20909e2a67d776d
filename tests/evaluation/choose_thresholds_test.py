"""Tests for choose_thresholds.py: by every threshold, and models of known logits."""

import itertools
import warnings

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from scipy import optimize
from sklearn import metrics

from tests.py_datasets import ArrayBatches
from tf_pseudofeat.core.seeds import rng_for
from tf_pseudofeat.evaluation.bias_search import fit_bias
from tf_pseudofeat.evaluation.choose_thresholds import (
    choose_thresholds,
    cross_fitted_decisions,
    fit_temperature,
    predictions_of,
)
from tf_pseudofeat.evaluation.comparison import SCORE_NAMES, folds_of
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.evaluation.scores import DECISION_SCORES


def drawn(sizes, seed=0, clear=1.5):
    """Logits that follow class shares, as those of a trained classifier do."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(range(len(sizes)), sizes))
    logits = clear * np.eye(len(sizes))[ids] + rng.normal(size=(ids.size, len(sizes)))
    return ids, logits + np.log(sizes)


def scored(predictions, bias, name, minority):
    decided = Predictions(
        predictions.labels,
        np.log(predictions.probabilities) + bias,
        "linear",
        predictions.sample_weight,
    )
    return Guard(name).score(decided, minority)


# ---- Two classes: every threshold there is. ------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", DECISION_SCORES)
def test_of_two_classes_no_threshold_is_better(name, weighted):
    ids, logits = drawn([120, 15])
    weight = np.random.default_rng(1).random(135) if weighted else None
    predictions = Predictions(ids, logits, "linear", weight)
    margin = np.sort(logits[:, 0] - logits[:, 1])
    places = [margin[0] - 1, *(margin[1:] + margin[:-1]) / 2, margin[-1] + 1]
    best = max(scored(predictions, [0, place], name, [1]) for place in places)
    bias = fit_bias(predictions, Guard(name), [1])
    assert bias.shape == (2,) and bias[0] == 0
    assert scored(predictions, bias, name, [1]) == pytest.approx(best, abs=1e-12)
    assert best >= scored(predictions, [0, 0], name, [1])


def test_one_output_has_the_bias_of_two():
    ids, logits = drawn([120, 15])
    margin = logits[:, 1:] - logits[:, :1]
    expected = fit_bias(Predictions(ids, logits, "linear"), Guard("f1"), [1])
    for outputs, kind in [(margin, "linear"), (scipy.special.expit(margin), "sigmoid")]:
        received = fit_bias(Predictions(ids, outputs, kind), Guard("f1"), [1])
        np.testing.assert_allclose(received, expected, rtol=1e-6)


# ---- Several classes. ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DECISION_SCORES)
def test_of_three_classes_the_bias_is_at_least_as_good_as_none_and_as_the_even(
    name, seed
):
    sizes = [150, 40, 15]
    ids, logits = drawn(sizes, seed)
    predictions = Predictions(ids, logits, "linear")
    bias = fit_bias(predictions, Guard(name), [1, 2])
    received = scored(predictions, bias, name, [1, 2])
    even = -np.log(sizes)
    assert received >= scored(predictions, [0, 0, 0], name, [1, 2])
    assert received >= scored(predictions, even, name, [1, 2])
    # No bias of one class alone makes it better.
    for place, step in itertools.product(range(3), np.linspace(-4, 4, 41)):
        other = bias + step * np.eye(3)[place]
        assert scored(predictions, other, name, [1, 2]) <= received + 0.01


def test_of_three_classes_the_bias_is_hardly_worse_than_the_best_of_a_grid():
    ids, logits = drawn([150, 40, 15])
    predictions = Predictions(ids, logits, "linear")
    grid = itertools.product(np.linspace(-1, 5, 49), repeat=2)
    best = max(scored(predictions, [0, *pair], "macro_f1", [1, 2]) for pair in grid)
    bias = fit_bias(predictions, Guard("macro_f1"), [1, 2])
    assert scored(predictions, bias, "macro_f1", [1, 2]) > best - 0.015


def test_a_bias_that_does_nothing_is_not_added():
    ids = np.repeat([0, 1, 2], 10)
    predictions = Predictions(ids, 20.0 * np.eye(3)[ids], "linear")
    bias = fit_bias(predictions, Guard("accuracy"), [2])
    np.testing.assert_array_equal(bias, [0, 0, 0])


def mean_recall(labels, outputs):
    return metrics.balanced_accuracy_score(labels, np.argmax(outputs, axis=1))


class Misses(keras.metrics.Metric):
    """What is to fall: the mean share of each class that is missed."""

    def __init__(self):
        super().__init__(name="misses")
        self._direction = "down"

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.missed = 1 - mean_recall(y_true, y_pred)

    def reset_state(self):
        self.missed = 0.0

    def result(self):
        return self.missed


@pytest.mark.parametrize("monitor", [mean_recall, Misses()])
def test_a_score_of_ones_own_is_raised_and_a_metric_that_is_to_fall_falls(monitor):
    ids, logits = drawn([150, 40, 15])
    outputs = scipy.special.softmax(logits, axis=1)
    predictions = Predictions(ids, outputs, "softmax")
    bias = fit_bias(predictions, Guard(monitor), [1, 2])
    named = fit_bias(predictions, Guard("balanced_accuracy"), [1, 2])
    received, expected = (
        scored(predictions, b, "balanced_accuracy", [1, 2]) for b in (bias, named)
    )
    before = scored(predictions, [0, 0, 0], "balanced_accuracy", [1, 2])
    assert before + 0.1 < expected - 0.03 < received


# ---- What to expect of new data. -----------------------------------------------------


def test_a_fifth_is_decided_by_what_the_other_four_chose():
    ids, logits = drawn([150, 40, 15])
    predictions = Predictions(ids, logits, "linear")
    guard = Guard("f1")
    received = cross_fitted_decisions(predictions, guard, [1, 2], (3, 4))
    fold = folds_of(ids, 5, rng_for("folds", (3, 4)))
    for k in range(5):
        bias = fit_bias(predictions.select(fold != k), guard, [1, 2])
        expected = logits[fold == k] + bias
        np.testing.assert_allclose(received.outputs[fold == k], expected)
    np.testing.assert_array_equal(received.ids, ids)


def test_the_estimate_on_noise_is_chance():
    rng, own, estimates = np.random.default_rng(0), [], []
    ids = np.repeat([0, 1], 25)
    guard = Guard("balanced_accuracy")
    for _ in range(80):
        noise = Predictions(ids, rng.normal(size=(50, 2)), "linear")
        bias = fit_bias(noise, guard, [1])
        own.append(scored(noise, bias, "balanced_accuracy", [1]))
        estimates.append(
            guard.score(cross_fitted_decisions(noise, guard, [1], (1, 2)), [1])
        )
    assert np.mean(own) > 0.56
    error = np.std(estimates) / np.sqrt(80)
    assert np.mean(estimates) == pytest.approx(0.5, abs=3 * error)


ONE = (np.array([[1.0, 3.0]]), np.array([1]))  # example
TWO = (np.array([[1.0, 3.0], [2.0, 1.0]]), np.array([1, 0]))


# ---- Of a model. ---------------------------------------------------------------------

ENDINGS = {
    "softmax": (3, "softmax"),
    "logits": (3, None),
    "sigmoid": (1, "sigmoid"),
    "one logit": (1, None),
}


def gives(units, activation):
    """A model that takes logits `[B, units]` and ends in an activation."""
    inputs = keras.Input((units,))
    dense = keras.layers.Dense(units, activation)
    model = keras.Model(inputs, dense(inputs))
    dense.set_weights([np.eye(units), np.zeros(units)])
    return model


@pytest.fixture(params=ENDINGS)
def ending(request):
    """A model, its data, their logits `[N, C]`, and class sizes."""
    units, activation = ENDINGS[request.param]
    sizes = [150, 40, 15] if units == 3 else [150, 20]
    ids, logits = drawn(sizes)
    if units == 1:
        logits = logits[:, 1:] - logits[:, :1]
    x = logits.astype("float32")
    both = x if units == 3 else np.hstack([0 * x, x])
    return gives(units, activation), (x, ids), both.astype(float), sizes


def test_a_model_is_read_and_left_as_it_is(ending):
    model, (x, ids), logits, sizes = ending
    before = [weight.tobytes() for weight in model.get_weights()]
    thresholds = choose_thresholds(model, (x, ids), "f1")
    assert [weight.tobytes() for weight in model.get_weights()] == before
    p = scipy.special.softmax(logits, axis=1)
    minority = list(range(1, len(sizes)))
    average = "macro" if len(sizes) > 2 else "binary"
    options = {"labels": minority, "average": average} if len(sizes) > 2 else {}
    expected = metrics.f1_score(ids, p.argmax(axis=1), **options)
    assert thresholds.before == pytest.approx(expected)
    assert thresholds.metric == "f1"
    assert thresholds.counts == sizes
    assert thresholds.temperature == 1
    decided = thresholds.decide(model.predict(x, verbose=0))
    chosen = metrics.f1_score(ids, decided, **options)
    assert chosen > expected
    assert chosen >= thresholds.estimate
    assert 0 < thresholds.standard_error < 0.2


@pytest.mark.parametrize("temperature", [False, True])
def test_what_the_model_gives_is_decided_and_calibrated(ending, temperature):
    model, (x, ids), logits, _ = ending
    thresholds = choose_thresholds(model, (x, ids), temperature=temperature)
    assert (thresholds.temperature != 1) == temperature
    outputs = model.predict(x, verbose=0)
    expected = (logits + thresholds.bias).argmax(axis=1)
    np.testing.assert_array_equal(thresholds.decide(outputs), expected)
    p = scipy.special.softmax(logits / thresholds.temperature, axis=1)
    np.testing.assert_allclose(thresholds.calibrate(outputs), p, rtol=1e-4, atol=1e-6)
    linear = model.layers[-1].activation is keras.activations.linear
    assert thresholds.from_logits == linear
    if thresholds.threshold is not None:
        above = scipy.special.softmax(logits, axis=1)[:, 1] > thresholds.threshold
        np.testing.assert_array_equal(above, expected)


@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("temperature", [False, True])
def test_the_printed_threshold_is_that_of_what_the_model_gives(units, temperature):
    ids, logits = drawn([1200, 90])
    x = (2 * (logits if units == 2 else logits[:, 1:] - logits[:, :1])).astype(
        "float32"
    )
    model = gives(units, "softmax" if units == 2 else "sigmoid")
    thresholds = choose_thresholds(model, (x, ids), "f1", temperature=temperature)
    (line,) = (line for line in str(thresholds).splitlines() if "more than" in line)
    printed = float(line.split("more than ")[1].rstrip("."))
    outputs = model.predict(x, verbose=0)
    decided = thresholds.decide(outputs)
    assert 0 < decided.sum() < len(ids)
    for threshold in (printed, thresholds.threshold):
        np.testing.assert_array_equal(outputs[:, -1] > threshold, decided)


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_temperature_of_scaled_logits_is_found_again(ending, scale):
    model, (x, _), logits, _ = ending
    rng = np.random.default_rng(0)
    # Labels that follow the probabilities, so that 1 is right before the scaling.
    repeated = np.repeat(np.arange(len(x)), 40)
    p = scipy.special.softmax(logits, axis=1)
    ids = np.array([rng.choice(p.shape[1], p=p[row]) for row in repeated])
    thresholds = choose_thresholds(
        model, (scale * x[repeated], ids), "accuracy", temperature=True
    )
    assert thresholds.temperature == pytest.approx(scale, rel=0.1)

    def loss(temperature):
        z = scale * logits[repeated] / temperature
        return metrics.log_loss(ids, scipy.special.softmax(z, axis=1))

    best = optimize.minimize_scalar(loss, bounds=(0.1, 10), method="bounded").x
    assert thresholds.temperature == pytest.approx(best, rel=1e-3)


def test_a_temperature_moves_no_decision(ending):
    model, (x, ids), _, _ = ending
    plain = choose_thresholds(model, (x, ids))
    calibrated = choose_thresholds(model, (x, ids), temperature=True)
    assert calibrated.temperature != 1
    assert calibrated.bias == plain.bias
    assert calibrated.threshold == plain.threshold
    outputs = model.predict(x, verbose=0)
    np.testing.assert_array_equal(calibrated.decide(outputs), plain.decide(outputs))


@pytest.mark.parametrize("wrap", [np.asarray, lambda ids: np.eye(3)[ids]])
def test_weight_0_is_as_good_as_no_example(wrap):
    ids, logits = drawn([150, 40, 15])
    model, x = gives(3, "softmax"), logits.astype("float32")
    weight = np.random.default_rng(1).random(len(x))
    weight[::3] = 0
    rows = np.flatnonzero(weight)
    labels = wrap(ids)
    first = choose_thresholds(model, (x, labels, weight), "f1", temperature=True)
    second = choose_thresholds(
        model, (x[rows], labels[rows], weight[rows]), "f1", temperature=True
    )
    assert first == second
    assert sum(first.counts) == len(rows)


@pytest.mark.parametrize("kind", ["dataset", "PyDataset"])
def test_data_of_every_kind_are_read(kind):
    ids, logits = drawn([150, 20])
    x, model = logits.astype("float32"), gives(2, "softmax")
    expected = choose_thresholds(model, (x, ids))
    dataset = tf.data.Dataset.from_tensor_slices((x, ids)).batch(50)
    data = dataset if kind == "dataset" else ArrayBatches(x, ids, batch_size=50)
    assert choose_thresholds(model, data) == expected


def test_the_same_seed_gives_the_same_folds():
    ids, logits = drawn([150, 20])
    model, data = gives(2, None), (logits.astype("float32"), ids)
    first, second, other = (
        choose_thresholds(model, data, seed=seed) for seed in [(1, 2), (1, 2), (3, 4)]
    )
    assert first == second
    assert other.bias == first.bias
    assert other.estimate != first.estimate


@pytest.mark.parametrize(
    ("metric", "improves"),
    [("balanced_accuracy", True), (Misses(), True), ("accuracy", False)],
)
def test_it_says_whether_an_improvement_is_expected(metric, improves):
    ids, logits = drawn([400, 60, 20], clear=1.0)  # with which accuracy is at its best
    chosen = choose_thresholds(gives(3, None), (logits.astype("f"), ids), metric)
    assert chosen.improves == improves
    assert ("No improvement is expected" in str(chosen)) == (not improves)


def test_one_validation_example_is_as_good_as_none():
    with pytest.raises(
        ValueError, match="`metric` .* two classes or more to score on; all 1"
    ):
        choose_thresholds(gives(2, None), ONE)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            "log_loss",
            "`metric` must be a score of decisions.*received 'log_loss', which",
        ),
        ("roc_auc", "received 'roc_auc', which thresholds do not change"),
        (None, "received None"),
        ("F1", r"`metric` must be one of \('accuracy'.*'F1'. Did you mean 'f1'\?"),
        ("precision", r"`metric` must be one of .*a Keras metric; received 'precis"),
        (keras.losses.Hinge(), "`metric` must be a score.*Pass a function that neg"),
        (lambda labels, outputs: "a", "`metric` '<lambda>' must return one number"),
    ],
)
def test_what_no_threshold_moves_raises(metric, message):
    with pytest.raises(ValueError, match=message):
        choose_thresholds(gives(2, None), TWO, metric)


def test_names_that_are_refused_are_not_listed():
    with pytest.raises(ValueError, match="must be one of") as error:
        choose_thresholds(gives(2, None), TWO, "precision")
    named = [name for name in SCORE_NAMES if f"'{name}'" in str(error.value)]
    assert named == list(DECISION_SCORES)


def test_the_metric_may_be_a_guard():
    ids, logits = drawn([150, 20])
    model, data = gives(2, None), (logits.astype("float32"), ids)
    expected = choose_thresholds(model, data, "f1")
    assert choose_thresholds(model, data, Guard("f1", confidence=0.9)) == expected


def test_outputs_of_no_known_kind_raise():
    data = ONE
    with pytest.raises(ValueError, match="neither probabilities nor logits"):
        choose_thresholds(gives(2, "relu"), data)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Reshape((2, 1))])
    with pytest.raises(ValueError, match=r"one output \[B, C\].*shape \[1, 2, 1\]"):
        predictions_of(model, data)
    with pytest.raises(ValueError, match="2 names for 3"):
        choose_thresholds(
            gives(3, None), (np.eye(3), np.arange(3)), class_names=["a", "b"]
        )
    with pytest.raises(TypeError, match=r"Keras 3|keras\.Model"):
        predictions_of(lambda x: x, data)
    with pytest.raises(TypeError, match="`data` must be"):
        predictions_of(gives(2, None), "data")


@pytest.mark.parametrize("first", [2, 1027])  # in the second batch
def test_inputs_that_are_nan_are_named(ending, first):
    model, (x, ids), _, _ = ending
    x, ids = (np.tile(array, (8, 1)[: array.ndim]) for array in (x, ids))
    x[[first, first + 1]] = np.nan
    message = (
        f"The outputs of '{model.name}' are NaN or infinite in 2 of .*the first is row "
        f"{first}. So are the inputs of 2 of them, the first is row {first}: clean the"
    )
    with pytest.raises(ValueError, match=message):
        choose_thresholds(model, (x, ids))


def test_a_temperature_of_data_without_a_mistake_is_not_next_to_nothing():
    """Each logit says the right class by 3 more than the others."""
    labels = np.arange(60) % 3
    predictions = Predictions(labels, 3 * np.eye(3)[labels], "linear")
    temperature = fit_temperature(predictions)
    # One example of 61 that is of no class: a third of it is right.
    right = (60 + 1 / 3) / 61
    expected = 3 / np.log(2 * right / (1 - right))
    assert temperature == pytest.approx(expected, rel=1e-3)


def test_labels_may_be_the_class_names():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, activation="softmax")]
    )
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    ids = (x[:, 0] > 0.5).astype(int)
    names = np.array(["ok", "fraud"])
    by_name = choose_thresholds(model, (x, names[ids]), class_names=list(names))
    by_id = choose_thresholds(model, (x, ids), class_names=list(names))
    assert by_name == by_id
    with pytest.raises(ValueError, match="'fraud' is not among the class names"):
        choose_thresholds(model, (x, names[ids]), class_names=["ok", "theft"])


@pytest.mark.parametrize("minority", [[7], [], ["fraud"], 1, [0.5]])
def test_a_minority_that_is_none_of_the_classes_is_named(minority):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, activation="softmax")]
    )
    x, labels = np.ones((20, 3), "float32"), np.repeat([0, 1], [15, 5])
    with pytest.raises(
        ValueError, match="`minority` must be a list of class ids from 0 to"
    ):
        choose_thresholds(model, (x, labels), minority=minority)


def test_the_minority_of_balanced_data_is_asked_for():
    """The rare classes of the training data are not those of such validation data."""
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3, activation="softmax")]
    )
    x = np.random.default_rng(0).normal(size=(59, 3)).astype("float32")
    data = x, np.repeat([0, 1, 2], [20, 19, 20])
    names = ["a", "b", "c"]
    with pytest.warns(UserWarning, match="the smallest: 'b'. Pass `minority`, a list"):
        assert choose_thresholds(model, data, "f1", class_names=names).minority == [1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = choose_thresholds(model, data, "f1", minority=[2, 0])
        assert "\nThe minority: class 0 and class 2.\n" in str(told)
        assert choose_thresholds(model, data, "macro_f1").minority is None
        rare = x[:45], np.repeat([0, 1, 2], [20, 9, 16])
        assert choose_thresholds(model, rare, "f1").minority == [1]
