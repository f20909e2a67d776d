"""The preprocessing that `fit` and `predict` apply before the layers of a model.

KerasHub tasks preprocess in `fit` and `predict`, by `preprocess_samples`, but not in
`model(x)`. Other models may override `predict`. Code that calls layers directly has to
handle both.
"""

import dataclasses
import inspect

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.data.map_batches import map_batches, map_lazily

__all__ = [
    "Preprocessed",
    "as_arrays",
    "overrides_predict",
    "predict_batch",
    "preprocess_batch",
    "preprocessed",
    "preprocesses",
]

# Methods that can make `predict` differ from `model(x)`. Not `call`, which `model(x)`
# uses, too.
_PREDICT = (
    "make_predict_function",
    "predict",
    "predict_on_batch",
    "predict_step",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Preprocessed:
    """Data that a running `fit` has already preprocessed.

    Attributes:
        data: what `check_data` accepts.
    """

    data: object


def preprocesses(model):
    """Whether `fit` and `predict` of a model preprocess their inputs."""
    hook = getattr(model, "preprocess_samples", None)
    return callable(hook) and getattr(model, "preprocessor", hook) is not None


def preprocess_batch(model, x):
    """Preprocesses one batch of inputs, which may be symbolic tensors."""
    if not preprocesses(model):
        return x
    return keras.utils.unpack_x_y_sample_weight(model.preprocess_samples(_listed(x)))[0]


def as_arrays(model, data):
    """Converts lists of texts or images in the inputs to arrays.

    For a model that preprocesses, a tuple or a dict holds several inputs and a list is
    a single one, as in its `fit`. For other models, data are returned unchanged.
    """
    if not preprocesses(model) or isinstance(data, tf.data.Dataset):
        return data
    return map_batches(data, lambda batch: (_arrays(batch[0]), *batch[1:]))


def preprocessed(model, data):
    """Returns data that are preprocessed batch by batch as they are read.

    Args:
        model: Keras model.
        data: what `as_arrays` returns.
    """
    if not preprocesses(model):
        return data

    def function(batch):
        x, *rest = batch
        return model.preprocess_samples(_listed(x), *rest)

    return map_lazily(data, function)


def overrides_predict(model):
    """Whether `model.predict(x)` may differ from `model(x)`."""
    return getattr(model, "preprocessor", None) is not None or bool(_own(model))


def predict_batch(model, x):
    """Returns what `model.predict` returns for a batch, as arrays.

    Uses `predict_on_batch`, which is much faster, unless the model's class overrides
    `predict`.
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
    """The methods of `_PREDICT` that the model overrides."""
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
            f"inputs of one shape, or a tf.data.Dataset of batches of one shape."
        ) from error


def _listed(x):
    """Converts texts to lists of str, the form that all backends accept."""
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
    """Maps a function over inputs; unlike `keras.tree`, a list is a single input."""
    if isinstance(x, tuple):
        return tuple(_map_inputs(one, function) for one in x)
    if isinstance(x, dict):
        return {name: _map_inputs(one, function) for name, one in x.items()}
    return function(x)
