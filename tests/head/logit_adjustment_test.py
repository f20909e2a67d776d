"""Tests for logit_adjustment.py: against numpy, for each kind of output, and saved."""

import types
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import layers, ops

from tests.each_backend import gradient
from tests.trained import train
from tf_pseudofeat.evaluation.scores import balanced_accuracy
from tf_pseudofeat.head.bias_shift import final_dense, shift_bias
from tf_pseudofeat.head.logit_adjustment import LogitAdjustment, adjust_logits
from tf_pseudofeat.retraining.report import RetrainingReport
from tf_pseudofeat.serving.export import export_classifier
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.split_at import split_at

X = np.random.default_rng(0).normal(size=(9, 4)).astype("float32")
COUNTS = [100, 20, 4]
TWO = [100, 20]


@pytest.fixture(autouse=True)
def no_other_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def model_ending_in(*last, seed=1):
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((4,))
    x = layers.Dense(5, activation="tanh", name="features")(x)
    for layer in last:
        x = layer(x)
    return keras.Model(inputs, x)


def dense(units, activation=None, **kwargs):
    """A Dense layer with a bias that is not zero."""
    return layers.Dense(
        units, activation, bias_initializer="random_normal", name="last", **kwargs
    )


def softmax_model():
    return model_ending_in(dense(3, "softmax"))


def without_graph():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.last = layers.Dense(3)

        def call(self, inputs):
            return self.last(inputs)

    model = Subclassed()
    model(X)
    return model


def outputs_of(model, x=X):
    return keras.ops.convert_to_numpy(model(x, training=False))


def expected_outputs(outputs, activation, counts, tau=1.0):
    """Bayes' rule in float64, in the space where each kind is simplest."""
    outputs = np.asarray(outputs, dtype="float64")
    prior = np.asarray(counts, dtype="float64") / np.sum(counts)
    weight = prior**-tau
    if activation == "linear" and outputs.shape[1] > 1:
        return outputs + np.log(weight)
    if activation == "linear":
        return outputs + np.log(weight[1] / weight[0])
    if activation == "sigmoid":
        return outputs * weight[1] / (outputs * weight[1] + (1 - outputs) * weight[0])
    p = np.exp(outputs) if activation == "log_softmax" else outputs
    p = p * weight / (p * weight).sum(axis=1, keepdims=True)
    return np.log(p) if activation == "log_softmax" else p


