"""A Keras model in two halves, cut at a named layer: a trunk, and a head.

The head is made by walking the model's own graph from the cut to the outputs and
calling each operation again on a fresh input. So the two halves hold the model's layers
and not copies of them: to train the head is to put it back.
"""

import dataclasses
import difflib
import itertools
import operator
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tf_pseudofeat.core.arguments import check_finite, check_floats, without_overflow
from tf_pseudofeat.core.strategies import scope_of
from tf_pseudofeat.core.tracing import compiled
from tf_pseudofeat.data.preprocessing import (
    predict_batch,
    predicts_otherwise,
    preprocess_batch,
)
from tf_pseudofeat.splitting.graph import (
    MOST_NAMES,
    Graph,
    call_again,
    check_is_keras_3,
    check_stateless,
    functional,
    known_splits,
    layers_inside,
    mask,
    producer,
)
from tf_pseudofeat.splitting.outputs import Output, choose_output, graph_to

__all__ = ["Split", "split_at"]

_TOLERANCE = {"float16": 1e-2, "bfloat16": 5e-2}  # Every other dtype: 1e-4.


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A model in two halves: `head(trunk(x))` is `model(x)`.

    It unpacks: `trunk, head = split_at(model, "features")`. A model without a graph is
    split by hand, `Split(trunk, head)`.

    Attributes:
        trunk: the Keras model from the model's inputs, in their own structure, to the
            features.
        head: the Keras model from the features to the model's outputs, in their own
            structure. Its layers are the model's: what is trained here is trained
            there. A layer called on both sides of the cut is the trunk's, too.
        layer_name: the layer that computes the features; by default the trunk's name.
        output: the one of the model's outputs that the head gives, an `Output` or its
            name; None for all.
    """

    trunk: keras.Model
    head: keras.Model
    layer_name: str | None = None
    output: Output | str | None = None

    def __post_init__(self):
        for half in self:
            check_is_keras_3(half)
        if self.layer_name is None:
            object.__setattr__(self, "layer_name", self.trunk.name)

    def __iter__(self) -> Iterator[keras.Model]:
        return iter((self.trunk, self.head))

    def check(
        self,
        model: keras.Model,
        x: object,
        *,
        tolerance: float | None = None,
        trained: bool = True,
    ) -> float:
        """Compares `model(x)` to `head(trunk(x))` in inference mode.

        The difference of a, the model's number, and b is |a - b| / max(1, |a|). All
        three are one compiled call. Where the model's class has a `predict` of its own,
        or the model a `preprocessor`, `model.predict(x)` is compared as well.

        Args:
            model: the Keras model that was split.
            x: one batch of inputs, as `fit` and `predict` of the model take it.
            tolerance: the largest difference taken for rounding. By default 1e-4; 1e-2
                if any tensor of the model is float16, 5e-2 if bfloat16.
            trained: False for a model at the start of its training. What is NaN or
                infinite on both sides is the same then: in float16 a deep network that
                has not seen its first batch overflows.

        Returns:
            largest_difference: a float.

        Raises:
            ValueError: They differ, the features are not finite, or a mask comes out of
                the trunk.

        Example:

        >>> split_at(model, "features").check(model, images[:8])
        0.0
        """
        return self.compare(model, x, tolerance, trained)[0]

    def compare(
        self,
        model: keras.Model,
        x: object,
        tolerance: float | None = None,
        trained: bool = True,
    ) -> tuple[float, Any, Any]:
        """`(largest_difference, features, outputs)`, the model's own; see `check`."""
        check_stateless(model)
        inputs = preprocess_batch(model, x)
        features, expected, received = _run_all(self, model, inputs)
        check_floats(features, self.layer_name)
        if not trained:
            features = without_overflow(features, inputs)
        check_finite(features, f"The features at '{self.layer_name}'", inputs)
        if tolerance is None:
            tolerance = max(_default_tolerance(half) for half in self)
        if len(expected) != len(received):
            raise ValueError(
                f"head(trunk(x)) gives {len(received)} outputs, the model "
                f"{len(expected)}: a head for one of several needs output="
            )
        known = itertools.repeat(trained)
        largest = max(map(_largest_difference, expected, received, known))
        if not largest <= tolerance:  # So written that NaN is refused, too.
            raise ValueError(
                f"head(trunk(x)) is not model(x) for the split at '{self.layer_name}': "
                f"largest difference {largest:.3g}, tolerance {tolerance:g}. Look for "
                "an empty batch, a NaN in the model's own output (the features are "
                "finite), a layer that draws random numbers in inference, or a model "
                "with a `call` of its own; for the last, make a Split(trunk, head) of "
                "its two halves."
            )
        # Of any other model `predict` is model(x), and its own trace takes 0.3 s.
        if predicts_otherwise(model):
            self._compare_predict(model, x, received, tolerance, trained)
        return largest, features, expected

    def _compare_predict(self, model, x, received, tolerance, trained):
        predicted = predict_batch(model, x)
        if self.output is not None:
            predicted = self.output.of(predicted, "model.predict(x)")
        predicted = keras.tree.flatten(predicted)
        largest = float("nan")  # also where their numbers differ
        if len(predicted) == len(received):
            known = itertools.repeat(trained)
            largest = max(map(_largest_difference, predicted, received, known))
        if not largest <= tolerance:
            shapes = [list(np.shape(output)) for output in predicted]
            raise ValueError(
                f"head(trunk(x)) is not model.predict(x) for the split at "
                f"'{self.layer_name}': largest difference {largest:.3g}, tolerance "
                f"{tolerance:g}; `predict` gives shapes {shapes}. "
                f"{type(model).__name__} {model.name!r} has a `predict` of its own, or "
                f"a `preprocessor`, and its layers know nothing of what that does. Put "
                f"it into layers of the model, or do it to the data and pass a model "
                f"without it, keras.Model(model.inputs, model.outputs)."
            )


