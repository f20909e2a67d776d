"""Tests for task_split.py: the split and the output that are retrained."""

import keras
import numpy as np
import pytest
from keras import layers

from tf_pseudofeat.retraining.task_split import (
    check_other_outputs,
    one_output,
    output_of,
    resolve_split,
)
from tf_pseudofeat.splitting.outputs import choose_output
from tf_pseudofeat.splitting.split_at import split_at

X = np.ones((2, 3), "float32")


def sequential(shape=(3,)):
    first = [] if shape is None else [keras.Input(shape)]
    last = [layers.Dense(4, name="features"), layers.Dense(2, name="scores")]
    return keras.Sequential([*first, *last], name="model")


def two_outputs():
    inputs = keras.Input((3,))
    features = layers.Dense(4, name="features")(inputs)
    shared = layers.Dense(4, name="shared")(features)
    outputs = {name: layers.Dense(2, name=name)(shared) for name in ("a", "b")}
    return keras.Model(inputs, outputs, name="model")


def resolved(model, layer, x=X):
    return resolve_split(model, layer, output_of(model, layer), x)


def test_a_name_is_split_at_and_a_split_is_kept():
    model = sequential()
    split = resolved(model, "features")
    assert split.layer_name == "features" and split.output is None
    assert resolved(model, split).head is split.head


def test_a_model_that_is_not_built_is_built_by_the_batch():
    model = sequential(shape=None)
    assert resolved(model, "features").trunk.input_shape[1:] == (3,)


@pytest.mark.parametrize("layer", [3, ("a", "b"), keras.layers.Dense(2)])
def test_a_layer_is_a_name_or_a_split(layer):
    with pytest.raises(TypeError, match="must be the name of the layer .*or a Split"):
        output_of(sequential(), layer)


def test_the_head_of_another_model_is_refused():
    with pytest.raises(
        ValueError, match="2 weights that 'model' does not have, such as"
    ):
        resolved(sequential(), split_at(sequential(), "features"))


def test_a_layer_on_both_sides_cannot_be_trained_alone():
    inputs, shared = keras.Input((3,)), layers.Dense(3, name="shared")
    features = layers.ReLU(name="features")(shared(inputs))
    model = keras.Model(inputs, shared(features))
    with pytest.raises(ValueError, match=r"'features' cannot be trained alone: \['sha"):
        resolved(model, "features")


@pytest.mark.filterwarnings("error")
def test_other_outputs_that_share_layers_of_the_head_are_warned_of():
    model = two_outputs()
    for layer, changed in (("features", True), ("shared", False)):
        split = split_at(model, layer, output="a")
        chosen = choose_output(model, "a")
        if changed:
            with pytest.warns(
                UserWarning, match=r"with the outputs \['b'\], which will"
            ):
                check_other_outputs(model, chosen, split)
        else:
            check_other_outputs(model, chosen, split)


@pytest.mark.parametrize(
    ("outputs", "shapes"),
    [
        ([np.ones((2, 3)), np.ones((2, 1))], r"\[\[2, 3\], \[2, 1\]\]"),
        ([np.ones((2, 3, 4))], r"\[\[2, 3, 4\]\]"),
        ([np.ones(2)], r"\[\[2\]\]"),
    ],
)
def test_one_output_of_rows_is_needed(outputs, shapes):
    with pytest.raises(ValueError, match=f"has outputs of shapes {shapes}"):
        one_output(sequential(), outputs)
    assert one_output(sequential(), [X]) is X