# {case: (how the model ends, its activation, counts)}; all have a bias to shift.
CASES = {
    "softmax": (lambda: [dense(3, "softmax")], "softmax", COUNTS),
    "log_softmax": (lambda: [dense(3, "log_softmax")], "log_softmax", COUNTS),
    "logits": (lambda: [dense(3)], "linear", COUNTS),
    "sigmoid": (lambda: [dense(1, "sigmoid")], "sigmoid", TWO),
    "one logit": (lambda: [dense(1)], "linear", TWO),
    "activation layer": (
        lambda: [dense(3), layers.Activation("softmax")],
        "softmax",
        COUNTS,
    ),
    "softmax layer": (lambda: [dense(3), layers.Softmax()], "softmax", COUNTS),
    "bare operation": (lambda: [dense(1), ops.sigmoid], "sigmoid", TWO),
    "cast between": (
        lambda: [dense(3), layers.Identity(), layers.Softmax(), layers.Identity()],
        "softmax",
        COUNTS,
    ),
    "nested": (
        lambda: [keras.Sequential([keras.Input((5,)), dense(3)]), layers.Softmax()],
        "softmax",
        COUNTS,
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    make, activation, counts = CASES[request.param]
    return model_ending_in(*make()), activation, counts


# ---- The numbers. --------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.5, -1.0])
def test_outputs_follow_bayes_rule(case, tau):
    model, activation, counts = case
    before = outputs_of(model)
    adjusted = adjust_logits(model, counts, tau)
    expected = expected_outputs(before, activation, counts, tau)
    np.testing.assert_allclose(outputs_of(adjusted), expected, rtol=1e-5, atol=1e-6)
    assert output_activation(adjusted) == activation
    np.testing.assert_array_equal(outputs_of(model), before)


def test_predict_follows_it_too(case):
    model, activation, counts = case
    expected = expected_outputs(outputs_of(model), activation, counts, 2.5)
    received = adjust_logits(model, counts, 2.5).predict(X, verbose=0)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tau", [0.0, 1.0, 2.5])
def test_shifting_the_bias_gives_the_same_in_place(case, tau):
    model, _, counts = case
    expected = outputs_of(adjust_logits(model, counts, tau))
    kernel = np.asarray(final_dense(model).kernel)
    assert shift_bias(model, counts, tau) is None
    np.testing.assert_allclose(outputs_of(model), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(final_dense(model).kernel, kernel)


def test_counts_of_a_balanced_mix_change_no_probability():
    model = softmax_model()
    adjusted = adjust_logits(model, [7, 7, 7])
    np.testing.assert_allclose(outputs_of(adjusted), outputs_of(model), atol=1e-6)


def test_counts_and_their_shares_are_alike():
    model = model_ending_in(dense(3))
    shares = np.asarray(COUNTS) / sum(COUNTS)
    np.testing.assert_array_equal(
        outputs_of(adjust_logits(model, tf.constant(COUNTS))),
        outputs_of(adjust_logits(model, shares)),
    )


each_dtype = pytest.mark.parametrize(
    "dtype",
    [
        "float16",
        "float32",
        pytest.param("float64", marks=pytest.mark.tensorflow(reason="float64")),
    ],
)


@each_dtype
def test_probabilities_of_0_and_1(dtype):
    p = np.array([[1, 0, 0], [0, 0, 1], [0.5, 0.5, 0], [1e-30, 1, 0]]).astype(dtype)
    layer = LogitAdjustment(np.log(COUNTS), "softmax", dtype=dtype)
    received = np.asarray(layer(p))
    assert received.dtype == dtype
    expected = expected_outputs(p, "softmax", COUNTS)
    np.testing.assert_allclose(received, expected, rtol=2e-3, atol=1e-28)
    assert (received.argmax(1) == [0, 2, 1, 1]).all()


@each_dtype
def test_one_probability_of_0_and_1(dtype):
    near_1 = 1 - np.finfo(dtype).epsneg
    p = np.array([[0], [1e-6], [0.5], [near_1], [1]]).astype(dtype)
    layer = LogitAdjustment([np.log(20 / 100)], "sigmoid", dtype=dtype)
    received = np.asarray(layer(p))
    assert received.dtype == dtype
    expected = expected_outputs(p, "sigmoid", TWO)
    tolerance = 1e-3 if dtype == "float16" else 1e-5
    np.testing.assert_allclose(received, expected, rtol=tolerance, atol=1e-30)
    assert float(received[0, 0]) < 1e-30
    assert received[-1] == 1


@pytest.mark.parametrize(("activation", "width"), [("softmax", 3), ("sigmoid", 1)])
def test_gradients_at_0_and_1_are_finite(activation, width):
    layer = LogitAdjustment(np.linspace(-3, 3, width), activation)
    p = np.eye(3, width, dtype="float32")
    slope = gradient(lambda p: keras.ops.sum(layer(p) ** 2), p)
    assert np.isfinite(slope).all()


def test_extreme_logits_are_shifted_exactly_by_the_bias():
    """The softmax rounds to 0 and 1, and what it loses the bias still has."""
    model = keras.Sequential([keras.Input((3,)), dense(3, "softmax")])
    model.layers[-1].set_weights([np.eye(3), np.zeros(3)])
    x = np.array([[200.0, 0.0, 199.0]], dtype="float32")
    shift_bias(model, [100, 20, 4])
    logits = np.array([200.0, 0.0, 199.0]) - np.log([100, 20, 4])
    expected = np.exp(logits - logits.max())
    np.testing.assert_allclose(
        outputs_of(model, x)[0], expected / expected.sum(), rtol=1e-5, atol=1e-30
    )


def test_one_example_and_an_empty_batch():
    adjusted = adjust_logits(softmax_model(), COUNTS)
    np.testing.assert_allclose(outputs_of(adjusted, X[:1]).sum(), 1, rtol=1e-6)
    assert outputs_of(adjusted, X[:0]).shape == (0, 3)


def test_not_a_number_stays_one():
    x = X.copy()
    x[2] = np.nan
    wrong = np.isnan(outputs_of(adjust_logits(softmax_model(), COUNTS), x)).all(axis=1)
    assert wrong.tolist() == [row == 2 for row in range(len(x))]


@pytest.mark.parametrize("last_dtype", ["float32", None])
def test_mixed_precision_keeps_the_dtype_of_the_outputs(last_dtype):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = model_ending_in(dense(3, "softmax", dtype=last_dtype))
    finally:
        keras.config.set_dtype_policy(before)
    adjusted = adjust_logits(model, COUNTS)
    received, outputs = outputs_of(adjusted), outputs_of(model)
    assert received.dtype == outputs.dtype == (last_dtype or "float16")
    expected = expected_outputs(outputs, "softmax", COUNTS)
    np.testing.assert_allclose(received, expected, atol=1e-6 if last_dtype else 1e-3)
    shift_bias(model, COUNTS)
    np.testing.assert_allclose(outputs_of(model), expected, atol=3e-3)


def test_mixed_precision_with_a_cast_at_the_end():
    last = layers.Activation("linear", dtype="float32")
    model = model_ending_in(dense(3, "softmax", dtype="mixed_float16"), last)
    adjusted = adjust_logits(model, COUNTS)
    assert outputs_of(adjusted).dtype == "float32"
    assert output_activation(adjusted) == "softmax"
    assert final_dense(model) is model.get_layer("last")


# ---- The model around it. ------------------------------------------------------------


def test_layers_are_shared():
    model = softmax_model()
    adjusted = adjust_logits(model, COUNTS)
    assert adjusted.get_layer("last") is model.get_layer("last")
    assert adjusted.name == f"{model.name}_adjusted"
    assert len(model.layers) == 3
    assert isinstance(adjusted.layers[-1], LogitAdjustment)
    assert split_at(adjusted, "features").check(adjusted, X) == 0


def dict_model():
    left, right = keras.Input((1,), name="left"), keras.Input((3,), name="right")
    logits = dense(3)(layers.Concatenate()([left, right]))
    return keras.Model({"left": left, "right": right}, {"kind": logits})


def test_structure_of_inputs_and_outputs_is_kept(tmp_path):
    model, x = dict_model(), {"left": X[:, :1], "right": X[:, 1:]}
    adjusted = adjust_logits(model, COUNTS)
    received = adjusted.predict(x, verbose=0)
    logits = model.predict(x, verbose=0)["kind"]
    expected = expected_outputs(logits, "linear", COUNTS)
    assert set(received) == {"kind"}
    np.testing.assert_allclose(received["kind"], expected, rtol=1e-5)
    export_classifier(adjusted, tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    np.testing.assert_allclose(served(**x)["kind"], expected, rtol=1e-5)


@pytest.mark.parametrize("wrap", [lambda x: [x], lambda x: {"in": x}, lambda x: x])
def test_a_list_of_one_output_stays_one(wrap):
    inputs = keras.Input((4,), name="in")
    model = keras.Model(wrap(inputs), [dense(3)(inputs)])
    adjusted = adjust_logits(model, COUNTS)
    assert isinstance(adjusted.output, list)
    assert type(adjusted.input) is type(model.input)
    assert type(adjusted(wrap(X))) is type(model(wrap(X)))


def test_a_sequential_model_around_a_classifier():
    classifier = model_ending_in(dense(3))
    model = keras.Sequential([classifier, layers.Softmax()])
    model.build((None, 4))
    expected = expected_outputs(outputs_of(model), "softmax", COUNTS)
    np.testing.assert_allclose(
        outputs_of(adjust_logits(model, COUNTS)), expected, rtol=1e-5
    )
    shift_bias(model, COUNTS)
    np.testing.assert_allclose(outputs_of(model), expected, rtol=1e-5)


@pytest.mark.parametrize("ending", ["softmax", "sigmoid", "log_softmax", "logits"])
def test_a_saved_model_loads_and_goes_on(tmp_path, ending):
    make, activation, counts = CASES[ending]
    adjusted = adjust_logits(model_ending_in(*make()), counts, tau=1.5)
    adjusted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(outputs_of(loaded), outputs_of(adjusted), rtol=1e-6)
    assert output_activation(loaded) == activation
    copy = keras.models.clone_model(loaded)
    assert copy.layers[-1].get_config() == adjusted.layers[-1].get_config()


@pytest.mark.parametrize(
    ("ending", "name"),
    [
        ("softmax", "probabilities"),
        ("sigmoid", "probabilities"),
        ("logits", "logits"),
        ("nested", "probabilities"),
    ],
)
def test_exported_endpoints_are_named_as_before(tmp_path, ending, name):
    make, _, counts = CASES[ending]
    adjusted = adjust_logits(model_ending_in(*make()), counts)
    export_classifier(adjusted, tmp_path / "1", layer_name="features")
    served = tf.saved_model.load(str(tmp_path / "1")).signatures
    answer = served["serving_default"](features=tf.constant(X))
    assert set(answer) == {name}
    np.testing.assert_allclose(answer[name], outputs_of(adjusted), rtol=1e-5, atol=1e-6)
    assert set(served) == {"serving_default", "features"}


@pytest.mark.integration
def test_an_adjusted_model_trains_and_evaluates():
    adjusted = adjust_logits(softmax_model(), COUNTS)
    adjusted.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    labels = np.arange(len(X)) % 3
    adjusted.fit(X, labels, epochs=2, verbose=0)
    loss, _ = adjusted.evaluate(X, labels, verbose=0)
    expected = -np.log(outputs_of(adjusted)[np.arange(len(X)), labels]).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.tensorflow(reason="tf.distribute")
def test_a_model_of_a_mirrored_strategy():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = softmax_model()
    expected = expected_outputs(outputs_of(model), "softmax", COUNTS)
    adjusted = adjust_logits(model, COUNTS)
    np.testing.assert_allclose(adjusted.predict(X, verbose=0), expected, rtol=1e-5)
    shift_bias(model, COUNTS)
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-5)


# ---- Decisions. ----------------------------------------------------------------------


def two_gaussians(counts, seed):
    generator = np.random.default_rng(seed)
    labels = np.repeat([0, 1], counts)
    x = generator.normal(size=(len(labels), 2)) + 1.2 * labels[:, None]
    return x.astype("float32"), labels


def decisions(model, x):
    outputs = model.predict(x, verbose=0)
    return outputs.argmax(1) if outputs.shape[1] > 1 else outputs[:, 0] > 0.5


@pytest.mark.integration
@pytest.mark.parametrize(
    "ending", ["softmax", pytest.param("sigmoid", marks=pytest.mark.slow)]
)
def test_rare_class_is_found_again(ending):
    keras.utils.set_random_seed(3)
    counts = [1000, 50]
    x, labels = two_gaussians(counts, seed=0)
    units = 2 if ending == "softmax" else 1
    model = keras.Sequential([keras.Input((2,)), layers.Dense(units, ending)])
    loss = "binary_crossentropy" if units == 1 else "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.05), loss)
    train(model, x, labels, epochs=15, batch_size=64)

    x, labels = two_gaussians([2000, 2000], seed=1)
    before = balanced_accuracy(labels, decisions(model, x))
    after = balanced_accuracy(labels, decisions(adjust_logits(model, counts), x))
    best = balanced_accuracy(labels, x.sum(axis=1) > 1.2)  # Bayes
    assert before < 0.65
    assert after > before + 0.1
    assert after > best - 0.02
    shift_bias(model, counts)
    shifted = balanced_accuracy(labels, decisions(model, x))
    assert shifted == pytest.approx(after, abs=1e-3)  # rounding, at the boundary


# ---- What the counts may be. ---------------------------------------------------------


def report_like():
    return types.SimpleNamespace(prior=[0.5, 0.25, 0.25], real=[2, 1, 1])


def test_a_report_stands_for_its_prior():
    model = softmax_model()
    expected = outputs_of(adjust_logits(model, [100, 50, 50]))
    received = outputs_of(adjust_logits(model, report_like()))
    np.testing.assert_array_equal(received, expected)
    shift_bias(model, report_like())
    np.testing.assert_allclose(outputs_of(model), expected, rtol=1e-5)


def test_a_real_report_has_what_is_read():
    fields = RetrainingReport.__dataclass_fields__
    assert {"prior", "real"} <= set(fields)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([5, 0, 3], r"class 1 has 0 \(1 such classes of 3\)"),
        ([5, 3, -2], r"class 2 has -2"),
        ([np.nan, 3, 2], r"class 0 has nan"),
        ([5, np.inf, 2], r"class 1 has inf"),
        ([5, 3], r"must have shape \[3\].*received shape \[2\]"),
        ([[5, 3, 2]], r"must have shape \[3\].*received shape \[1, 3\]"),
        (7, r"must have shape \[3\].*received shape \[\]"),
        ("many", r"one number per class; received 'many'"),
        ({1: 5, 2: 3, 3: 1}, r"class ids 0 to 2; received \[1, 2, 3\]"),
    ],
)
@pytest.mark.parametrize("function", [adjust_logits, shift_bias])
def test_wrong_counts_raise(function, counts, message):
    model = softmax_model()
    before = outputs_of(model)
    with pytest.raises(ValueError, match=message):
        function(model, counts)
    np.testing.assert_array_equal(outputs_of(model), before)


def test_one_output_needs_two_counts():
    with pytest.raises(ValueError, match=r"must have shape \[2\]"):
        adjust_logits(model_ending_in(dense(1, "sigmoid")), COUNTS)


@pytest.mark.parametrize("tau", [np.nan, np.inf, "1", None, [1.0, 2.0]])
@pytest.mark.parametrize("function", [adjust_logits, shift_bias])
def test_tau_must_be_a_finite_number(function, tau):
    model = softmax_model()
    with pytest.raises(ValueError, match="`tau` must be a finite number"):
        function(model, COUNTS, tau)


# ---- Which models. -------------------------------------------------------------------

REFUSED = {
    "relu": (lambda: model_ending_in(dense(3, "relu")), "activation 'relu', expected"),
    "unknown": (lambda: model_ending_in(dense(3), layers.Dropout(0.1)), "None"),
    "several labels": (
        lambda: model_ending_in(dense(3, "sigmoid")),
        r"3 output\(s\) with sigmoid, expected sigmoid for one",
    ),
    "one softmax": (
        lambda: model_ending_in(dense(1, "softmax")),
        r"1 output\(s\) with softmax, expected",
    ),
    "rank": (
        lambda: model_ending_in(dense(6), layers.Reshape((2, 3))),
        r"shapes \[\[None, 2, 3\]\], expected one output \[B, C\]",
    ),
    "two outputs": (
        lambda: model_ending_in(dense(3), lambda x: [x, x]),
        r"shapes \[\[None, 3\], \[None, 3\]\], expected one",
    ),
    "no graph": (without_graph, "Subclassed without a graph"),
    "not built": (
        lambda: keras.Sequential([layers.Dense(3)]),
        "Sequential without a graph.*Build it",
    ),
}


@pytest.mark.parametrize("function", [adjust_logits, shift_bias])
@pytest.mark.parametrize("kind", REFUSED)
def test_other_models_raise(kind, function):
    make, message = REFUSED[kind]
    with pytest.raises(ValueError, match=f"Cannot adjust the logits.*{message}"):
        function(make(), COUNTS)
    assert final_dense(make()) is None


@pytest.mark.parametrize("function", [adjust_logits, shift_bias])
def test_what_is_no_model_raises(function):
    with pytest.raises(TypeError, match="keras.Model"):
        function(layers.Dense(3), COUNTS)


class Normalised(layers.Dense):
    """Not a Dense layer in what it computes."""

    def call(self, inputs):
        return ops.normalize(super().call(inputs))


def called_twice():
    shared = layers.Dense(3, "softmax")
    x = inputs = keras.Input((3,))
    return keras.Model(inputs, shared(shared(x)))


def nested_twice():
    nested = keras.Sequential([keras.Input((3,)), layers.Dense(3)])
    x = inputs = keras.Input((3,))
    return keras.Model(inputs, layers.Softmax()(nested(nested(x))))


@pytest.mark.parametrize(
    "make",
    [
        lambda: model_ending_in(dense(3, "softmax", use_bias=False)),
        lambda: model_ending_in(dense(3, "softmax"), layers.Softmax()),
        lambda: model_ending_in(dense(3), layers.Dropout(0.1), layers.Softmax()),
        lambda: model_ending_in(
            layers.Reshape((5, 1)), layers.Flatten(), layers.Softmax()
        ),
        lambda: model_ending_in(Normalised(3)),
        called_twice,
        nested_twice,
    ],
)
def test_a_bias_that_is_not_there_is_not_shifted(make):
    model = make()
    before = [np.asarray(weight) for weight in model.weights]
    assert final_dense(model) is None
    counts = np.arange(1, model.output_shape[-1] + 1)
    adjust_logits(model, counts)
    with pytest.raises(ValueError, match="Dense layer with a bias.*adjust_logits"):
        shift_bias(model, counts)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)


