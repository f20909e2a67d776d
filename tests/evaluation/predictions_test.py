"""Tests for predictions.py: the same numbers by scipy and by loops over examples."""

import keras
import ml_dtypes
import numpy as np
import pytest
import scipy.special

from tf_pseudofeat.evaluation.predictions import Predictions, output_kind
from tf_pseudofeat.splitting.readings import reading_of

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(40, 3)) * 3
ONE = RNG.normal(size=(40, 1)) * 3
IDS = RNG.integers(3, size=40)
TWO = IDS % 2

# {kind: (labels, outputs, their probabilities [N, C], their logits)}
KINDS = {
    "softmax": (
        IDS,
        scipy.special.softmax(LOGITS, axis=1),
        scipy.special.softmax(LOGITS, axis=1),
        scipy.special.log_softmax(LOGITS, axis=1),
    ),
    "linear": (IDS, LOGITS, scipy.special.softmax(LOGITS, axis=1), LOGITS),
    "sigmoid": (
        TWO,
        scipy.special.expit(ONE),
        np.hstack([scipy.special.expit(-ONE), scipy.special.expit(ONE)]),
        ONE,
    ),
    "one logit": (
        TWO,
        ONE,
        np.hstack([scipy.special.expit(-ONE), scipy.special.expit(ONE)]),
        ONE,
    ),
}


def of_kind(name, weight=None):
    labels, outputs, *_ = KINDS[name]
    return Predictions(labels, outputs, name.replace("one logit", "linear"), weight)


@pytest.fixture(params=KINDS)
def name(request):
    return request.param


def test_probabilities_and_logits_are_those_of_scipy(name):
    _, _, probabilities, logits = KINDS[name]
    predictions = of_kind(name)
    np.testing.assert_allclose(predictions.probabilities, probabilities, rtol=1e-6)
    np.testing.assert_allclose(predictions.logits, logits, rtol=1e-6, atol=1e-7)
    assert len(predictions) == 40


def test_logs_of_probabilities_are_those_of_scipy_also_where_these_are_0(name):
    received = of_kind(name).log_probabilities
    np.testing.assert_allclose(received, np.log(KINDS[name][2]), rtol=1e-6)
    sure = Predictions([0], [[200.0, -900.0, 0.0]], "linear").log_probabilities
    np.testing.assert_allclose(sure, [[0, -1100, -200]])
    assert Predictions([0], [[3.0, 2.0]], None).log_probabilities is None


def test_the_likeliest_class_is_decided_for(name):
    predictions = of_kind(name)
    likeliest = KINDS[name][2].argmax(axis=1)
    np.testing.assert_array_equal(predictions.predicted, likeliest)
    assert len(set(likeliest)) == predictions.num_classes  # all are decided for


@pytest.mark.parametrize(("kind", "output"), [("sigmoid", 0.5), ("linear", 0.0)])
def test_one_output_at_its_threshold_is_class_0(kind, output):
    outputs = [[np.nextafter(output, -1)], [output], [np.nextafter(output, 1)]]
    assert Predictions([0, 0, 0], outputs, kind).predicted.tolist() == [0, 0, 1]


def test_outputs_that_nobody_knows_are_decided_for_and_have_no_probability():
    predictions = Predictions([0, 1], [[3.0, -1.0, 0.2], [0.0, 9.0, 0.1]], None)
    assert predictions.probabilities is None
    assert predictions.predicted.tolist() == [0, 1]
    np.testing.assert_array_equal(predictions.logits, predictions.outputs)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_logits_of_any_size_have_probabilities():
    outputs = [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]]
    p = Predictions([0, 1], outputs, "linear").probabilities
    np.testing.assert_allclose(p, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], atol=1e-12)
    p = Predictions([0, 1], [[-1e4], [1e4]], "linear").probabilities
    np.testing.assert_allclose(p, [[1, 0], [0, 1]], atol=1e-12)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_probabilities_of_0_and_1_have_finite_logits():
    softmax = Predictions([0, 1], [[1.0, 0.0], [0.0, 1.0]], "softmax")
    sigmoid = Predictions([0, 1], [[0.0], [1.0]], "sigmoid")
    for predictions in (softmax, sigmoid):
        assert np.isfinite(predictions.logits).all()
        np.testing.assert_allclose(predictions.probabilities, np.eye(2), atol=1e-30)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_half_precision_becomes_single(dtype):
    outputs = KINDS["softmax"][1].astype(dtype)
    predictions = Predictions(IDS, outputs, "softmax")
    assert predictions.outputs.dtype == np.float32
    np.testing.assert_array_equal(predictions.outputs, outputs.astype("float32"))
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize(
    "labels", [IDS, IDS[:, None], np.eye(3)[IDS], IDS.tolist(), np.float32(IDS)]
)
def test_labels_of_each_form_have_the_same_ids(labels):
    predictions = Predictions(labels, KINDS["softmax"][1], "softmax")
    np.testing.assert_array_equal(predictions.ids, IDS)
    np.testing.assert_array_equal(predictions.select([5, 2]).ids, IDS[[5, 2]])


