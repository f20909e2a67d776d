"""Tests for class_scores.py: classes beside scores, in the order that is decided."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from keras import layers

from tests.ending_in import model_ending_in
from tf_pseudofeat.evaluation.choose_thresholds import choose_thresholds
from tf_pseudofeat.evaluation.thresholds import Thresholds
from tf_pseudofeat.serving.endpoints import endpoints
from tf_pseudofeat.serving.export import export_classifier

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4)).astype("float32")


# ---- Names of classes. ---------------------------------------------------------------


def binary(p):
    return np.concatenate([1 - p, p], axis=1)


@pytest.mark.parametrize(
    "units, activation, probabilities",
    [
        (3, "softmax", lambda y: y),
        (3, None, lambda y: scipy.special.softmax(y, axis=1)),
        (1, "sigmoid", binary),
        (1, None, lambda y: binary(scipy.special.expit(y))),
        (3, "sigmoid", lambda y: y),  # each class by itself
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_classes_stand_beside_their_scores(units, activation, probabilities, dtype):
    model = model_ending_in(units, activation, dtype)
    names = ["no", "yes"] if units == 1 else ["red", "green", "blue"]
    answer = endpoints(model, class_names=names)["serving_default"](X)
    outputs = np.asarray(model(X), "float32")
    name = "probabilities" if activation else "logits"
    assert set(answer) == {name, "classes", "scores"}
    # What jax compiles rounds float16 elsewhere than its layers one by one.
    jax_rounds = keras.backend.backend() == "jax" and dtype == "float16"
    tolerance = 1e-3 if jax_rounds else 1e-6
    np.testing.assert_allclose(np.float32(answer[name]), outputs, atol=tolerance)
    assert answer["scores"].dtype == tf.float32
    classes, scores = (answer[key].numpy() for key in ("classes", "scores"))
    assert (np.diff(scores, axis=1) <= 0).all()
    for row, expected in enumerate(probabilities(outputs)):
        by_name = dict(zip(map(bytes.decode, classes[row]), scores[row], strict=True))
        by_class = dict(zip(names, expected, strict=True))
        assert by_name == pytest.approx(by_class, rel=tolerance)


def test_no_rows_and_one_row_have_classes_and_scores():
    model = model_ending_in(3, "softmax")
    function = endpoints(model, class_names=tuple("abc"))["serving_default"]
    for rows in (0, 1):
        answer = function(X[:rows])
        assert answer["classes"].shape == answer["scores"].shape == (rows, 3)


@pytest.mark.parametrize("name", ["classes", "scores"])
def test_an_output_that_would_be_hidden_raises(name):
    model, names = model_ending_in(3, None), ["a", "b", "c"]
    by_key = keras.Model(model.input, {name: model.output})
    for given, settings in [(model, {"output_name": name}), (by_key, {})]:
        with pytest.raises(ValueError, match=rf"is named \['{name}'\]. Rename"):
            endpoints(given, class_names=names, **settings)


def two_outputs():
    x = keras.Input((4,))
    return keras.Model(x, [layers.Dense(2)(x), layers.Dense(2)(x)])


def per_pixel():
    x = keras.Input((4, 4, 1))
    return keras.Model(x, layers.Dense(3, activation="softmax")(x))


@pytest.mark.parametrize(
    "model, names, message",
    [
        (model_ending_in(3, None), ["a", "b"], "2 names for 3"),
        (model_ending_in(1, "sigmoid"), ["a"], "1 names for 2"),
        (model_ending_in(3, None), ["a", "b", "a"], "'a' twice"),
        (
            model_ending_in(3, None),
            ["a", "", "b"],
            "must have one line each; received ''",
        ),
        (
            model_ending_in(3, None),
            ["a", "b\nc", "d"],
            r"have one line each; .*'b\\nc'",
        ),
        (model_ending_in(3, None), "abc", "received the str 'abc'"),
        (model_ending_in(3, None), [0, 1, 2], "must be strings; received 0"),
        (model_ending_in(3, "tanh"), ["a", "b", "c"], "ends in tanh"),
        (two_outputs(), ["a", "b"], r"shapes \[\(None, 2\), \(None, 2\)\]"),
        (per_pixel(), ["a", "b", "c"], r"one output \[B, C\]"),
    ],
)
def test_names_that_do_not_fit_raise(model, names, message):
    with pytest.raises((ValueError, TypeError), match=message):
        endpoints(model, class_names=names)


# ---- Thresholds. ---------------------------------------------------------------------

MANY = np.random.default_rng(1).normal(size=(400, 4)).astype("float32")


def thresholds_of(bias, temperature=1.0, *, model=None):
    counts, scores = [10] * len(bias), {"estimate": 0.5, "standard_error": 0.1}
    last = None if model is None else model.layers[-1].activation
    linear = last is keras.activations.linear
    settings = {"counts": counts, "from_logits": linear, **scores}
    return Thresholds(tuple(bias), temperature, "f1", 0.5, **settings)


ENDINGS = [(3, "softmax"), (3, None), (1, "sigmoid"), (1, None)]


@pytest.fixture(params=ENDINGS)
def decided(request):
    """A model, names of its classes, and a bias that changes some decisions."""
    units, activation = request.param
    names = ["no", "yes"] if units == 1 else ["red", "green", "blue"]
    bias = [0.0, 0.8] if units == 1 else [0.0, 0.9, -0.7]
    return model_ending_in(units, activation), names, bias


def logits_of(model, x):
    """Float64 `[N, C]` of all four kinds of models."""
    outputs, last = np.asarray(model(x), float), model.layers[-1].activation
    if last is keras.activations.softmax:
        return np.log(outputs)
    if last is keras.activations.sigmoid:
        outputs = scipy.special.logit(outputs)
    return outputs if outputs.shape[1] > 1 else np.hstack([0 * outputs, outputs])


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_classes_are_served_in_the_order_that_thresholds_decide(decided, temperature):
    model, names, bias = decided
    thresholds = thresholds_of(bias, temperature, model=model)
    answer = endpoints(model, class_names=names, thresholds=thresholds)[
        "serving_default"
    ](MANY)
    classes = [[name.decode() for name in row] for row in answer["classes"].numpy()]
    logits = logits_of(model, MANY)
    p = scipy.special.softmax(logits / temperature, axis=1)
    first = [names.index(row[0]) for row in classes]
    np.testing.assert_array_equal(first, thresholds.decide(np.asarray(model(MANY))))
    assert (np.array(first) != p.argmax(axis=1)).any()
    for row, scores, own in zip(classes, answer["scores"].numpy(), p, strict=True):
        assert dict(zip(row, scores, strict=True)) == pytest.approx(
            dict(zip(names, own, strict=True)), rel=1e-4
        )
    order = np.argsort(-(logits + bias), axis=1, kind="stable")
    assert classes == np.array(names)[order].tolist()


def test_thresholds_leave_the_models_own_output(decided):
    model, names, bias = decided
    plain = endpoints(model, class_names=names)["serving_default"](MANY)
    moved = endpoints(model, class_names=names, thresholds=thresholds_of(bias, 2.0))
    answer = moved["serving_default"](MANY)
    assert set(answer) == set(plain)
    (own,) = set(answer) - {"classes", "scores"}
    np.testing.assert_array_equal(answer[own], plain[own])


def test_thresholds_that_move_nothing_serve_the_likeliest_first(decided):
    model, names, bias = decided
    plain = endpoints(model, class_names=names)["serving_default"](MANY)
    nothing = thresholds_of([0.0] * len(bias))
    answer = endpoints(model, class_names=names, thresholds=nothing)
    answer = answer["serving_default"](MANY)
    np.testing.assert_array_equal(answer["classes"], plain["classes"])
    np.testing.assert_allclose(answer["scores"], plain["scores"], rtol=1e-5)


def test_thresholds_that_were_chosen_are_served_from_a_saved_model(decided, tmp_path):
    model, names, bias = decided
    ids = (logits_of(model, MANY) + bias).argmax(axis=1)
    ids = np.where(np.random.default_rng(0).random(400) < 0.9, ids, 0)
    thresholds = choose_thresholds(model, (MANY, ids), temperature=True)
    path = export_classifier(
        model, tmp_path / "served", class_names=names, thresholds=thresholds
    )
    served = tf.saved_model.load(path).signatures["serving_default"]
    answer = served(x=tf.constant(MANY))
    first = [names.index(name.decode()) for name in answer["classes"].numpy()[:, 0]]
    outputs = model.predict(MANY, verbose=0)
    np.testing.assert_array_equal(first, thresholds.decide(outputs))
    calibrated = np.sort(thresholds.calibrate(outputs), axis=1)
    scores = np.sort(answer["scores"].numpy(), axis=1)
    np.testing.assert_allclose(scores, calibrated, rtol=1e-5)
    right = np.mean([np.mean(np.equal(first, ids)[ids == c]) for c in set(ids)])
    assert right > thresholds.before


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_probabilities_of_0_are_decided_for_by_their_bias(temperature):
    x = keras.Input((2,), name="x")
    model = keras.Model(x, layers.Activation("softmax")(x))
    thresholds = thresholds_of([0.0, 50.0], temperature)
    function = endpoints(model, class_names=["a", "b"], thresholds=thresholds)
    logits = np.array([[200.0, 0.0], [40.0, 0.0], [0.0, 200.0]], "float32")
    answer = function["serving_default"](logits)
    assert answer["classes"].numpy()[:, 0].tolist() == [b"a", b"b", b"b"]
    assert np.isfinite(answer["scores"]).all()


@pytest.mark.parametrize(
    ("names", "thresholds", "message"),
    [
        (None, thresholds_of([0.0, 1.0, 2.0]), "order of `classes`; pass"),
        (list("abc"), thresholds_of([0.0, 1.0]), "for 2 classes, but the model has 3"),
        (list("abc"), [0.0, 1.0, 2.0], "from choose_thresholds; received list"),
    ],
)
def test_thresholds_that_do_not_fit_raise(names, thresholds, message):
    model = model_ending_in(3, "softmax")
    with pytest.raises((ValueError, TypeError), match=message):
        endpoints(model, class_names=names, thresholds=thresholds)


def test_names_by_class_id_are_served_in_that_order():
    model = model_ending_in(3, "softmax")
    expected = endpoints(model, class_names=list("abc"))["serving_default"](X)
    by_id = endpoints(model, class_names={2: "c", 0: "a", 1: "b"})
    np.testing.assert_array_equal(
        by_id["serving_default"](X)["classes"], expected["classes"]
    )


def test_thresholds_of_other_names_raise():
    thresholds = Thresholds(
        *((0.0, 1.0), 1.0, "f1", 0.5, 0.5, 0.1, [20, 20]), class_names=("ok", "fraud")
    )
    model = model_ending_in(1, "sigmoid")
    with pytest.raises(ValueError, match=r"for the classes \['ok', 'fraud'\]"):
        endpoints(model, class_names=["fraud", "ok"], thresholds=thresholds)
    assert endpoints(model, class_names=["ok", "fraud"], thresholds=thresholds)
