"""Whether the two halves of a split model compute what the model computes."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.keras_internals import kept_with
from tf_pseudofeat.core.tracing import compiled, inference
from tf_pseudofeat.splitting.graph import Graph, functional, layers_inside
from tf_pseudofeat.splitting.split_checks import masked_message

__all__ = [
    "default_tolerance",
    "largest_difference",
    "notes_of_inputs",
    "outputs_of_all",
]

_TOLERANCE = {"float16": 1e-2, "bfloat16": 5e-2}  # other dtypes: 1e-4


def outputs_of_all(split, model, x):
    """Returns features, outputs of the model and outputs of the head, as arrays."""
    trunk, model_and_head = _functions(split, model)
    with notes_of_inputs(model, x):
        features = trunk(x)
    if trunk.is_masked:
        raise ValueError(masked_message(split.layer_name))
    with notes_of_inputs(model, x):
        expected, received = model_and_head(x, features)
    outputs = features, expected, received
    return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)


def _functions(split, model):
    """Compiled functions of the trunk and of model and head.

    They are kept until the split or the variables change, or the model is compiled
    anew, as Keras asks where attributes of layers have changed.
    """
    optimizer = getattr(model, "optimizer", None)
    asked = split.trunk, split.head, split.output, optimizer, *model.variables

    def make():
        inference(split.trunk, anew=True)
        return compiled(model_and_head)

    def model_and_head(x, features):
        expected = model(x, training=False)
        if split.output is not None:
            expected = split.output.of(expected, "model(x)")
        received = split.head(features, training=False)
        return keras.tree.flatten(expected), keras.tree.flatten(received)

    together = kept_with(model, "_pseudofeat_check", asked, make)
    return inference(split.trunk), together


@contextlib.contextmanager
def notes_of_inputs(model, x):
    """Context manager that notes, on an error, what a model received and takes."""
    try:
        yield
    except Exception as error:
        graph = functional(model)
        takes = "what it was trained on" if graph is None else _described(graph.input)
        error.add_note(
            f"{model.name!r} received as inputs {_described(x)!s:.500}; it takes "
            f"{takes!s:.500}. Pass data as `fit` takes them, (x, y)."
        )
        raise


def _described(inputs):
    """Shapes and dtypes in a structure of arrays."""

    def of_leaf(leaf):
        dtype = getattr(leaf, "dtype", type(leaf).__name__)
        dtype = dtype.name if isinstance(dtype, tf.DType) else dtype
        return f"{dtype} {getattr(leaf, 'shape', '')!s}"

    return keras.tree.map_structure(of_leaf, inputs)


def default_tolerance(model):
    """The largest difference taken for rounding, by the dtypes in a model."""
    if functional(model) is None:
        dtypes = {layer.compute_dtype for layer in (model, *layers_inside(model))}
    else:
        nodes = Graph(model).nodes
        dtypes = {tensor.dtype for node in nodes for tensor in node.outputs}
    return max(_TOLERANCE.get(dtype, 1e-4) for dtype in dtypes)


def largest_difference(expected, received, trained=True):
    """The largest |a - b| / max(1, |a|); NaN where shapes differ or are empty."""
    a = keras.ops.convert_to_numpy(expected).astype("float64")
    b = keras.ops.convert_to_numpy(received).astype("float64")
    if a.shape != b.shape or not a.size:
        return float("nan")
    same = a == b  # the difference of equal infinities is NaN
    if not trained:
        same |= ~np.isfinite(a) & ~np.isfinite(b)
    a, b = a[~same], b[~same]
    return float((abs(a - b) / abs(a).clip(min=1.0)).max(initial=0.0))