def test_final_dense_of_a_head_is_that_of_the_model():
    model = softmax_model()
    head = split_at(model, "features").head
    assert final_dense(head) is model.get_layer("last")
    expected = outputs_of(adjust_logits(model, COUNTS))
    shift_bias(head, COUNTS)
    np.testing.assert_allclose(outputs_of(model), expected, rtol=1e-5)


# ---- From one prior to another. ------------------------------------------------------

TARGET = [0.2, 0.5, 0.3]


def own_shares(counts):
    return TARGET[: len(counts)]


def up_to_a_constant(outputs, activation):
    several = activation == "linear" and outputs.shape[1] > 1
    return outputs - outputs.mean(axis=1, keepdims=True) if several else outputs


@pytest.mark.parametrize(
    ("name", "shares_of"),
    [
        (None, own_shares),
        ("uniform", lambda counts: np.ones(len(counts))),
        ("training", np.asarray),
    ],
)
def test_outputs_follow_bayes_rule_to_a_target(case, name, shares_of):
    model, activation, counts = case
    shares = np.asarray(shares_of(counts), float)
    adjusted = adjust_logits(model, counts, target_prior=name or shares)
    expected = expected_outputs(outputs_of(model), activation, counts / shares)
    np.testing.assert_allclose(
        up_to_a_constant(outputs_of(adjusted), activation),
        up_to_a_constant(expected, activation),
        rtol=1e-5,
        atol=1e-6,
    )
    prior = adjusted.layers[-1].prior
    np.testing.assert_allclose(prior, shares / shares.sum(), rtol=1e-12)


