"""The inputs of data beside those that a model declares: number, dtype, rank, shape.

A Keras model with a graph adds or removes a last axis of 1 of its inputs. What is
compiled for one rank cannot take another, so data get the declared rank here, before a
part of the model sees them.
"""

import operator

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.data.checks import check_batch
from tf_pseudofeat.data.conversion import arrays_in
from tf_pseudofeat.data.frames import some_of
from tf_pseudofeat.data.map_batches import map_as_read
from tf_pseudofeat.data.numeric_inputs import as_numbers, check_texts
from tf_pseudofeat.data.preprocessing import preprocesses
from tf_pseudofeat.splitting.graph import functional, is_optional

__all__ = ["batch_as_declared", "data_as_declared"]


def data_as_declared(model, data, name="data"):
    """Returns data whose inputs are as `model` declares them.

    Numbers in objects become floats, and a last axis of 1 is added or removed.

    Args:
        model: Keras model. Data for a model without a graph, which declares nothing,
            and for one that preprocesses are returned unchanged.
        data: checked data.
        name: name of the argument, for the error message.

    Returns:
        data: the same object if nothing is to change.

    Raises:
        ValueError: If the inputs do not fit the model. Arrays and datasets are checked
            at once, other data as they are read.
    """
    if functional(model) is None or preprocesses(model):
        return data
    known = None
    if isinstance(data, tuple | list):
        x = arrays_in(data)[0]
        known = _with_numbers(model, x, name)
        if known is not x:
            data = (known, *data[1:])
    elif isinstance(data, tf.data.Dataset):
        known = _with_numbers(model, data.element_spec[0], name)
    if known is not None and not any(_changes(model, known, name)):
        return data

    def declared(batch):
        try:
            check_batch(batch, "A batch")
        except ValueError:
            return batch  # for the reader to raise, which knows its number
        x, *rest = batch
        return (batch_as_declared(model, x, name), *rest)

    return map_as_read(data, declared)


def batch_as_declared(model, x, name="data"):
    """Returns one batch of inputs as `model` declares them, see `data_as_declared`.

    Args:
        model: Keras model; inputs of one without a graph are returned unchanged.
        x: inputs, arrays `[B, ...]` in any structure.
        name: name of the argument, for the error message.

    Raises:
        ValueError: If the inputs do not fit the model.
    """
    if functional(model) is None:
        return x
    x = _with_numbers(model, x, name)
    changes = _changes(model, x, name)
    if not any(changes):
        return x
    leaves = zip(changes, keras.tree.flatten(x), strict=True)
    changed = [_CHANGE[change](leaf) for change, leaf in leaves]
    return keras.tree.pack_sequence_as(x, changed)


def _added_axis(leaf):
    return _sliceable(leaf)[..., None]


def _removed_axis(leaf):
    return _sliceable(leaf)[..., 0]


def _sliceable(leaf):
    return np.asarray(leaf) if hasattr(leaf, "iloc") else leaf  # a data frame


# "unknown" is the rank of an input whose batches may have one to change.
_CHANGE = {
    "": lambda leaf: leaf,
    "unknown": lambda leaf: leaf,
    "add": _added_axis,
    "remove": _removed_axis,
}


def _with_numbers(model, x, name):
    """Inputs with numbers where `model` declares them; the same object if it has them.

    Raises ValueError for texts in place of numbers, and for numbers in place of texts.
    """
    leaves, tensors = _paired(model, x, name)
    several = len(leaves) > 1
    numbers = []
    for leaf, tensor in zip(leaves, tensors, strict=True):
        if leaf is not None and tensor is not None:
            holder = _holder(tensor, name, several)
            convert = check_texts if tensor.dtype == "string" else as_numbers
            leaf = convert(leaf, holder)
        numbers.append(leaf)
    if all(map(operator.is_, numbers, leaves)):
        return x
    return keras.tree.pack_sequence_as(x, numbers)


def _changes(model, x, name):
    """What to do with each input, a list of keys of `_CHANGE`; raises if none fits."""
    leaves, tensors = _paired(model, x, name)
    several = len(leaves) > 1
    return [
        _change(leaf, tensor, name, several)
        for leaf, tensor in zip(leaves, tensors, strict=True)
    ]


def _paired(model, x, name):
    """The inputs and what is declared for each; two lists, empty if they are no arrays.

    Whatever is no array is for the checks of data to report.
    """
    leaves = keras.tree.flatten(x)
    if any(leaf is not None and not hasattr(leaf, "shape") for leaf in leaves):
        return [], []
    return leaves, _declared(functional(model), x, leaves, name)


