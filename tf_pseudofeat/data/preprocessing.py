"""What `fit` and `predict` do to inputs before the layers of a model see them.

A task of KerasHub preprocesses in `fit` and in `predict`, by `preprocess_samples`, and
not in `model(x)`. Other models may have a `predict` of their own. Whoever runs the
layers by themselves has to know of both.
"""

import dataclasses
import inspect

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.data.data_adapters import map_batches, map_lazily

__all__ = [
    "Preprocessed",
    "as_arrays",
    "predict_batch",
    "predicts_otherwise",
    "preprocess_batch",
    "preprocessed",
    "preprocesses",
]

# What makes `predict` give something else than `model(x)`. `call` is not among them:
# `model(x)` goes through it, too.
_PREDICT = (
    "make_predict_function",
    "predict",
    "predict_on_batch",
    "predict_step",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Preprocessed:
    """Data that a running `fit` has preprocessed already.

    Attributes:
        data: what `check_data` accepts.
    """

    data: object


def preprocesses(model):
    """Whether `fit` and `predict` of a model preprocess what they are given."""
    hook = getattr(model, "preprocess_samples", None)
    return callable(hook) and getattr(model, "preprocessor", hook) is not None


def preprocess_batch(model, x):
    """One batch of inputs as the layers of the model see it; symbolic ones as well."""
    if not preprocesses(model):
        return x
    return keras.utils.unpack_x_y_sample_weight(model.preprocess_samples(_listed(x)))[0]


def as_arrays(model, data):
    """Data whose inputs are arrays, also where they are lists of texts or of images.

    Of a model that preprocesses, a tuple or a dict holds several inputs, and a list is
    a single one, as for its `fit`. Data of other models are returned as they are.
    """
    if not preprocesses(model) or isinstance(data, tf.data.Dataset):
        return data
    return map_batches(data, lambda batch: (_arrays(batch[0]), *batch[1:]))


def preprocessed(model, data):
    """Data as the layers of the model see them, each batch when it is read.

    Args:
        model: Keras model.
        data: what `as_arrays` gives.
    """
    if not preprocesses(model):
        return data

    def function(batch):
        x, *rest = batch
        return model.preprocess_samples(_listed(x), *rest)

    return map_lazily(data, function)


def predicts_otherwise(model):
    """Whether `model.predict(x)` may be something else than `model(x)`."""
    return getattr(model, "preprocessor", None) is not None or bool(_own(model))


def predict_batch(model, x):
    """What `model.predict` gives for a batch, as arrays.

    `predict_on_batch` is the faster by far, and is taken unless a `predict` stands in
    the model's class that it would go around.
    """
    own = _own(model)
    if "predict" in own and "predict_on_batch" not in own:
        parameters = inspect.signature(model.predict).parameters.values()
        quiet = any(p.name == "verbose" or p.kind is p.VAR_KEYWORD for p in parameters)
        outputs = model.predict(x, **({"verbose": 0} if quiet else {}))
    else:
        outputs = model.predict_on_batch(_listed(x) if preprocesses(model) else x)
    return keras.tree.map_structure(np.asarray, outputs)


def _own(model):
    """The methods of `_PREDICT` that are not those of `keras.Model`."""
    kind = type(model)
    return {
        name
        for name in _PREDICT
        if name in vars(model) or getattr(kind, name) is not getattr(keras.Model, name)
    }


def _arrays(x):
    return _map_inputs(x, lambda leaf: leaf if hasattr(leaf, "shape") else _array(leaf))


def _array(leaf):
    try:
        return np.asarray(leaf)
    except ValueError as error:
        raise ValueError(
            f"The list of {len(leaf)} inputs cannot become one array: {error}. Pass "
            f"inputs of one shape, or batches of a tf.data.Dataset that have one."
        ) from error


def _listed(x):
    """Inputs with texts as lists of str, the one form that all backends take."""
    return _map_inputs(x, _texts)


def _texts(leaf):
    if not isinstance(leaf, np.ndarray) or leaf.dtype.kind not in "USO":
        return leaf
    return _decoded(leaf.tolist())


def _decoded(value):
    if isinstance(value, list):
        return [_decoded(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


def _map_inputs(x, function):
    """`function` of each input: a list is one, where `keras.tree` sees several."""
    if isinstance(x, tuple):
        return tuple(_map_inputs(one, function) for one in x)
    if isinstance(x, dict):
        return {name: _map_inputs(one, function) for name, one in x.items()}
    return function(x)
