"""The graph of a Keras model: its nodes in order, and where everything meets.

A node is one call of an operation (a layer, or a bare `keras.ops` function). Keras
keeps its graph in private attributes; no other file of this package touches those.
"""

import weakref

import keras

__all__ = [
    "MOST_NAMES",
    "Graph",
    "call_again",
    "check_is_keras_3",
    "check_stateless",
    "functional",
    "known_splits",
    "layers_inside",
    "mask",
    "producer",
    "sources",
    "validation_data_of_fit",
]

# Names that a list in an error holds; networks have hundreds of layers.
MOST_NAMES = 5


# The seam: all that is touched of Keras's private parts is touched here.


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


def sources(node):
    """The nodes whose tensors `node` reads."""
    return [producer(tensor) for tensor in node.arguments.keras_tensors]


def call_again(node, tensors):
    """Repeats the call `node` on new tensors, {id of the old one: the new one}."""
    args, kwargs = node.arguments.fill_in(tensors)
    return node.operation(*args, **kwargs)


def known_splits(model, call):
    """The splits of `model` made so far, {what was asked: Split}, to read or add to.

    They hang on a node of the graph, so they live as long as the layers they share and
    keep nothing else alive. A model that grows gets new nodes, so none is ever stale.
    """
    if not hasattr(call[0], "_pseudofeat_splits"):
        call[0]._pseudofeat_splits = weakref.WeakKeyDictionary()
    return call[0]._pseudofeat_splits.setdefault(model, {})


def layers_inside(layer):
    """All layers in a model or composite layer, at any depth."""
    return list(layer._flatten_layers(include_self=False, recursive=True))


def mask(tensor):
    """The Keras mask that travels with `tensor`, or None."""
    return getattr(tensor, "_keras_mask", None)


# The graph.


class Graph:
    """The nodes of one model, each after all that it reads.

    Attributes:
        name: of the model, which is not that of the Functional model in a Sequential.
        functional: the Functional model that holds the graph.
        prefix: the path that leads to it, "backbone/"; empty for the outermost model.
        output: the tensors that matter, in any structure; by default all that the model
            returns.
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
        """The name of the layer that `node` calls, from the outermost model on."""
        return self.prefix + node.operation.name

    def calls(self, node):
        """The nodes that call the same layer as `node`."""
        return [other for other in self.nodes if other.operation is node.operation]

    def separating(self):
        """The nodes that every path from the inputs to the outputs goes through.

        In topological order, a node separates if and only if no edge jumps over it. An
        input ends an edge from before the first node; an output starts an edge to
        behind the last.
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
        """Says, in words, what reaches the outputs without going through `cut`."""
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
        """Why what `node` returns cannot be the features: a key of words, or ""."""
        if len(node.outputs) > 1:
            return "several outputs"
        if node not in self.read:
            return "output layer"
        if not keras.backend.is_float_dtype(node.outputs[0].dtype):
            return "no floats"
        return "mask" if mask(node.outputs[0]) is not None else ""

    def advice(self, near=None, only_after=False):
        """Names the layers to split at, the nearest to `near` (or to the end) first."""
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
        if not useful and functional(last) is not None:  # All of it is one backbone.
            return Graph(last, f"{self.prefix}{last.name}/").advice()
        return ", ".join(map(self._quoted, useful[:MOST_NAMES])) or "none"

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
            stack.extend((source, False) for source in reversed(sources(node)))
    return nodes


# What has no such graph.


def validation_data_of_fit(model):
    """The `validation_data` that a running `fit` has used, and how much of it.

    Returns:
        data: a `tf.data.Dataset` or `keras.utils.PyDataset` of batches, or the
            iterator that `fit` was given; None where it has not used any.
        steps: the batches that `fit` reads of it; None for all.
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


def check_is_keras_3(model):
    """Raises a TypeError where `model` is not a Keras 3 model."""
    if isinstance(model, keras.Model):
        return
    if any(base.__module__.startswith("tf_keras") for base in type(model).__mro__):
        raise TypeError(
            f"This is a tf_keras (Keras 2) model, {type(model).__name__}; a Keras 3 "
            "model is needed. Load its file, or rebuild it, with `keras`."
        )
    raise TypeError(f"`model` must be a keras.Model, not {type(model).__name__}.")


def check_stateless(model):
    """Raises for layers that carry state from one batch to the next, at any depth."""
    stateful = [one for one in layers_inside(model) if getattr(one, "stateful", False)]
    if stateful:
        names = ", ".join(repr(layer.name) for layer in stateful[:MOST_NAMES])
        raise ValueError(
            f"{model.name!r} has layers with stateful=True ({names}), whose outputs "
            f"depend on the batches before, and which every call moves on. Build a "
            f"copy with stateful=False, copy.set_weights(model.get_weights()), and "
            f"pass that."
        )
