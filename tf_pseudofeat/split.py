"""Cut a Keras model in two at a named layer: a trunk, and a head that shares layers.

The head is made by walking the model's own graph from the cut to the outputs and
calling each operation again on a fresh input. So the two halves hold the model's layers
and not copies of them: to train the head is to put it back.
"""

import dataclasses
import difflib
import weakref

import keras

__all__ = ["Split", "output_activation", "split_at"]

_TOLERANCE = {"float16": 1e-2, "bfloat16": 5e-2}  # Every other dtype: 1e-4.
_OPERATIONS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
_MOST_NAMES = 5


# ---- The seam: all that is touched of Keras's private parts is touched here. ---------


def _functional(model):
    """Return the Functional model that holds the graph of `model`, or None."""
    if isinstance(model, keras.Sequential):
        return model._functional
    has_graph = isinstance(model, keras.Model) and isinstance(model, keras.Function)
    return model if has_graph else None


def _producer(tensor):
    """Return the node, that is the one call of an operation, that made `tensor`."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _sources(node):
    """List the nodes whose tensors `node` reads."""
    return [_producer(tensor) for tensor in node.arguments.keras_tensors]


def _call_again(node, tensors):
    """Repeat the call `node` on the new tensors, {id of the old one: the new one}."""
    args, kwargs = node.arguments.fill_in(tensors)
    return node.operation(*args, **kwargs)


def _known_splits(model, call):
    """Return the splits of `model` made so far, {call: Split}, to read or add to.

    They hang on a node of the graph, so they live as long as the layers they share and
    keep nothing else alive. A model that grows gets new nodes, so none is ever stale.
    """
    if not hasattr(call[0], "_pseudofeat_splits"):
        call[0]._pseudofeat_splits = weakref.WeakKeyDictionary()
    return call[0]._pseudofeat_splits.setdefault(model, {})


def _mask(tensor):
    """Return the Keras mask that travels with `tensor`, or None."""
    return getattr(tensor, "_keras_mask", None)


# ---- The graph. ----------------------------------------------------------------------


class _Graph:
    """The nodes of one model, each after all that it reads; `prefix` leads to it."""

    def __init__(self, model, prefix=""):
        self.functional = _functional(model)
        self.prefix = prefix
        self.outputs = [_producer(tensor) for tensor in self.functional.outputs]
        self.nodes = _in_order(self.outputs)
        self.position = {node: i for i, node in enumerate(self.nodes)}

    def path(self, node):
        return self.prefix + node.operation.name

    def calls(self, node):
        return [other for other in self.nodes if other.operation is node.operation]

    def separating(self):
        """List the nodes that every path from the inputs to the outputs goes through.

        In topological order, a node separates if and only if no edge jumps over it. An
        input ends an edge from before the first node; an output starts an edge to
        behind the last.
        """
        last_reader = dict.fromkeys(self.outputs, len(self.nodes))
        for node in reversed(self.nodes):
            for source in _sources(node):
                last_reader.setdefault(source, self.position[node])
        separating = []
        furthest = max(self.position[node] for node in self.nodes if node.is_input)
        for node in self.nodes:
            if furthest <= self.position[node]:
                separating.append(node)
            furthest = max(furthest, last_reader[node])
        return separating

    def bypasses(self, cut):
        """Say what reaches the outputs without going through `cut`."""
        through, found = {cut}, []
        for node in self.nodes:
            if node is cut or through.isdisjoint(_sources(node)):
                continue
            through.add(node)
            found += [
                f"'{self.path(node)}' reads '{self.path(source)}'"
                for source in _sources(node)
                if source not in through
            ]
        found += [
            f"the output '{self.path(node)}' does not depend on it"
            for node in self.outputs
            if node not in through
        ]
        return list(dict.fromkeys(found))

    def advice(self, near=None, only_after=False):
        """Name the layers to split at, the nearest to `near` (or to the end) first."""
        origin = self.position.get(near, len(self.nodes))
        useful = [
            node
            for node in self.separating()
            if node not in (near, self.nodes[-1])
            and not node.is_input
            and len(node.outputs) == 1
            and _mask(node.outputs[0]) is None
            and not (only_after and self.position[node] < origin)
        ]
        useful.sort(key=lambda node: abs(self.position[node] - origin))
        last = self.nodes[-1].operation
        if (
            not useful and _functional(last) is not None
        ):  # The whole network is one backbone.
            return _Graph(last, f"{self.prefix}{last.name}/").advice()
        return ", ".join(map(self._quoted, useful[:_MOST_NAMES])) or "none"

    def _quoted(self, node):
        calls = self.calls(node)
        index = f" (call_index={calls.index(node)})" if len(calls) > 1 else ""
        return f"'{self.path(node)}'{index}"


def _in_order(outputs):
    nodes, done = [], set()
    stack = [(node, False) for node in reversed(outputs)]
    while stack:  # No recursion: networks are deeper than Python's stack.
        node, sources_done = stack.pop()
        if node in done:
            continue
        if sources_done:
            done.add(node)
            nodes.append(node)
        else:
            stack.append((node, True))
            stack.extend((source, False) for source in reversed(_sources(node)))
    return nodes


# ---- From a layer's name to one call of it. ------------------------------------------


def _find_calls(model, layer_name, prefix=""):
    """List the calls of a layer, each as a tuple of nodes, the outermost first."""
    name, _, rest = layer_name.partition("/")
    graph = _Graph(model, prefix)
    nodes = [node for node in graph.nodes if node.operation.name == name]
    if not nodes:
        raise ValueError(_unknown_layer(graph, layer_name))
    if not rest:
        return [(node,) for node in nodes]
    nested = nodes[0].operation
    if _functional(nested) is None:
        raise ValueError(
            f"Cannot look for '{rest}' inside '{prefix}{name}': it is a "
            f"{type(nested).__name__}, and only Functional and Sequential models have "
            f"named layers inside. Layers to split at: {graph.advice(nodes[0])}."
        )
    inside = _find_calls(nested, rest, f"{prefix}{name}/")
    return [(node, *call) for node in nodes for call in inside]


def _unknown_layer(graph, layer_name):
    message = f"Model '{graph.functional.name}' has no layer '{layer_name}' in it"
    paths = _paths(graph)
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
        if _functional(node.operation) is not None:
            paths += _paths(_Graph(node.operation, f"{graph.path(node)}/"))
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
    """Turn a cut after the last layer of a nested model into one after that model."""
    while len(call) > 1:
        outputs = _functional(call[-2].operation).outputs
        if len(outputs) > 1 or _producer(outputs[0]) is not call[-1]:
            break
        call = call[:-1]
    return call


# ---- What cannot be split, and why. --------------------------------------------------


def _check_is_keras_3(model):
    if isinstance(model, keras.Model):
        return
    if any(base.__module__.startswith("tf_keras") for base in type(model).__mro__):
        raise TypeError(
            f"This is a tf_keras (Keras 2) model, {type(model).__name__}; a Keras 3 "
            "model is needed. Load its file, or rebuild it, with `keras`."
        )
    raise TypeError(f"`model` must be a keras.Model, not {type(model).__name__}.")


def _check_arguments(model, layer_name, call_index):
    _check_is_keras_3(model)
    if not isinstance(layer_name, str):
        raise TypeError(
            "`layer_name` must be a string, 'features' or 'backbone/features', not "
            f"{type(layer_name).__name__}. For a layer object pass layer.name."
        )
    if not isinstance(call_index, int | None) or isinstance(call_index, bool):
        raise TypeError(f"`call_index` must be an int or None, not {call_index!r}.")
    if _functional(model) is not None:
        return
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            f"Sequential model '{model.name}' is not built, so its layers are not "
            "connected yet. Call model.build(input_shape), or the model on one batch."
        )
    raise ValueError(
        f"Model '{model.name}' ({type(model).__name__}) has no graph of layers to "
        "split: what it computes is written in Python. Pass its two halves, trunk= and "
        "head=, to retrain_head."
    )


def _check_features(graph, cut):
    path = graph.path(cut)
    if len(cut.outputs) > 1:
        raise ValueError(
            f"Cannot split at '{path}': it returns {len(cut.outputs)} tensors, and the "
            f"features must be one. Layers that return one: {graph.advice(cut)}."
        )
    if not any(cut in _sources(node) for node in graph.nodes):
        raise ValueError(
            f"Cannot split at '{path}': it is an output layer, with nothing after it "
            f"to retrain. Layers before it, nearest first: {graph.advice(cut)}."
        )
    if _mask(cut.outputs[0]) is not None:
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
        more = f"; {len(found) - _MOST_NAMES} more" if len(found) > _MOST_NAMES else ""
        raise ValueError(
            f"Cannot split at '{graph.path(cut)}': part of the network goes around it "
            f"({'; '.join(found[:_MOST_NAMES])}{more}). Layers that everything goes "
            f"through, nearest first: {graph.advice(cut)}."
        )


# ---- The two halves. -----------------------------------------------------------------


def _split(model, call, prefix=""):
    """Return the Split of `model` after `call`; the same one each time."""
    splits = _known_splits(model, call)
    if call not in splits:
        graph, (cut, *inside) = _Graph(model, prefix), call
        if not inside:
            _check_features(graph, cut)
        _check_separates(graph, cut)
        if inside:
            nested = _split(cut.operation, tuple(inside), f"{graph.path(cut)}/")
            splits[call] = _split_around(graph, cut, nested)
        else:
            splits[call] = _split_after(graph, cut)
    return splits[call]


def _split_after(graph, cut):
    """Split a graph after the call `cut` of a layer."""
    name, features = cut.operation.name, cut.outputs[0]
    head_input = _input_like(features, name, graph)
    trunk = _model(graph, f"to_{name}", graph.functional.input, features)
    head_output = _outputs_after(graph, cut, head_input)
    return Split(trunk, _model(graph, f"after_{name}", head_input, head_output), name)


def _split_around(graph, cut, nested):
    """Split a graph inside the call `cut` of a nested model, which is split already."""
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
    """Call all that comes after `cut` again, on `cut_outputs` in place of its own."""
    new = {}
    _update(new, cut, cut_outputs)
    for node in graph.nodes[graph.position[cut] + 1 :]:
        _update(new, node, _call_again(node, new))
    return keras.tree.map_structure(lambda old: new[id(old)], graph.functional.output)


def _update(new, node, outputs):
    flat = keras.tree.flatten(outputs)
    new.update(zip(map(id, node.outputs), flat, strict=True))


def _model(graph, suffix, inputs, outputs):
    return keras.Model(inputs, outputs, name=f"{graph.functional.name}_{suffix}")


def _input_like(features, layer_name, graph):
    name = f"{layer_name}_output"
    while name in {node.operation.name for node in graph.nodes}:
        name += "_"
    return keras.Input(batch_shape=features.shape, dtype=features.dtype, name=name)


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A model in two halves: `head(trunk(x))` is `model(x)`.

    It unpacks: `trunk, head = split_at(model, "features")`.

    Args:
        trunk: keras.Model, from the model's inputs, in the model's own input structure,
            to the features.
        head: keras.Model, from the features to the model's outputs, in the model's own
            output structure. Its layers are the model's: what is trained here is
            trained there. A layer called on both sides of the cut is the trunk's, too.
        layer_name: string, the layer that computes the features.
    """

    trunk: keras.Model
    head: keras.Model
    layer_name: str

    def __iter__(self):
        return iter((self.trunk, self.head))

    def check(self, model, x, *, tolerance=None):
        """Compare `model(x)` to `head(trunk(x))` in inference mode.

        The difference of a, the model's number, and b is |a - b| / max(1, |a|).

        Args:
            model: keras.Model, the one that was split.
            x: one batch of inputs, in the structure that the model takes.
            tolerance: float, the largest difference taken for rounding. By default
                1e-4; 1e-2 if any tensor of the model is float16, 5e-2 if bfloat16.

        Returns:
            largest_difference: float.

        Raises:
            ValueError: if they differ, or if a mask comes out of the trunk.

        Example:

        >>> split_at(model, "features").check(model, images[:8])
        0.0
        """
        features = self.trunk(x, training=False)
        if _mask(features) is not None:
            raise ValueError(_masked(self.layer_name))
        features = keras.ops.convert_to_numpy(features)  # As head.fit would get them.
        expected = keras.tree.flatten(model(x, training=False))
        received = keras.tree.flatten(self.head(features, training=False))
        if tolerance is None:
            tolerance = max(_default_tolerance(half) for half in self)
        largest = max(map(_largest_difference, expected, received))
        if not largest <= tolerance:  # So written that NaN is refused, too.
            raise ValueError(
                f"head(trunk(x)) is not model(x) for the split at '{self.layer_name}': "
                f"largest difference {largest:.3g}, tolerance {tolerance:g}. Look for "
                "an empty batch, a NaN in the model's own output, a layer that draws "
                "random numbers in inference, or a model with a `call` of its own; for "
                "the last, pass trunk= and head= to retrain_head."
            )
        return largest


