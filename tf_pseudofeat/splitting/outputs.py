"""One of the outputs of a model, with its labels and loss.

In Keras, outputs, labels, sample weights and losses are a dict by name, a list or tuple
by position, or, for a model with one output, a single object. An `Output` selects its
part from any of them.
"""

import dataclasses

import keras

from tf_pseudofeat.data.map_batches import map_batches
from tf_pseudofeat.splitting.graph import Graph, functional, producer

__all__ = ["Output", "all_outputs", "choose_output", "graph_to"]


@dataclasses.dataclass(frozen=True)
class Output:
    """One of the outputs of a model.

    Attributes:
        names: its names: its key if outputs are a dict, and the name of its layer.
            Empty for the only output of a model.
        position: its index among the outputs; None if unknown, for a model without a
            graph.
    """

    names: tuple[str, ...] = ()
    position: int | None = 0

    def of(self, values, what="y", *, optional=False):
        """Selects the part of `values` that belongs to this output.

        Args:
            values: a dict by name, a list or tuple by position, or a single object,
                which belongs to this output.
            what: name of `values` in error messages.
            optional: return None if a dict has no such name.

        Returns:
            value: the part.

        Raises:
            ValueError: If a dict has no such name, or a list or tuple is too short.
        """
        if not isinstance(values, dict | list | tuple):
            return values
        if isinstance(values, dict) and self.names:
            found = [values[name] for name in self.names if name in values]
            if not found and not optional:
                raise ValueError(
                    f"`{what}` is a dict with keys {sorted(values)}, which do not "
                    f"include {self}."
                )
            return found[0] if found else None
        flat = keras.tree.flatten(values)
        if self.position is None:
            raise ValueError(
                f"`{what}` is a {type(values).__name__} of {len(flat)}, in which "
                f"{self} cannot be found; use a dict by name."
            )
        if len(flat) <= self.position:
            raise ValueError(
                f"`{what}` is a {type(values).__name__} of {len(flat)}, but {self} has "
                f"index {self.position}."
            )
        return flat[self.position]

    def weights(self, model):
        """All variables that this output of a model with a graph depends on."""
        layers = (node.operation for node in graph_to(model, self).nodes)
        return [weight for layer in layers for weight in getattr(layer, "weights", [])]

    def __str__(self):
        return f"output '{self.names[0]}'" if self.names else "the only output"

    def data(self, data):
        """Selects the labels and weights of this output from training data.

        Args:
            data: `tf.data.Dataset`, `keras.utils.PyDataset` or tuple of arrays.

        Returns:
            data: the same kind of data; the same object if there is nothing to select.
        """
        return map_batches(data, self.batch) if self.names else data

    def batch(self, batch):
        """Selects the labels and weights of this output from a batch or from arrays."""
        x, y, *weight = batch
        y = self.of(y)
        weight = [self.of(w, "sample_weight", optional=True) for w in weight]
        return (x, y, *(w for w in weight if w is not None))


def choose_output(model, output=None):
    """Returns the `Output` of a model, by name if there are several.

    Raises:
        TypeError: If `output` is not a string.
        ValueError: If there are several outputs and no name is given, or no such
            output.
    """
    if not isinstance(output, str | None):
        raise TypeError(
            f"`output` must be the name of an output, not {type(output).__name__}."
        )
    if functional(model) is None:
        return Output() if output is None else Output((output,), None)
    outputs = all_outputs(model)
    if len(outputs) == 1 and output in (None, *outputs[0].names):
        return Output()
    for names in ([one.names[:1] for one in outputs], [one.names for one in outputs]):
        for one, known in zip(outputs, names, strict=True):
            if output in known:  # keys take precedence over names of layers
                return one
    names = ", ".join(repr(one.names[0]) for one in outputs)
    if output is not None:
        raise ValueError(
            f"Model '{model.name}' has no output '{output}'; its outputs: {names}."
        )
    raise ValueError(
        f"Model '{model.name}' has {len(outputs)} outputs, {names}. Pass output= to "
        f"split_at, and pass the split, to choose the output whose labels are the "
        f"classes and whose head is retrained."
    )


def graph_to(model, output=None, prefix=""):
    """The `Graph` of a model up to one `Output`, or up to all if it is None."""
    tensors = None if output is None else output.of(functional(model).outputs)
    return Graph(model, prefix, tensors)


def all_outputs(model):
    """Every `Output` of a model with a graph."""
    model = functional(model)
    layers = [producer(tensor).operation.name for tensor in model.outputs]
    paths = keras.tree.flatten_with_path(model.output)
    outputs = []
    for position, ((path, _), layer) in enumerate(zip(paths, layers, strict=True)):
        key = [str(path[-1])] if path and isinstance(path[-1], str) else []
        unique = [layer] if layers.count(layer) == 1 else [f"{layer}:{position}"]
        outputs.append(Output(tuple(dict.fromkeys(key + unique)), position))
    return outputs
