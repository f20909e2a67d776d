"""The graph of a Keras model: nodes in topological order, and separating nodes.

A node is one call of an operation (a layer, or a `keras.ops` function). Keras keeps its
graph in private attributes; only this file accesses them.
"""

import weakref

import keras

from tf_pseudofeat.core.keras_internals import mask

__all__ = [
    "MOST_NAMES",
    "Graph",
    "check_is_keras_3",
    "check_stateless",
    "functional",
    "is_optional",
    "known_splits",
    "layers_inside",
    "producer",
    "repeat_call",
    "sources",
    "validation_data_of_fit",
]

# Most names in an error message; networks have hundreds of layers.
MOST_NAMES = 5


# Access to private attributes of Keras.


def functional(model):
    """The Functional model that holds the graph of `model`, or None."""
    if isinstance(model, keras.Sequential):
        return model._functional
    has_graph = isinstance(model, keras.Model) and isinstance(model, keras.Function)
    return model if has_graph else None


def producer(tensor):
    """The node that made `tensor`."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def is_optional(tensor):
    """Whether a model may be called without the input `tensor`."""
    return getattr(producer(tensor).operation, "optional", False)


def sources(node):
    """The nodes whose tensors `node` reads."""
    return [producer(tensor) for tensor in node.arguments.keras_tensors]


def repeat_call(node, tensors):
    """Repeats the call `node` on new tensors, {id of the old one: the new one}."""
    args, kwargs = node.arguments.fill_in(tensors)
    return node.operation(*args, **kwargs)


def known_splits(model, call):
    """The cache of splits of `model`, {arguments: Split}.

    It is an attribute of a node of the graph, so it lives as long as the shared layers
    and keeps nothing else alive. A model that changes gets new nodes, so it is never
    stale.
    """
    if not hasattr(call[0], "_pseudofeat_splits"):
        call[0]._pseudofeat_splits = weakref.WeakKeyDictionary()
    return call[0]._pseudofeat_splits.setdefault(model, {})


def layers_inside(layer):
    """All layers in a model or composite layer, at any depth."""
    return list(layer._flatten_layers(include_self=False, recursive=True))


# The graph.


class Graph:
    """The nodes of one model in topological order.

    Attributes:
        name: name of the model; in a Sequential, not that of its Functional model.
        functional: the Functional model that holds the graph.
        prefix: path of the model, such as "backbone/"; empty for the outermost model.
        output: the relevant output tensors, in any structure; by default all outputs.
        nodes: the nodes that the outputs need, in topological order.
        outputs: the nodes that make the outputs.
        read: the nodes whose tensors another node reads.
        position: {node: its place in `nodes`}.
    """

    def __init__(self, model, prefix="", output=None):
        self.name = model.name
        self.functional = functional(model)
        self.prefix = prefix
        self.output = self.functional.output if output is None else output
        self.outputs = list(map(producer, keras.tree.flatten(self.output)))
        self.nodes = _in_order(self.outputs)
        self.read = {source for node in self.nodes for source in sources(node)}
        self.position = {node: i for i, node in enumerate(self.nodes)}

    def path(self, node):
        """The path of the layer that `node` calls, from the outermost model."""
        return self.prefix + node.operation.name

    def calls(self, node):
        """The nodes that call the same layer as `node`."""
        return [other for other in self.nodes if other.operation is node.operation]

    def separating(self):
        """The nodes that every path from the inputs to the outputs goes through.

        In topological order, a node separates if and only if no edge skips it. An input
        ends an edge from before the first node; an output starts an edge to after the
        last.
        """
        last_reader = dict.fromkeys(self.outputs, len(self.nodes))
        for node in reversed(self.nodes):
            for source in sources(node):
                last_reader.setdefault(source, self.position[node])
        separating = []
        furthest = max(self.position[node] for node in self.nodes if node.is_input)
        for node in self.nodes:
            if furthest <= self.position[node]:
                separating.append(node)
            furthest = max(furthest, last_reader[node])
        return separating

    def bypasses(self, cut):
        """Describes the paths that reach the outputs without going through `cut`."""
        through, found = {cut}, []
        for node in self.nodes:
            if node is cut or through.isdisjoint(sources(node)):
                continue
            through.add(node)
            found += [
                f"'{self.path(node)}' reads '{self.path(source)}'"
                for source in sources(node)
                if source not in through
            ]
        found += [
            f"the output '{self.path(node)}' does not depend on it"
            for node in self.outputs
            if node not in through
        ]
        return list(dict.fromkeys(found))

    def why_not(self, node):
        """Why the output of `node` cannot be the features: a keyword, or ""."""
        if len(node.outputs) > 1:
            return "several outputs"
        if node not in self.read:
            return "output layer"
        if not keras.backend.is_float_dtype(node.outputs[0].dtype):
            return "no floats"
        return "mask" if mask(node.outputs[0]) is not None else ""

    def advice(self, near=None, only_after=False):
        """Lists the layers to split at, nearest to `near` (or to the end) first."""
        origin = self.position.get(near, len(self.nodes))
        useful = [
            node
            for node in self.separating()
            if node is not near
            and not self.why_not(node)
            and not node.is_input
            and not (only_after and self.position[node] < origin)
        ]
        useful.sort(key=lambda node: abs(self.position[node] - origin))
        last = self.nodes[-1].operation
        if (
            not useful and functional(last) is not None
        ):  # the whole model is one backbone
            return Graph(last, f"{self.prefix}{last.name}/").advice()
        return ", ".join(map(self._quoted, useful[:MOST_NAMES])) or "none"

    def _quoted(self, node):
        calls = self.calls(node)
        index = f" (call_index={calls.index(node)})" if len(calls) > 1 else ""
        return f"'{self.path(node)}'{index}"


def _in_order(outputs):
    nodes, done = [], set()
    stack = [(node, False) for node in reversed(outputs)]
    while stack:  # no recursion: networks can be deeper than Python's stack
        node, sources_done = stack.pop()
        if node in done:
            continue
        if sources_done:
            done.add(node)
            nodes.append(node)
        else:
            stack.append((node, True))
            stack.extend((source, False) for source in reversed(sources(node)))
    return nodes


# Checks, and the data of `fit`.


def validation_data_of_fit(model):
    """Returns the `validation_data` of a running `fit`.

    Returns:
        data: a `tf.data.Dataset` or `keras.utils.PyDataset` of batches, or the iterator
            that was passed to `fit`; None if `fit` has not used any yet.
        steps: the number of batches that `fit` reads; None for all.
    """
    iterator = getattr(model, "_eval_epoch_iterator", None)
    adapter = getattr(iterator, "data_adapter", None)
    steps = getattr(iterator, "steps_per_epoch", None)
    if hasattr(adapter, "generator"):
        return adapter.generator(), steps
    data = getattr(adapter, "py_dataset", None)
    try:
        data = adapter.get_tf_dataset() if data is None else data
    except (AttributeError, NotImplementedError):
        return None, None
    return data, None if steps is None else int(steps)


def check_is_keras_3(model, name="model"):
    """Raises TypeError if `model`, passed as the argument `name`, is not of Keras 3."""
    if isinstance(model, keras.Model):
        return
    if any(base.__module__.startswith("tf_keras") for base in type(model).__mro__):
        raise TypeError(
            f"`{name}` is a tf_keras (Keras 2) model, {type(model).__name__}; a Keras "
            "3 model is needed. Load or rebuild it with `keras`."
        )
    alone = isinstance(model, keras.layers.Layer) and (
        " For a single layer pass keras.Sequential([keras.Input(shape), layer])."
    )
    inner = isinstance(getattr(model, "model_", None), keras.Model) and (
        " Pass its attribute `model_`."
    )
    raise TypeError(
        f"`{name}` must be a keras.Model, not {type(model).__name__}."
        f"{alone or inner or ''}"
    )


def check_stateless(model):
    """Raises ValueError if a layer, at any depth, carries state between batches."""
    stateful = [one for one in layers_inside(model) if getattr(one, "stateful", False)]
    if stateful:
        names = ", ".join(repr(layer.name) for layer in stateful[:MOST_NAMES])
        raise ValueError(
            f"{model.name!r} has layers with stateful=True ({names}), whose outputs "
            f"depend on earlier batches. Build a copy with stateful=False, "
            f"copy.set_weights(model.get_weights()), and pass that."
        )