def _holder(tensor, name, several):
    """The beginning of an error message about one input."""
    return f"`{name}` has " + (f"the input {tensor.name!r}" if several else "inputs")


def _declared(graph, x, leaves, name):
    """The declared input for each leaf of `x`; None where it is not known."""
    if isinstance(x, dict):
        by_key = isinstance(graph.input, dict)
        if by_key and any(map(keras.tree.is_nested, graph.input.values())):
            known = dict(keras.tree.flatten_with_path(graph.input))
            return [known.get(path) for path, _ in keras.tree.flatten_with_path(x)]
        by_name = graph.input if by_key else {one.name: one for one in graph.inputs}
        _check_names(by_name, x, name)
        paths = [path for path, _ in keras.tree.flatten_with_path(x)]
        if all(len(path) == 1 for path in paths) and not (
            by_key and set(x) - {*by_name}
        ):
            return [by_name.get(path[0]) for path in paths]
        return [None] * len(leaves)
    if len(leaves) != len(graph.inputs):
        raise ValueError(_count_message(graph, leaves, name))
    return graph.inputs


def _check_names(by_name, x, name):
    needed = [key for key, tensor in by_name.items() if not is_optional(tensor)]
    missing = [key for key in needed if key not in x]
    if missing:
        raise ValueError(
            f"`{name}` has inputs {some_of(x)}, and the model takes inputs "
            f"{some_of(by_name)}; missing: {some_of(missing)}. Use the names of the "
            f"model's inputs as keys."
        )


def _count_message(graph, leaves, name):
    names, few = [tensor.name for tensor in graph.inputs], len(leaves)
    shapes = [_shown(_shape(leaf), "N") for leaf in leaves]
    message = (
        f"`{name}` has {few} {'array' if few == 1 else 'arrays'} of inputs, of "
        f"{'shape' if few == 1 else 'shapes'} {', '.join(map(str, shapes[:5]))}, where "
        f"the model takes {len(names)}: {some_of(names)}. "
    )
    if len(names) == 1:
        return f"{message}Pass one array as x, ((x), y)."
    if few == 1 and hasattr(leaves[0], "columns"):
        return f"{message}Pass the columns of the data frame by name, (dict(frame), y)."
    return (
        f"{message}Pass all inputs as the first item, ((a, b), y) or "
        f"({{name: array}}, y): the second item are the labels."
    )


def _change(leaf, tensor, name, several):
    """A key of `_CHANGE` for one input; raises if its shape does not fit."""
    if leaf is None or tensor is None:
        return ""
    shape, declared = _shape(leaf), list(tensor.shape)
    if shape is None:
        return "unknown"
    change = ""
    if len(shape) == len(declared) - 1 and declared[-1] == 1:
        change, fitted = "add", [*shape, 1]
    elif len(shape) == len(declared) + 1 and shape[-1] == 1:
        change, fitted = "remove", shape[:-1]
    else:
        fitted = shape
    pairs = zip(fitted[1:], declared[1:], strict=False)
    if len(fitted) == len(declared) and all(
        None in pair or pair[0] == pair[1] for pair in pairs
    ):
        return "" if _is_packed(leaf) else change
    columns = getattr(leaf, "columns", None)
    columns = "" if columns is None else f" (columns {some_of(columns)})"
    raise ValueError(
        f"{_holder(tensor, name, several)} of shape {_shown(shape, 'N')}{columns}, "
        f"where the model takes {_shown(declared)}. Prepare the inputs as those that "
        f"the model was trained on."
    )


def _is_packed(leaf):
    """Whether TensorFlow, which has no such indexing for it, keeps the array packed."""
    return isinstance(
        leaf,
        tf.RaggedTensor | tf.SparseTensor | tf.RaggedTensorSpec | tf.SparseTensorSpec,
    )


def _shape(leaf):
    """The shape as a list, None if its rank is unknown."""
    shape = leaf.shape
    if isinstance(shape, tf.TensorShape):
        return None if shape.rank is None else shape.as_list()
    return list(shape)


def _shown(shape, batch="None"):
    """A shape for an error message, with a name for the number of examples."""
    if shape is None:
        return "unknown"
    return "[" + ", ".join([batch, *map(str, shape[1:])][: len(shape)]) + "]"
