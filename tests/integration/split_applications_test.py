"""Every model of keras.applications, cut at every one of its layers.

    python -m pytest -m slow -s tests/integration/split_applications_test.py

prints how many layers each model has, at how many it was split, and how many refused.
Weights are random, which makes the comparison no easier.
"""

import inspect
import re

import keras
import numpy as np
import pytest

from tf_pseudofeat.splitting.graph import Graph
from tf_pseudofeat.splitting.separating import separating_layers
from tf_pseudofeat.splitting.split_at import split_at

pytestmark = pytest.mark.slow

# The smallest input that a model takes, where that is above 32 pixels.
SIZES = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}
# Five blocks of eleven are of each kind; the last seven layers classify.
MOBILENET = "MobileNetV3Small", "expanded_conv_4_add", 7
ALL = [
    name
    for name, make in vars(keras.applications).items()
    if name[0].isupper() and inspect.isfunction(make)
]


def application(name):
    size = SIZES.get(name, 32)
    make = getattr(keras.applications, name)
    return make(weights=None, classes=7, input_shape=(size, size, 3))


def shallow(name, last, top):
    """A model up to its layer `last`, and the `top` layers that classify anew."""
    model = application(name)
    x = model.get_layer(last).output
    for layer in model.layers[-top:]:
        x = type(layer).from_config(layer.get_config())(x)
    return keras.Model(model.input, x)


def edges_of(model):
    """[(read, reader), ...] by name, in order, from what the model would save."""

    def read(part):
        if isinstance(part, dict) and part.get("class_name") == "__keras_tensor__":
            yield part["config"]["keras_history"][0]
        elif isinstance(part, dict):
            for value in part.values():
                yield from read(value)
        elif isinstance(part, list | tuple):
            for value in part:
                yield from read(value)

    return [
        (source, layer["name"])
        for layer in model.get_config()["layers"]
        for source in read(layer["inbound_nodes"])
    ]


def reached(edges, start, without=None):
    """All that depends on `start`, where one layer is taken out."""
    found = {start} - {without}
    for source, reader in edges:
        if source in found and reader != without:
            found.add(reader)
    return found


def check_refusal(text, layer, edges, order, splits):
    """The error says what goes around the cut, and which the nearest cuts are."""
    assert text.startswith(f"Cannot split at '{layer}': ")
    if layer == edges[-1][1]:
        assert "it is an output layer" in text
    else:
        behind = reached(edges, layer)
        around = re.findall(r"'([^']+)' reads '([^']+)'", text)
        assert around
        for reader, source in around:
            assert (source, reader) in edges
            assert reader in behind
            assert source not in behind
    distances = sorted(abs(order[split] - order[layer]) for split in splits)
    advised = re.findall(r"'([^']+)'", text.rpartition("nearest first: ")[2])
    assert set(advised) <= set(splits)
    assert [abs(order[split] - order[layer]) for split in advised] == distances[:5]


@pytest.fixture(scope="module")
def totals():
    """Rows of the table of totals, printed at the end of a run with -s."""
    rows = []
    yield rows
    print("\n\n| model | layers | splits | refusals | failures |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    sums = [sum(column) for column in list(zip(*rows, strict=True))[1:]]
    print("| all | " + " | ".join(map(str, sums)) + " |")


def cut_everywhere(name, model, totals):
    """Cuts a model at each layer, and checks every split and every refusal."""
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    edges = edges_of(model)
    layers = list(dict.fromkeys(layer for edge in edges for layer in edge))
    assert set(layers) >= {layer.name for layer in model.layers}
    inside = [
        f"{part.name}/{layer.name}"
        for part in model.layers
        if isinstance(part, keras.Model)
        for layer in part.layers
    ]
    splits, refusals = [], {}
    row = [name, len(layers + inside), 0, 0, len(layers + inside)]
    totals.append(row)
    for layer in layers + inside:
        try:
            trunk, head = split_at(model, layer)
        except ValueError as error:
            refusals[layer] = str(error)
            continue
        features = keras.ops.convert_to_numpy(trunk(x, training=False))
        received = keras.ops.convert_to_numpy(head(features, training=False))
        np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4, err_msg=layer)
        splits.append(layer)
    first, last = edges[0][0], edges[-1][1]
    around = {layer for layer in layers if last in reached(edges, first, layer)}
    around |= {layer for layer in inside if layer.partition("/")[0] in around}
    assert set(refusals) == around | {last}
    advisable = [layer for layer in splits if "/" not in layer and layer != first]
    order = {node.operation.name: i for i, node in enumerate(Graph(model).nodes)}
    for layer, text in refusals.items():
        outer = layer.partition("/")[0]  # part of the network bypasses that
        check_refusal(text, outer, edges, order, advisable)
    listed = [cut.layer_name for cut in separating_layers(model)]
    assert set(listed) <= set(splits)
    assert [layer for layer in listed[::-1] if "/" not in layer] == advisable
    row[2:] = len(splits), len(refusals), 0


@pytest.mark.parametrize("name", ["MobileNetV3Small", "VGG16"])
def test_small_models_are_cut_everywhere_or_say_why_not(name):
    model = shallow(*MOBILENET) if name == MOBILENET[0] else application(name)
    cut_everywhere(name, model, [])


@pytest.mark.parametrize("name", ALL)
def test_all_models_are_cut_everywhere_or_say_why_not(name, totals):
    cut_everywhere(name, application(name), totals)
    keras.backend.clear_session()
