"""Tests for find_layer.py: the call of a layer by its name, at any depth."""

import keras
import pytest
from keras import layers

from tf_pseudofeat.splitting.find_layer import (
    choose_call,
    find_calls,
    without_last_layer,
)
from tf_pseudofeat.splitting.graph import Graph


@pytest.fixture(scope="module")
def graph():
    """A shared layer, called twice, in a backbone inside a backbone."""
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="deep"), layers.ReLU(name="last")],
        name="inner",
    )
    inputs = keras.Input((4,))
    backbone = keras.Model(inputs, inner(layers.Dense(4, name="first")(inputs)))
    backbone.name = "backbone"
    shared = layers.Dense(4, name="shared")
    outputs = layers.Dense(2, name="scores")(shared(shared(backbone(inputs))))
    return Graph(keras.Model(inputs, outputs, name="whole"))


def names(call):
    return [node.operation.name for node in call]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("scores", [["scores"]]),
        ("shared", [["shared"], ["shared"]]),
        ("backbone/first", [["backbone", "first"]]),
        ("backbone/inner/deep", [["backbone", "inner", "deep"]]),
    ],
)
def test_a_path_finds_each_call(graph, path, expected):
    assert list(map(names, find_calls(graph, path))) == expected


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("score", "Model 'whole' has no layer 'score' in it. Did you mean 'scores'"),
        ("deep", "inside the nested model 'backbone/inner': use 'backbone/inner/deep'"),
        ("shared/deep", "'shared': it is a Dense, and only Functional and Sequential"),
        ("backbone/inner/dee", "Did you mean 'backbone/inner/deep'"),
        ("zzz", "Layers to split at, from the last: 'shared'"),
    ],
)
def test_a_path_that_leads_nowhere_names_one_that_does(graph, path, message):
    with pytest.raises(ValueError, match=message):
        find_calls(graph, path)


def test_one_of_two_calls_is_chosen_by_its_number(graph):
    calls = find_calls(graph, "shared")
    assert choose_call(calls, "shared", 1) is calls[1]
    assert choose_call(calls[:1], "shared", None) is calls[0]
    with pytest.raises(ValueError, match="called 2 times in this model. Pass call_ind"):
        choose_call(calls, "shared", None)
    for number in (2, -1):
        with pytest.raises(ValueError, match=f"call_index={number} is out of range"):
            choose_call(calls, "shared", number)


def test_after_the_last_layer_inside_is_after_the_model_around_it(graph):
    (deep,), (last,) = (
        find_calls(graph, f"backbone/inner/{name}") for name in ("deep", "last")
    )
    assert names(without_last_layer(last)) == ["backbone"]
    assert names(without_last_layer(deep)) == ["backbone", "inner", "deep"]