def test_the_way_to_a_target_and_back_is_the_identity(case):
    model, _, counts = case
    there = adjust_logits(model, counts, target_prior=own_shares(counts))
    back = adjust_logits(there, target_prior=counts)
    expected = outputs_of(model)
    np.testing.assert_allclose(outputs_of(back), expected, rtol=1e-5, atol=1e-6)
    assert (np.abs(outputs_of(there) - expected) > 0.05).any()
    prior = np.asarray(counts) / sum(counts)
    np.testing.assert_allclose(back.layers[-1].prior, prior, rtol=1e-12)


def test_no_target_is_the_uniform_one():
    model = softmax_model()
    plain = adjust_logits(model, COUNTS)
    named = adjust_logits(model, COUNTS, target_prior="uniform")
    np.testing.assert_allclose(outputs_of(named), outputs_of(plain), rtol=1e-6)
    for adjusted in (plain, named):
        np.testing.assert_allclose(adjusted.layers[-1].prior, [1 / 3] * 3, rtol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 0.5, 2.0])
def test_what_tau_leaves_of_the_prior_is_known(tau):
    adjusted = adjust_logits(softmax_model(), COUNTS, tau)
    left = np.asarray(COUNTS, float) ** (1 - tau)
    np.testing.assert_allclose(adjusted.layers[-1].prior, left / left.sum(), rtol=1e-12)
    rest = adjust_logits(adjusted, target_prior="uniform")
    expected = outputs_of(adjust_logits(softmax_model(), COUNTS))
    np.testing.assert_allclose(outputs_of(rest), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "counts",
    [
        {2: 4, 0: 100, 1: 20},
        pd.Series({2: 4, 1: 20, 0: 100}),
        pd.Series(np.repeat([1, 2, 0], [20, 4, 100])).value_counts(),
        {0.0: 100, 1.0: 20, 2.0: 4},
    ],
)
def test_counts_and_a_target_are_found_by_class_id(counts):
    model = softmax_model()
    expected = outputs_of(adjust_logits(model, COUNTS))
    np.testing.assert_array_equal(outputs_of(adjust_logits(model, counts)), expected)
    shares = adjust_logits(model, TARGET, target_prior=counts).layers[-1].prior
    np.testing.assert_allclose(shares, np.divide(COUNTS, 124), rtol=1e-12)
    shift_bias(model, counts)
    np.testing.assert_allclose(outputs_of(model), expected, rtol=1e-5)


