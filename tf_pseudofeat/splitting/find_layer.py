"""Finds the call of a layer by its name, such as 'backbone/features'."""

import difflib

from tf_pseudofeat.splitting.graph import Graph, functional, producer

__all__ = ["choose_call", "find_calls", "without_last_layer"]


def find_calls(graph, layer_name):
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
    inside = find_calls(Graph(nested, f"{prefix}{name}/"), rest)
    return [(node, *call) for node in nodes for call in inside]


def _unknown_layer(graph, layer_name):
    message = f"Model '{graph.name}' has no layer '{layer_name}' in it"
    paths = _paths(graph)
    if layer_name in _paths(Graph(graph.functional, graph.prefix)):
        return (
            f"Layer '{graph.prefix}{layer_name}' of model '{graph.name}' is not on a "
            f"path to the chosen output. Layers to split at, from the last: "
            f"{graph.advice()}."
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


def choose_call(calls, layer_name, call_index):
    """Returns the call `call_index`; raises if it is ambiguous or out of range."""
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


def without_last_layer(call):
    """Turns a cut after the last layer of a nested model into one after that model."""
    while len(call) > 1:
        outputs = functional(call[-2].operation).outputs
        if len(outputs) > 1 or producer(outputs[0]) is not call[-1]:
            break
        call = call[:-1]
    return call