def _run_all(split, model, x):
    """Features, the model's outputs and those of the head, as arrays."""
    asked = split.trunk, split.head, split.output
    known = getattr(model, "_pseudofeat_check", None)
    if known is None or any(map(operator.is_not, known[0], asked)):
        known = asked, *_together(split, model)
        # Past Keras, which would track the layers in it.
        object.__setattr__(model, "_pseudofeat_check", known)
    _, run, masked = known
    outputs = run(x)
    if masked[-1]:
        raise ValueError(_masked(split.layer_name))
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def _together(split, model):
    """A compiled function of a batch, and a list that ends in whether it is masked."""
    masked = []

    def run(x):
        features = split.trunk(x, training=False)
        masked.append(mask(features) is not None)
        if masked[-1]:
            return features, [], []
        expected = model(x, training=False)
        if split.output is not None:
            expected = split.output.of(expected, "model(x)")
        received = split.head(features, training=False)
        return features, keras.tree.flatten(expected), keras.tree.flatten(received)

    return compiled(run), masked


def split_at(
    model: keras.Model,
    layer_name: str,
    *,
    call_index: int | None = None,
    output: str | None = None,
) -> Split:
    """Splits `model` after a layer, into a trunk and a head.

    A Functional or Sequential model can be split wherever everything goes through one
    tensor; elsewhere the error names the layers where it does. The model is not
    changed, and the same split again returns the same trunk and head. They belong to
    the `tf.distribute` strategy that the model was made in.

    Args:
        model: a Keras model, Functional or Sequential, built.
        layer_name: the layer (or operation) whose output is to be the features. For a
            layer in a nested model "backbone/features", to any depth.
        call_index: a whole number, for a layer that the model calls several times:
            after which call to split, counted from 0 in the order of the graph.
        output: of a model with several outputs, the name of the one that the head is
            to give; by default all of them.

    Returns:
        split: `Split`; `trunk, head = split_at(...)`.

    Raises:
        TypeError: `model` is not a Keras 3 model, or a name is not a string.
        ValueError: The model has no graph or no such output; the layer is unknown,
            called several times, or the last; it has several outputs or a masked one;
            or a skip connection, an input or an output bypasses it.

    Example:

    >>> trunk, head = split_at(model, "features")
    >>> head.compile("adam", "sparse_categorical_crossentropy")
    >>> head.fit(trunk.predict(images), labels)  # trains the layers of `model`
    """
    _check_arguments(model, layer_name, call_index)
    chosen = None if output is None else choose_output(model, output)
    calls = _find_calls(graph_to(model, chosen), layer_name)
    call = _without_last_layer(_choose_call(calls, layer_name, call_index))
    with scope_of(model):
        split = _split(model, call, output=chosen)
    if split.layer_name != layer_name:  # 'backbone/last' and 'backbone' are one cut.
        return dataclasses.replace(split, layer_name=layer_name)
    return split