def test_counts_in_no_order_raise():
    for options in ({"class_counts": {4, 20, 100}}, {"target_prior": {1, 2, 3}}):
        with pytest.raises(TypeError, match="received the set"):
            adjust_logits(softmax_model(), **{"class_counts": COUNTS, **options})


def test_a_report_knows_its_prior_and_the_shares_of_its_training_data():
    model, report = softmax_model(), report_like()
    report.real = COUNTS
    deployed = adjust_logits(model, report, target_prior="training")
    expected = expected_outputs(
        outputs_of(model), "softmax", np.divide([0.5, 0.25, 0.25], COUNTS)
    )
    np.testing.assert_allclose(outputs_of(deployed), expected, rtol=1e-5)
    balanced = adjust_logits(deployed, target_prior="uniform")
    expected = outputs_of(adjust_logits(model, report))
    np.testing.assert_allclose(outputs_of(balanced), expected, rtol=1e-5)


@pytest.mark.parametrize("ending", ["softmax", "sigmoid", "log_softmax", "logits"])
def test_the_prior_survives_saving(tmp_path, ending):
    make, _, counts = CASES[ending]
    target = own_shares(counts)
    adjusted = adjust_logits(model_ending_in(*make()), counts, target_prior=target)
    adjusted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].prior == adjusted.layers[-1].prior
    expected = outputs_of(adjust_logits(adjusted, target_prior="uniform"))
    received = outputs_of(adjust_logits(loaded, target_prior="uniform"))
    np.testing.assert_allclose(received, expected, rtol=1e-6)