def _default_tolerance(model):
    nodes = _Graph(model).nodes
    dtypes = {tensor.dtype for node in nodes for tensor in node.outputs}
    return max(_TOLERANCE.get(dtype, 1e-4) for dtype in dtypes)


def _largest_difference(expected, received):
    a = keras.ops.convert_to_numpy(expected).astype("float64")
    b = keras.ops.convert_to_numpy(received).astype("float64")
    if a.shape != b.shape or not a.size:
        return float("nan")
    a, b = a[a != b], b[a != b]  # Equal infinities would differ by NaN.
    return float((abs(a - b) / abs(a).clip(min=1.0)).max(initial=0.0))


def split_at(model, layer_name, *, call_index=None):
    """Split `model` after a layer, into a trunk and a head.

    A Functional or Sequential model can be split wherever everything goes through one
    tensor; elsewhere the error names the layers where it does. The model is not
    changed, and the same split again returns the same trunk and head.

    Args:
        model: keras.Model, Functional or Sequential, built.
        layer_name: string, the layer (or operation) whose output is to be the features.
            For a layer in a nested model 'backbone/features', to any depth.
        call_index: int, for a layer that the model calls several times: after which
            call to split, counted from 0 in the order of the graph.

    Returns:
        split: Split, with `trunk`, `head` and `layer_name`.

    Raises:
        TypeError: if `model` is not a Keras 3 model, or `layer_name` not a string.
        ValueError: if the model has no graph, the layer is unknown, called several
            times, or the last; if it has several outputs or a masked one; or if a skip
            connection, an input or an output bypasses it.

    Example:

    >>> trunk, head = split_at(model, "features")
    >>> head.compile("adam", "sparse_categorical_crossentropy")
    >>> head.fit(trunk.predict(images), labels)  # trains the layers of `model`
    """
    _check_arguments(model, layer_name, call_index)
    call = _choose_call(_find_calls(model, layer_name), layer_name, call_index)
    split = _split(model, _without_last_layer(call))
    if split.layer_name != layer_name:  # 'backbone/last' and 'backbone' are one cut.
        return dataclasses.replace(split, layer_name=layer_name)
    return split


