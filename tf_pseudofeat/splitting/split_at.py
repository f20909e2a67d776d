"""Splits a Keras model at a named layer into a trunk and a head.

The head is built by walking the graph of the model from the split to the outputs and
calling each operation again on a new input. Both halves share the layers of the model,
so training the head trains the model.
"""

import dataclasses

import keras

from tf_pseudofeat.core.distribution import scope_of
from tf_pseudofeat.splitting.computed_shapes import computed_shapes
from tf_pseudofeat.splitting.find_layer import (
    choose_call,
    find_calls,
    without_last_layer,
)
from tf_pseudofeat.splitting.graph import known_splits, repeat_call
from tf_pseudofeat.splitting.outputs import choose_output, graph_to
from tf_pseudofeat.splitting.separating import usual_layer
from tf_pseudofeat.splitting.split_checks import (
    check_arguments,
    check_features,
    check_separates,
)
from tf_pseudofeat.splitting.trunk_and_head import Split

__all__ = ["split_at"]


def split_at(
    model: keras.Model,
    layer_name: str | None,
    *,
    call_index: int | None = None,
    output: str | None = None,
) -> Split:
    """Splits `model` after a layer, into a trunk and a head.

    A Functional or Sequential model can be split wherever all paths go through one
    tensor; otherwise the error names the layers where they do. The model is not
    changed, and splitting again returns the same trunk and head. They belong to the
    `tf.distribute` strategy of the model.

    Args:
        model: a Keras model, Functional or Sequential, built.
        layer_name: name of the layer (or operation) whose output is the features;
            "backbone/features" for a layer in a nested model, to any depth. None for
            the usual one, `separating_layers(model).usual`.
        call_index: for a layer that the model calls several times, the call to split
            after, counted from 0 in the order of the graph.
        output: for a model with several outputs, the name of the one that the head
            computes; by default all of them.

    Returns:
        split: `Split`; `trunk, head = split_at(...)`.

    Raises:
        TypeError: If `model` is not a Keras 3 model, or a name is not a string.
        ValueError: If the model has no graph or no such output; the layer is unknown,
            called several times, or the last one; it has several outputs or a masked
            one; or a skip connection, an input or an output bypasses it.

    Examples:
        >>> trunk, head = split_at(model, "features")
        >>> head.compile("adam", "sparse_categorical_crossentropy")
        >>> head.fit(trunk.predict(images), labels)  # trains the layers of `model`
    """
    check_arguments(model, layer_name, call_index)
    if layer_name is None:
        layer_name = usual_layer(model, output)
    chosen = None if output is None else choose_output(model, output)
    calls = find_calls(graph_to(model, chosen), layer_name)
    call = without_last_layer(choose_call(calls, layer_name, call_index))
    with scope_of(model):
        split = _split(model, call, output=chosen)
    if (
        split.layer_name != layer_name
    ):  # 'backbone/last' and 'backbone' are the same split
        return dataclasses.replace(split, layer_name=layer_name)
    return split


def _split(model, call, prefix="", output=None):
    """Returns the cached `Split` of `model` after `call`."""
    splits = known_splits(model, call)
    if (call, output) not in splits:
        graph, (cut, *inside) = graph_to(model, output, prefix), call
        if not inside:
            check_features(graph, cut)
        check_separates(graph, cut)
        if inside:
            nested = _split(cut.operation, tuple(inside), f"{graph.path(cut)}/")
            split = _split_around(graph, cut, nested)
        else:
            split = _split_after(graph, cut)
        splits[call, output] = dataclasses.replace(split, output=output)
    return splits[call, output]


def _split_after(graph, cut):
    """Splits a graph after the call `cut` of a layer."""
    name, features = cut.operation.name, cut.outputs[0]
    trunk = _model(graph, f"to_{name}", graph.functional.input, features)
    (shape,) = computed_shapes(trunk)
    head_input = _input_like(features, name, graph, shape)
    head_output = _outputs_after(graph, cut, head_input)
    return Split(trunk, _model(graph, f"after_{name}", head_input, head_output), name)


def _split_around(graph, cut, nested):
    """Splits a graph inside the call `cut` of a nested model that is already split."""
    args, kwargs = cut.arguments.args, cut.arguments.kwargs
    trunk_output = nested.trunk(*args, **kwargs)
    name = nested.layer_name.rpartition("/")[2]
    features = nested.head.input
    head_input = _input_like(features, name, graph, features.shape)
    kwargs = {key: kwargs[key] for key in ["training"] if key in kwargs}
    head_output = _outputs_after(graph, cut, nested.head(head_input, **kwargs))
    return Split(
        _model(graph, f"to_{name}", graph.functional.input, trunk_output),
        _model(graph, f"after_{name}", head_input, head_output),
        f"{cut.operation.name}/{nested.layer_name}",
    )


def _outputs_after(graph, cut, cut_outputs):
    """Repeats all calls after `cut`, with `cut_outputs` in place of its outputs."""
    new = {}
    _update(new, cut, cut_outputs)
    for node in graph.nodes[graph.position[cut] + 1 :]:
        _update(new, node, repeat_call(node, new))
    return keras.tree.map_structure(lambda old: new[id(old)], graph.output)


def _update(new, node, outputs):
    flat = keras.tree.flatten(outputs)
    new.update(zip(map(id, node.outputs), flat, strict=True))


def _model(graph, suffix, inputs, outputs):
    return keras.Model(inputs, outputs, name=f"{graph.name}_{suffix}")


def _input_like(features, layer_name, graph, shape):
    name = f"{layer_name}_output"
    while name in {node.operation.name for node in graph.nodes}:
        name += "_"
    return keras.Input(batch_shape=shape, dtype=features.dtype, name=name)