# From a layer's name to one call of it.


def _find_calls(graph, layer_name):
    """The calls of a layer, each as a tuple of nodes, the outermost first."""
    name, _, rest = layer_name.partition("/")
    prefix = graph.prefix
    nodes = [node for node in graph.nodes if node.operation.name == name]
    if not nodes:
        raise ValueError(_unknown_layer(graph, layer_name))
    if not rest:
        return [(node,) for node in nodes]
    nested = nodes[0].operation
    if functional(nested) is None:
        raise ValueError(
            f"Cannot look for '{rest}' inside '{prefix}{name}': it is a "
            f"{type(nested).__name__}, and only Functional and Sequential models have "
            f"named layers inside. Layers to split at: {graph.advice(nodes[0])}."
        )
    inside = _find_calls(Graph(nested, f"{prefix}{name}/"), rest)
    return [(node, *call) for node in nodes for call in inside]


def _unknown_layer(graph, layer_name):
    message = f"Model '{graph.name}' has no layer '{layer_name}' in it"
    paths = _paths(graph)
    if layer_name in _paths(Graph(graph.functional, graph.prefix)):
        return (
            f"Layer '{graph.prefix}{layer_name}' of model '{graph.name}' is "
            f"not on the way to the output that was chosen. Layers to split at, from "
            f"the last: {graph.advice()}."
        )
    nested = [path for path in paths if path.endswith(f"/{layer_name}")]
    if nested:
        owner = nested[0].rpartition("/")[0]
        return f"{message}; it is inside the nested model '{owner}': use '{nested[0]}'."
    close = difflib.get_close_matches(graph.prefix + layer_name, paths)
    if close:
        return f"{message}. Did you mean " + " or ".join(map(repr, close)) + "?"
    return f"{message}. Layers to split at, from the last: {graph.advice()}."


def _paths(graph):
    paths = []
    for node in graph.nodes:
        paths.append(graph.path(node))
        if functional(node.operation) is not None:
            paths += _paths(Graph(node.operation, f"{graph.path(node)}/"))
    return list(dict.fromkeys(paths))


def _choose_call(calls, layer_name, call_index):
    count, known = len(calls), f"call_index=0 to call_index={len(calls) - 1}"
    if call_index is None and count > 1:
        raise ValueError(
            f"Layer '{layer_name}' is called {count} times in this model. Pass {known} "
            "to say after which call, in the order of the graph, to split."
        )
    if not 0 <= (call_index or 0) < count:
        raise ValueError(
            f"call_index={call_index} is out of range: layer '{layer_name}' is called "
            f"{count} time(s) in this model. Pass {known}."
        )
    return calls[call_index or 0]


def _without_last_layer(call):
    """Turns a cut after the last layer of a nested model into one after that model."""
    while len(call) > 1:
        outputs = functional(call[-2].operation).outputs
        if len(outputs) > 1 or producer(outputs[0]) is not call[-1]:
            break
        call = call[:-1]
    return call


# What cannot be split, and why.


def _check_arguments(model, layer_name, call_index):
    check_is_keras_3(model)
    if not isinstance(layer_name, str):
        raise TypeError(
            "`layer_name` must be a string, 'features' or 'backbone/features', not "
            f"{type(layer_name).__name__}. For a layer object pass layer.name."
        )
    if not isinstance(call_index, int | None) or isinstance(call_index, bool):
        raise TypeError(f"`call_index` must be an int or None, not {call_index!r}.")
    if functional(model) is not None:
        return
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"Sequential model '{model.name}' is not built, so its layers are not "
            "connected yet. Call model.build(input_shape), or the model on one batch."
        )
    raise ValueError(
        f"Model '{model.name}' ({type(model).__name__}) has no graph of layers to "
        "split: what it computes is written in Python. Pass its two halves as "
        "Split(trunk, head)."
    )