# ---- The end of the head. ------------------------------------------------------------


def output_activation(model):
    """Name the activation that makes the output of `model`.

    Use it to learn whether a classifier returns logits or probabilities. Nested models
    and casts at the end are looked through.

    Args:
        model: keras.Model.

    Returns:
        activation: string, as 'softmax', 'sigmoid' or 'linear'; None if it is not
            known, if the model has several outputs, or if it has no graph.

    Raises:
        TypeError: if `model` is not a Keras 3 model.

    Example:

    >>> output_activation(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    'linear'
    """
    _check_is_keras_3(model)
    functional = _functional(model)
    if functional is None or len(functional.outputs) != 1:
        return None
    tensor = functional.outputs[0]
    while (before := _same_values_before(tensor)) is not None:
        tensor = before
    return _activation_name(_producer(tensor).operation)


def _same_values_before(tensor):
    node = _producer(tensor)
    nested = _functional(node.operation)
    if nested is not None:
        return nested.outputs[[id(t) for t in node.outputs].index(id(tensor))]
    return node.arguments.keras_tensors[0] if _is_cast(node.operation) else None


def _is_cast(operation):
    if isinstance(operation, keras.layers.Activation):  # linear, with a dtype.
        return _activation_name(operation) == "linear"
    return isinstance(operation, keras.layers.Identity) or _is_keras(operation, "Cast")


def _activation_name(operation):
    if _is_keras(operation, *_OPERATIONS):
        return _OPERATIONS[type(operation).__name__]
    if isinstance(operation, keras.layers.RNN):  # Its activation is inside the cell.
        return None
    function = getattr(operation, "activation", None)
    name = getattr(function, "__name__", "").removesuffix("_v2")  # tf.nn.softmax
    try:
        keras.activations.get(name)
    except ValueError:
        return None
    return name


def _is_keras(operation, *class_names):
    """Tell Keras's own operations, whose classes are not public, by their names."""
    kind = type(operation)
    return kind.__module__.startswith("keras.") and kind.__name__ in class_names
