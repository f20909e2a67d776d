"""One output of a model that has several, with the labels and the loss that are its.

Keras lets outputs, labels, sample weights and losses be a dict by name, a list or tuple
by position, or, for a model with one output, the thing itself. Whatever they are, an
`Output` picks its own out of them.
"""

import dataclasses

import keras

from tf_pseudofeat.data.data_adapters import map_batches
from tf_pseudofeat.splitting.graph import Graph, functional, producer

__all__ = ["Output", "all_outputs", "choose_output", "graph_to"]


@dataclasses.dataclass(frozen=True)
class Output:
    """Which of a model's outputs is meant.

    Attributes:
        names: what it goes by: its key where outputs are a dict, its layer's name.
            Empty for the only output of a model.
        position: its place among the outputs, from 0; None where only the model's own
            code knows.
    """

    names: tuple[str, ...] = ()
    position: int | None = 0

    def of(self, values, what="y", *, optional=False):
        """This output's part of `values`.

        Args:
            values: a dict by name, a list or tuple by position, or something else,
                which is taken to be for this output alone.
            what: what to call `values` in an error.
            optional: give None where a dict has no such name.

        Returns:
            value: the part.

        Raises:
            ValueError: A dict has no such name, or a list or tuple is too short.
        """
        if not isinstance(values, dict | list | tuple):
            return values
        if isinstance(values, dict) and self.names:
            found = [values[name] for name in self.names if name in values]
            if not found and not optional:
                raise ValueError(
                    f"`{what}` is a dict with {sorted(values)}, and {self} is not "
                    f"among them."
                )
            return found[0] if found else None
        flat = keras.tree.flatten(values)
        if self.position is None:
            raise ValueError(
                f"`{what}` is a {type(values).__name__} of {len(flat)}, and {self} is "
                f"not to be found in it; use a dict by name."
            )
        if len(flat) <= self.position:
            raise ValueError(
                f"`{what}` is a {type(values).__name__} of {len(flat)}, and {self} is "
                f"number {self.position}, counted from 0."
            )
        return flat[self.position]

    def weights(self, model):
        """All variables that this output of a model with a graph depends on."""
        layers = (node.operation for node in graph_to(model, self).nodes)
        return [weight for layer in layers for weight in getattr(layer, "weights", [])]

    def __str__(self):
        return f"output '{self.names[0]}'" if self.names else "the only output"

    def data(self, data):
        """Training data with the labels and weights of this output alone.

        Args:
            data: `tf.data.Dataset`, `keras.utils.PyDataset` or tuple of arrays.

        Returns:
            data: of the same kind; the same object where there is nothing to choose.
        """
        return map_batches(data, self.batch) if self.names else data

    def batch(self, batch):
        """One batch, or all arrays, with the labels and weights of this output."""
        x, y, *weight = batch
        y = self.of(y)
        weight = [self.of(w, "sample_weight", optional=True) for w in weight]
        return (x, y, *(w for w in weight if w is not None))


def choose_output(model, output=None):
    """The `Output` of a model that is meant, by name where there are several.

    Raises:
        TypeError: `output` is not a string.
        ValueError: There are several outputs and none is named, or no such one.
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
            if output in known:  # a key goes before the name of another's layer
                return one
    names = ", ".join(repr(one.names[0]) for one in outputs)
    if output is not None:
        raise ValueError(
            f"Model '{model.name}' has no output '{output}'; its outputs: {names}."
        )
    raise ValueError(
        f"Model '{model.name}' has {len(outputs)} outputs, {names}. Pass output= to "
        f"split_at, and the split on, to say whose labels name the classes and whose "
        f"head is to be retrained."
    )


def graph_to(model, output=None, prefix=""):
    """The `Graph` of a model, up to one `Output`; None for all of them."""
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
