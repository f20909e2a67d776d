"""Tests for endpoints.py: functions of named inputs, and the names of outputs."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.ending_in import model_ending_in
from tests.small_models import NoGraph
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.serving.endpoints import endpoints

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4)).astype("float32")


def hidden_model():
    inputs = keras.Input((4,), name="x")
    features = layers.Dense(3, name="hidden")(inputs)
    return keras.Model(inputs, layers.Dense(2, "softmax")(features), name="model")


def two_of_each(as_dict):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    sums = layers.Add(name="sum")([a, b]), layers.Subtract(name="rest")([a, b])
    if as_dict:
        return keras.Model({"a": a, "b": b}, dict(zip(["s", "r"], sums, strict=True)))
    return keras.Model([a, b], [*sums], name="model")


def names_in(function):
    _, inputs = function.structured_input_signature
    return sorted(inputs)


@pytest.mark.parametrize(
    ("units", "activation", "expected"),
    [(3, "softmax", "probabilities"), (3, None, "logits"), (3, "relu", "outputs")],
)
def test_an_output_is_named_by_what_it_is_or_as_told(units, activation, expected):
    model = model_ending_in(units, activation)
    for name in (None, "y"):
        function = endpoints(model, output_name=name)["serving_default"]
        (received,) = function(X).items()
        assert received[0] == (name or expected)
        np.testing.assert_allclose(received[1], np.asarray(model(X)), atol=1e-6)


@pytest.mark.parametrize("as_dict", [False, True])
def test_several_inputs_and_outputs_keep_their_names(as_dict):
    function = endpoints(two_of_each(as_dict))["serving_default"]
    inputs = {"a": X, "b": 2 * X} if as_dict else [X, 2 * X]
    answer = function(inputs)
    total, rest = ("s", "r") if as_dict else ("sum", "rest")
    np.testing.assert_allclose(answer[total], 3 * X, rtol=1e-5)
    np.testing.assert_allclose(answer[rest], -X, rtol=1e-5)


@pytest.mark.parametrize("name", ["input_name", "output_name"])
def test_one_name_for_several_raises(name):
    with pytest.raises(
        ValueError, match=f"`{name}` is for a single .*keep their names"
    ):
        endpoints(two_of_each(as_dict=False), **{name: "x"})


def test_features_and_densities_have_endpoints_of_their_own():
    model = hidden_model()
    trunk = keras.Model(model.inputs, model.get_layer("hidden").output)
    gaussian = ClassConditionalGaussian(2, "diag")
    gaussian.adapt(np.asarray(trunk(X)), [0, 1, 0, 1, 0])
    functions = endpoints(model, layer_name="hidden", gaussian=gaussian)
    assert [*functions] == ["serving_default", "features", "log_density"]
    features = functions["features"](X)["features"]
    np.testing.assert_allclose(features, np.asarray(trunk(X)), atol=1e-5)
    density = functions["log_density"](X)["log_density"]
    expected = np.asarray(gaussian(np.asarray(trunk(X))))
    np.testing.assert_allclose(density, expected, rtol=1e-3, atol=1e-3)


def test_a_gaussian_is_of_the_layer_that_is_served():
    gaussian = ClassConditionalGaussian(2, "diag")
    gaussian.adapt(X, [0, 1, 0, 1, 0])
    with pytest.raises(ValueError, match="pass `layer_name`, the layer that computes"):
        endpoints(hidden_model(), gaussian=gaussian)
    with pytest.raises(
        ValueError, match=r"features of shape \[4\]; layer 'hidden' has"
    ):
        endpoints(hidden_model(), gaussian=gaussian, layer_name="hidden")


def test_a_model_without_a_graph_is_exported_by_keras():
    with pytest.raises(ValueError, match=r"\(NoGraph\) has no graph of layers"):
        endpoints(NoGraph())