@pytest.mark.parametrize("convert", [np.asarray, list])
@pytest.mark.parametrize("rows", [IDS == 1, [3, 3, 0], slice(4, 9)])
def test_some_examples_keep_what_is_theirs(name, rows, convert):
    weight = RNG.random(40)
    some = of_kind(name, convert(weight)).select(rows)
    labels, outputs, probabilities, _ = KINDS[name]
    np.testing.assert_array_equal(some.ids, labels[rows])
    np.testing.assert_array_equal(some.outputs, outputs[rows])
    np.testing.assert_array_equal(some.sample_weight, weight[rows])
    np.testing.assert_allclose(some.probabilities, probabilities[rows], rtol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_less_is_a_subtraction_from_the_logits(name, temperature):
    weight = RNG.random(40)
    predictions = of_kind(name, weight)
    offsets = np.array([0.5, -1.0, 2.0])[: predictions.num_classes]
    moved = predictions.shifted(offsets, temperature)
    logits = np.log(KINDS[name][2])
    expected = scipy.special.softmax((logits - offsets) / temperature, axis=1)
    np.testing.assert_allclose(moved.probabilities, expected, rtol=1e-6, atol=1e-12)
    assert moved.kind == predictions.kind
    assert moved.outputs.shape == predictions.outputs.shape
    assert moved.sample_weight is weight
    # And it can be taken back.
    back = moved.shifted(-offsets / temperature, 1 / temperature)
    np.testing.assert_allclose(back.outputs, predictions.outputs, rtol=1e-5, atol=1e-9)


def test_bayes_rule_moves_probabilities_from_one_prior_to_another(name):
    predictions = of_kind(name)
    shares = np.array([0.7, 0.2, 0.1])[: predictions.num_classes]
    likelihoods = predictions.probabilities / shares
    expected = likelihoods / likelihoods.sum(axis=1, keepdims=True)
    received = predictions.shifted(np.log(shares)).probabilities
    np.testing.assert_allclose(received, expected, rtol=1e-6)


HALF = np.full((2, 2), 0.5, "float32")


FROM_LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("activation", "loss", "outputs", "kind"),
    [
        ("softmax", None, HALF, "softmax"),
        ("softmax", None, HALF.astype("float16") * 1.005, "softmax"),  # rounded
        ("softmax", None, HALF * np.nan, None),
        ("log_softmax", None, np.log(HALF), "linear"),
        ("linear", None, HALF, "linear"),  # whatever the numbers look like
        (None, FROM_LOGITS, HALF, "linear"),
        (None, FROM_LOGITS, HALF * np.nan, None),
        (None, None, HALF, "softmax"),
        (None, None, HALF * 1.1, None),
        (None, None, HALF * [[1.5, 0.5]], "softmax"),
        (None, None, HALF * [[3, -1]], None),  # they add up to 1, and are no shares
        ("sigmoid", None, HALF[:, :1], "sigmoid"),
        ("sigmoid", None, HALF * 1.5, None),  # each class by itself
        (None, None, HALF[:, :1], "sigmoid"),
        ("relu", None, HALF[:, :1] * 4, None),
        ("linear", None, HALF[:, :1], "linear"),
        ("linear", "mse", HALF[:, :1], None),
        ("linear", "hinge", HALF[:, :1], None),
    ],
)
def test_the_kind_of_outputs_is_told_by_their_maker_and_their_sums(
    activation, loss, outputs, kind
):
    assert output_kind(reading_of(activation, loss), outputs) == kind


@pytest.mark.parametrize("scale", [1.0, 30.0, 3000.0])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_log_odds_are_against_all_the_others(classes, scale):
    logits = scale * np.random.default_rng(classes).normal(size=(50, classes))
    received = Predictions(np.zeros(50, int), logits, "linear").log_odds
    for place in range(classes):
        others = np.delete(logits, place, axis=1)
        expected = logits[:, place] - scipy.special.logsumexp(others, axis=1)
        np.testing.assert_allclose(received[:, place], expected, rtol=1e-9, atol=1e-9)


def test_nan_is_no_output():
    outputs = LOGITS.copy()
    outputs[[3, 7], 1] = np.nan
    with pytest.raises(ValueError, match=r"NaN for 2 of 40 examples, first .* 3\."):
        Predictions(IDS, outputs, "linear")
    assert Predictions(IDS, outputs, None).log_odds is None


@pytest.mark.parametrize(
    ("labels", "weight", "message"),
    [
        ([0, 1], None, "received 2 labels and 3 outputs"),
        ([0, 1, 1], [1.0, 1.0], r"each of the 3 examples, shape \[3\]"),
        ([0, 1, 1], [1.0, -2.0, 1.0], "example 1 has weight -2.0"),
        ([0, 1, 1], [0, 0, 0], "All 3 sample weights are 0"),
    ],
)
def test_what_belongs_to_no_example_raises(labels, weight, message):
    with pytest.raises(ValueError, match=message):
        Predictions(labels, np.full((3, 2), 0.5), "softmax", weight)


def test_a_masked_class_is_an_output():
    outputs = LOGITS.copy()
    outputs[:, 2] = -np.inf
    probabilities = Predictions(IDS, outputs, "linear").probabilities
    np.testing.assert_array_equal(probabilities[:, 2], 0)