def test_a_layer_saved_before_there_were_priors_has_none():
    layer = LogitAdjustment([0.0, 1.0, 2.0], "softmax")
    config = layer.get_config()
    assert config["prior"] is None
    del config["prior"]
    assert LogitAdjustment.from_config(config).prior is None
    model = model_ending_in(dense(3, "softmax"), layer)
    with pytest.raises(
        ValueError, match="has no record of the class shares that its outputs"
    ):
        adjust_logits(model, target_prior="uniform")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            "has no record of the class shares that its outputs assume.*class_counts",
        ),
        (
            {"class_counts": COUNTS, "tau": 0.5, "target_prior": "uniform"},
            "tau=0.5 and `target_prior` both.*Choose one",
        ),
        ({"class_counts": COUNTS, "target_prior": "even"}, "received 'even'"),
        ({"class_counts": COUNTS, "target_prior": [1, 2]}, r"`target_prior` must have"),
        (
            {"class_counts": COUNTS, "target_prior": [1, 0, 2]},
            "`target_prior` needs a p",
        ),
        (
            {"class_counts": COUNTS, "target_prior": {0: 1, 1: 2}},
            r"`target_prior` must have the class ids 0 to 2; received \[0, 1\]",
        ),
    ],
)
def test_targets_that_do_not_fit_raise(options, message):
    with pytest.raises(ValueError, match=message):
        adjust_logits(softmax_model(), **options)


