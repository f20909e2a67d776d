"""Tests for split_checks.py: where a model cannot be split, and where it can."""

import keras
import pytest
from keras import layers

from tests.small_models import NoGraph
from tf_pseudofeat.splitting.graph import Graph
from tf_pseudofeat.splitting.split_checks import (
    check_arguments,
    check_features,
    check_separates,
    masked_message,
)


class TwoOutputs(layers.Layer):
    def call(self, x):
        return x, 2 * x


@pytest.fixture(scope="module")
def words():
    """Word ids, a mask, a skip around one layer, and a layer of two outputs."""
    inputs = keras.Input((5,), dtype="int32", name="ids")
    masked = layers.Embedding(9, 4, mask_zero=True, name="embedding")(inputs)
    pooled = layers.GlobalAveragePooling1D(name="pooled")(masked)
    added = layers.Add(name="added")([pooled, layers.Dense(4, name="skipped")(pooled)])
    one, two = TwoOutputs(name="two")(added)
    together = layers.Add(name="together")([one, two])
    return keras.Model(inputs, layers.Dense(2, name="scores")(together), name="words")


def node_of(graph, name):
    return next(node for node in graph.nodes if node.operation.name == name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two", "'two': it returns 2 tensors, .* Layers that return one: 'added'"),
        ("scores", "'scores': it is an output layer.*nearest first: 'together'"),
        ("ids", "'ids': its output is int32, and features are floats.*: 'pooled'"),
        (
            "embedding",
            "'embedding': its output has a Keras mask.*without one: 'pooled'",
        ),
    ],
)
def test_what_cannot_be_features_names_layers_that_can(words, name, message):
    graph = Graph(words)
    with pytest.raises(ValueError, match=message):
        check_features(graph, node_of(graph, name))
    check_features(graph, node_of(graph, "pooled"))


def test_a_bypass_is_told_with_who_reads_what(words):
    graph = Graph(words)
    message = r"'skipped': part .* \('added' reads 'pooled'\).*nearest first: 'pooled'"
    with pytest.raises(ValueError, match=message):
        check_separates(graph, node_of(graph, "skipped"))
    check_separates(graph, node_of(graph, "added"))


@pytest.mark.parametrize(
    ("model", "layer", "call_index", "error", "message"),
    [
        (NoGraph(name="plain"), "a", None, ValueError, "no graph .*Split.trunk, head"),
        (keras.Sequential(name="new"), "a", None, ValueError, "'new' is not built"),
        ("words", 3, None, TypeError, "`layer_name` must be a string, .*not int"),
        ("words", "pooled", True, TypeError, "`call_index` must be an int or None"),
        ("words", "pooled", "1", TypeError, "`call_index` must be an int or None"),
    ],
)
def test_other_arguments_raise(words, model, layer, call_index, error, message):
    with pytest.raises(error, match=message):
        check_arguments(words if model == "words" else model, layer, call_index)
    check_arguments(words, "pooled", None)


def test_the_message_of_a_mask_says_where_to_split():
    assert "Split after the layer that consumes the mask" in masked_message("a")
