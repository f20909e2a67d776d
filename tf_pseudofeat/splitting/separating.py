"""The layers at which a model can be split, and the size of each head."""

import dataclasses
import math

import keras

from tf_pseudofeat.core.tables import Page, Table
from tf_pseudofeat.splitting.graph import Graph, check_is_keras_3, functional
from tf_pseudofeat.splitting.outputs import choose_output, graph_to

_MOST_ROWS = 15

__all__ = [
    "SeparatingLayer",
    "SeparatingLayers",
    "separating_layers",
    "usual_layer",
]


@dataclasses.dataclass(frozen=True)
class SeparatingLayer:
    """A layer at which a model can be split.

    Attributes:
        layer_name: what `split_at` takes, "outer/inner" inside a nested model.
        call_index: what `split_at` takes; None if the layer is called once.
        kind: class name of the layer.
        feature_shape: shape of its output, without the batch; None for variable sizes.
        num_features: D, the size of one feature; None if the shape is variable.
        head_parameters: number of trainable weights of the head after it.
        shared: whether the trunk shares some of these weights, for which `retrain_head`
            raises an error.
    """

    layer_name: str
    call_index: int | None
    kind: str
    feature_shape: tuple
    num_features: int | None
    head_parameters: int
    shared: bool

    @property
    def covariance_bytes(self) -> int | None:
        """Size in bytes of the full covariance of one class in float32, or None."""
        return None if self.num_features is None else 4 * self.num_features**2


class SeparatingLayers(Page, tuple):
    """A tuple of `SeparatingLayer`, from the last to the first; prints as a table."""

    @property
    def usual(self) -> SeparatingLayer | None:
        """The `SeparatingLayer` that is the usual choice, or None.

        The last one whose output is a vector `[D]`, or else the last one, with a head
        that has trainable weights and shares none with the trunk.
        """
        useful = [one for one in self if one.head_parameters and not one.shared]
        flat = [one for one in useful if len(one.feature_shape) == 1]
        return next(iter(flat or useful), None)

    def _parts(self):
        usual = self.usual
        header = ("layer", "kind", "feature", "D", "head parameters", "covariance", "")
        shown = list(self[:_MOST_ROWS])
        if usual is not None and usual not in shown:
            shown.append(usual)
        notes = []
        if len(self) > len(shown):
            more = len(self) - len(shown)
            notes.append(f"... {more} more; list(layers) has all")
        notes.append("covariance: of one class, full, in float32")
        if any(layer.shared for layer in shown):
            notes.append("*: shares weights with the trunk, cannot be retrained alone")
        rows = [(*_row(one), "usual" if one is usual else "") for one in shown]
        return [Table(header, rows, left=3, rule=True), "\n".join(notes)]


def separating_layers(
    model: keras.Model, *, output: str | None = None
) -> SeparatingLayers:
    """Lists the layers at which `split_at` can split a model, from the output back.

    Nothing is computed, and the model is not changed. Usually the best layer is the
    last one before the classifier whose covariances fit in memory: the fewer features,
    the better a Gaussian can be estimated from few examples. After an earlier layer the
    head has more to learn. The table shows the last 15, with the usual choice marked.

    Args:
        model: a Keras model, Functional or Sequential, built.
        output: for a model with several outputs, the name of one of them; by default
            all.

    Returns:
        layers: `SeparatingLayers`; its `usual` is the usual choice. Inputs are left
            out,
        though `split_at` accepts them, and so are layers with several outputs, a mask,
        or an output that is not floating point.

    Raises:
        TypeError: `model` is not a Keras 3 model.
        ValueError: The model has no graph, or no such output.

    Examples:
        >>> print(separating_layers(model))
    """
    check_is_keras_3(model)
    if functional(model) is None:
        raise ValueError(
            f"Model '{model.name}' ({type(model).__name__}) has no graph of layers to "
            f"list. Build it if it is Sequential; otherwise pass its two halves as "
            f"Split(trunk, head)."
        )
    chosen = None if output is None else choose_output(model, output)
    return SeparatingLayers(_cuts(graph_to(model, chosen), {}, set(), (0, 1)))


def usual_layer(model, output=None):
    """Returns the name of `SeparatingLayers.usual` of a model.

    Args:
        model: Keras model.
        output: name of one of several outputs.

    Raises:
        TypeError: If `model` is not a Keras 3 model.
        ValueError: If there is no such layer or output, or there are several outputs
            and no name.
    """
    choose_output(model, output)  # raises for several without a name
    usual = separating_layers(model, output=output).usual
    if usual is None or usual.call_index is not None:
        raise ValueError(
            f"{model.name!r} has no usual layer to split at. Pass one of "
            f"separating_layers(model) by name as `layer`, or a Split(trunk, head)."
        )
    return usual.layer_name


def _cuts(graph, after, before, outer):
    """Finds the separating layers of a graph, from its end.

    Args:
        graph: `Graph`.
        after: {id: size} of the trainable weights after the graph.
        before: ids of the weights that are used before it.
        outer: (index, number) of the call of the enclosing model.
    """
    first_read = dict.fromkeys(before, -1)  # {id of a weight: position}
    for position, node in enumerate(graph.nodes):
        for weight in _weights(node):
            first_read.setdefault(weight, position)
    separating, found, after = set(graph.separating()), [], dict(after)
    for position, node in reversed(list(enumerate(graph.nodes))):
        if node in separating and not node.is_input:
            # the end of a nested model is a split of the enclosing model
            if not graph.why_not(node):
                shared = any(first_read.get(id_, math.inf) <= position for id_ in after)
                found.append(_cut(graph, node, after, shared, outer))
            if functional(node.operation) is not None:
                nested = Graph(node.operation, f"{graph.path(node)}/")
                read = {id_ for id_, first in first_read.items() if first < position}
                call = _which_call(graph, node, outer)
                found += _cuts(nested, after, read, call)
        after.update(_weights(node))
    return found


def _cut(graph, node, after, shared, outer):
    which, count = _which_call(graph, node, outer)
    shape = tuple(node.outputs[0].shape[1:])
    return SeparatingLayer(
        layer_name=graph.path(node),
        call_index=which if count > 1 else None,
        kind=type(node.operation).__name__,
        feature_shape=shape,
        num_features=None if None in shape else math.prod(shape),
        head_parameters=sum(after.values()),
        shared=shared,
    )


def _which_call(graph, node, outer):
    """(index, number) of this call, as `split_at` counts calls."""
    calls = graph.calls(node)
    return outer[0] * len(calls) + calls.index(node), outer[1] * len(calls)


def _weights(node):
    """{id: size} of the trainable weights of the layer that a node calls."""
    weights = getattr(node.operation, "trainable_weights", [])
    return {id(weight): math.prod(weight.shape) for weight in weights}


def _row(layer):
    name = layer.layer_name
    if layer.call_index is not None:
        name += f" (call_index={layer.call_index})"
    sizes = ("?" if size is None else str(size) for size in layer.feature_shape)
    number = "?" if layer.num_features is None else f"{layer.num_features:,}"
    head = f"{layer.head_parameters:,}" + ("*" if layer.shared else "")
    return (
        name,
        layer.kind,
        " x ".join(sizes),
        number,
        head,
        _in_words(layer.covariance_bytes),
    )


def _in_words(size):
    if size is None:
        return "?"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.0f} TB"