def test_training_shares_are_not_known_without_counts():
    adjusted = adjust_logits(softmax_model(), COUNTS)
    with pytest.raises(ValueError, match="'training' with counts or a report"):
        adjust_logits(adjusted, target_prior="training")


# ---- Double correction. --------------------------------------------------------------


def test_adjusting_an_adjusted_model_warns():
    adjusted = adjust_logits(model_ending_in(dense(1)), [100, 10])
    nested = keras.Sequential([adjusted, layers.Identity()])
    nested.build((None, 4))
    for model in (adjusted, nested):
        with pytest.warns(
            UserWarning, match=r"double correction.*\[-2\.3\] from"
        ) as seen:
            adjust_logits(model, [100, 10])
        assert [w.filename for w in seen if w.category is UserWarning] == [__file__]
    adjust_logits(adjust_logits(softmax_model(), COUNTS, tau=0), COUNTS)


def test_what_half_a_shift_left_is_taken_off_by_the_rest():
    model = softmax_model()
    expected = outputs_of(adjust_logits(model, COUNTS))
    shift_bias(model, COUNTS, tau=0.5)
    left = np.sqrt(COUNTS)
    np.testing.assert_allclose(
        outputs_of(adjust_logits(model, left)), expected, rtol=1e-5
    )


def test_a_true_double_correction_warns_and_a_mapping_on_does_not():
    model = softmax_model()
    adjusted = adjust_logits(model, COUNTS)
    with pytest.warns(UserWarning, match="double correction"):
        adjust_logits(adjusted, COUNTS)
    with pytest.warns(UserWarning, match="double correction"):
        adjust_logits(adjusted, COUNTS, target_prior=TARGET)
    # What follows warns of nothing, see `no_other_warnings`.
    on = adjust_logits(adjusted, target_prior=TARGET)
    deployed = adjust_logits(model, COUNTS, target_prior=TARGET)
    back = adjust_logits(deployed, TARGET, target_prior="uniform")
    same = adjust_logits(deployed, np.multiply(1000, TARGET))
    again = adjust_logits(adjusted, [7, 7, 7], target_prior=TARGET)
    for received, expected in (
        *((on, deployed), (again, deployed)),
        *((back, adjusted), (same, adjusted)),
    ):
        np.testing.assert_allclose(
            outputs_of(received), outputs_of(expected), rtol=1e-5, atol=1e-7
        )
