"""Tests for graph.py: Keras's private parts, the order of the nodes, what separates."""

import ast
import pathlib
import types

import keras
import numpy as np
import pytest
from keras import layers

from tf_pseudofeat.splitting import graph
from tf_pseudofeat.splitting.graph import Graph, functional, producer, sources

PACKAGE = pathlib.Path(graph.__file__).parents[1]


def private_parts():
    """{what graph.py reads of Keras: an object that must have it}."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    tensor = model.outputs[0]
    node = model.layers[0]._inbound_nodes[0] if model.layers else None
    return {
        "Sequential._functional": model,
        "KerasTensor._keras_history": tensor,
        "Operation._inbound_nodes": model.layers[0],
        "Layer._flatten_layers": model,
        "Node.operation": node,
        "Node.is_input": node,
        "Node.outputs": node,
        "Node.arguments": node,
    }


def test_this_version_of_keras_has_all_that_the_seam_reads():
    for name, owner in private_parts().items():
        assert hasattr(owner, name.partition(".")[2]), (
            f"Keras {keras.__version__} has no {name}, which graph.py reads. Find what "
            f"took its place, and put that into the seam in graph.py."
        )
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    history = model.outputs[0]._keras_history
    for name in ("operation", "node_index"):
        assert hasattr(history, name), (
            f"The _keras_history of Keras {keras.__version__} has no {name}."
        )
    arguments = model.layers[0]._inbound_nodes[0].arguments
    for name in ("args", "kwargs", "keras_tensors", "fill_in"):
        assert hasattr(arguments, name), (
            f"A node's arguments in Keras {keras.__version__} have no {name}."
        )
    words = layers.Masking()(keras.Input((5, 2)))
    assert hasattr(words, "_keras_mask"), (
        f"Keras {keras.__version__} keeps masks elsewhere than in _keras_mask, and "
        f"graph.py would cut where a mask is lost."
    )


def test_no_other_file_reads_private_attributes_of_others():
    own = {"self", "cls"}
    public = {"_asdict", "_fields"}  # a named tuple's
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.name in ("graph.py", "oversamplers.py"):  # the latter: scikit-learn's
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        read = [
            (node.lineno, ast.unparse(node.value), node.attr)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr.startswith("_")
        ]
        # A class may read another object of its kind.
        ours = public | {name for _, of, name in read if of in own}
        for line, of, name in read:
            assert of in own or name in ours or name.startswith("__"), (
                f"{file.name}:{line} reads {of}.{name}"
            )


def small_model():
    """A skip connection over 'inside', and a layer that the output does not need."""
    inputs = keras.Input((2,), name="image")
    layers.Dense(1, name="unused")(inputs)
    x = before = layers.Dense(2, name="before")(inputs)
    x = layers.Dense(2, name="inside")(x)
    x = layers.Add(name="join")([before, x])
    return keras.Model(inputs, layers.Dense(2, name="logits")(x))


def names(nodes):
    return [node.operation.name for node in nodes]


def test_nodes_are_those_that_the_outputs_need_each_after_its_sources():
    network = Graph(small_model())
    assert names(network.nodes) == ["image", "before", "inside", "join", "logits"]
    assert names(sources(network.nodes[3])) == ["before", "inside"]


def test_separating_nodes_and_what_bypasses_the_others():
    network = Graph(small_model(), prefix="backbone/")
    assert names(network.separating()) == ["image", "before", "join", "logits"]
    assert network.bypasses(network.nodes[2]) == [
        "'backbone/join' reads 'backbone/before'"
    ]
    assert network.advice(network.nodes[2]) == "'backbone/before', 'backbone/join'"


def test_calls_of_one_layer():
    shared, inputs = layers.Dense(2, name="shared"), keras.Input((2,))
    network = Graph(keras.Model(inputs, layers.Dense(2)(shared(shared(inputs)))))
    assert network.calls(network.nodes[1]) == network.nodes[1:3]
    assert network.advice() == "'shared' (call_index=1), 'shared' (call_index=0)"


def test_walk_goes_deeper_than_pythons_stack():
    x = keras.Input((4,))
    for _ in range(2000):  # Keras itself cannot make a Model of so many.
        x = layers.Identity()(x)
    assert len(graph._in_order([producer(x)])) == 2001


def separates_naively(model, node):
    """Take the node out: do the inputs still reach the outputs?"""
    reached = set()
    for other in Graph(model).nodes:
        before = set(sources(other))
        if other is not node and (not before or reached & before):
            reached.add(other)
    return not any(producer(tensor) in reached for tensor in model.outputs)


@pytest.mark.parametrize("seed", range(8))
def test_separating_layers_are_those_whose_removal_cuts_the_network(seed):
    rng = np.random.default_rng(seed)
    inputs = [keras.Input((2,)) for _ in range(rng.integers(1, 3))]
    tensors, read = list(inputs), set()
    for _ in range(12):
        some = rng.integers(max(0, len(tensors) - 3), len(tensors), size=2)
        read.update(some)
        tensors.append(layers.Add()([tensors[i] for i in some]))
    outputs = tensors[-1:] if seed % 2 else [tensors[-1], tensors[-3]]
    joined = layers.Add()([tensors[-1], *inputs]) if seed > 5 else None
    if joined is None:  # Keras 3.12 takes no input that nothing reads.
        inputs = [x for i, x in enumerate(inputs) if i in read]
    model = keras.Model(inputs, outputs if joined is None else [joined])
    network = Graph(model)
    naive = [node for node in network.nodes if separates_naively(model, node)]
    assert network.separating() == naive
    for node in network.nodes:
        assert (network.bypasses(node) == []) == (node in naive)


def test_model_with_a_graph_is_functional_or_a_built_sequential():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    sequential = keras.Sequential([layers.Dense(2)])
    assert functional(model) is model
    assert functional(sequential) is None
    assert functional(layers.Dense(2)) is None
    sequential.build((None, 2))
    assert isinstance(functional(sequential), keras.Function)


def test_what_is_no_keras_3_model_is_named():
    graph.check_is_keras_3(small_model())
    with pytest.raises(TypeError, match="must be a keras.Model, not Dense"):
        graph.check_is_keras_3(layers.Dense(2))
    classifier = types.SimpleNamespace(model_=small_model())
    with pytest.raises(TypeError, match="SimpleNamespace. Pass its attribute `model_`"):
        graph.check_is_keras_3(classifier)
    tf_keras = pytest.importorskip("tf_keras")
    with pytest.raises(TypeError, match=r"tf_keras \(Keras 2\) model, Sequential"):
        graph.check_is_keras_3(tf_keras.Sequential())