def _check_features(graph, cut):
    path, why_not = graph.path(cut), graph.why_not(cut)
    if why_not == "several outputs":
        raise ValueError(
            f"Cannot split at '{path}': it returns {len(cut.outputs)} tensors, and the "
            f"features must be one. Layers that return one: {graph.advice(cut)}."
        )
    if why_not == "output layer":
        raise ValueError(
            f"Cannot split at '{path}': it is an output layer, with nothing after it "
            f"to retrain. Layers before it, nearest first: {graph.advice(cut)}."
        )
    if why_not == "no floats":
        raise ValueError(
            f"Cannot split at '{path}': its output is {cut.outputs[0].dtype}, and "
            f"features are floats. Layers whose output is, nearest first: "
            f"{graph.advice(cut)}."
        )
    if why_not == "mask":
        layers = graph.advice(cut, only_after=True)
        raise ValueError(f"{_masked(path)} Layers without one: {layers}.")


def _masked(layer_name):
    return (
        f"Cannot split at '{layer_name}': a Keras mask travels with its output (from "
        "Embedding(mask_zero=True) or Masking), and an array of features carries no "
        "mask. Split after the layer that uses up the mask."
    )


def _check_separates(graph, cut):
    found = graph.bypasses(cut)
    if found:
        more = f"; {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
        raise ValueError(
            f"Cannot split at '{graph.path(cut)}': part of the network goes around it "
            f"({'; '.join(found[:MOST_NAMES])}{more}). Layers that everything goes "
            f"through, nearest first: {graph.advice(cut)}."
        )


# The two halves.


def _split(model, call, prefix="", output=None):
    """The Split of `model` after `call`; the same one each time."""
    splits = known_splits(model, call)
    if (call, output) not in splits:
        graph, (cut, *inside) = graph_to(model, output, prefix), call
        if not inside:
            _check_features(graph, cut)
        _check_separates(graph, cut)
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
    head_input = _input_like(features, name, graph)
    trunk = _model(graph, f"to_{name}", graph.functional.input, features)
    head_output = _outputs_after(graph, cut, head_input)
    return Split(trunk, _model(graph, f"after_{name}", head_input, head_output), name)


def _split_around(graph, cut, nested):
    """Splits a graph inside the call `cut` of a nested model, already split."""
    args, kwargs = cut.arguments.args, cut.arguments.kwargs
    trunk_output = nested.trunk(*args, **kwargs)
    name = nested.layer_name.rpartition("/")[2]
    head_input = _input_like(nested.head.input, name, graph)
    kwargs = {key: kwargs[key] for key in ["training"] if key in kwargs}
    head_output = _outputs_after(graph, cut, nested.head(head_input, **kwargs))
    return Split(
        _model(graph, f"to_{name}", graph.functional.input, trunk_output),
        _model(graph, f"after_{name}", head_input, head_output),
        f"{cut.operation.name}/{nested.layer_name}",
    )


def _outputs_after(graph, cut, cut_outputs):
    """Calls all that comes after `cut` again, on `cut_outputs` in place of its own."""
    new = {}
    _update(new, cut, cut_outputs)
    for node in graph.nodes[graph.position[cut] + 1 :]:
        _update(new, node, call_again(node, new))
    return keras.tree.map_structure(lambda old: new[id(old)], graph.output)


def _update(new, node, outputs):
    flat = keras.tree.flatten(outputs)
    new.update(zip(map(id, node.outputs), flat, strict=True))


def _model(graph, suffix, inputs, outputs):
    return keras.Model(inputs, outputs, name=f"{graph.name}_{suffix}")


def _input_like(features, layer_name, graph):
    name = f"{layer_name}_output"
    while name in {node.operation.name for node in graph.nodes}:
        name += "_"
    return keras.Input(batch_shape=features.shape, dtype=features.dtype, name=name)


# The check.


def _default_tolerance(model):
    if functional(model) is None:
        dtypes = {layer.compute_dtype for layer in (model, *layers_inside(model))}
    else:
        nodes = Graph(model).nodes
        dtypes = {tensor.dtype for node in nodes for tensor in node.outputs}
    return max(_TOLERANCE.get(dtype, 1e-4) for dtype in dtypes)


def _largest_difference(expected, received, trained=True):
    a = keras.ops.convert_to_numpy(expected).astype("float64")
    b = keras.ops.convert_to_numpy(received).astype("float64")
    if a.shape != b.shape or not a.size:
        return float("nan")
    same = a == b  # Equal infinities would differ by NaN.
    if not trained:
        same |= ~np.isfinite(a) & ~np.isfinite(b)
    a, b = a[~same], b[~same]
    return float((abs(a - b) / abs(a).clip(min=1.0)).max(initial=0.0))
