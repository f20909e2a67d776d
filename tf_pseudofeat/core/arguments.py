"""What a user passes: numbers as they are needed, or refused with what came."""

import inspect
import sys

import keras
import numpy as np
import tensorflow as tf

__all__ = [
    "check_finite",
    "check_floats",
    "check_is_object",
    "check_rank",
    "check_real",
    "check_weights",
    "is_infinite",
    "resolve_rank",
    "stateless_seed",
    "whole_number",
    "without_overflow",
]

_CHUNK_ROWS = 4096
_DEFAULT_RANK = 16


def whole_number(name, value):
    """A number from 1, such as of epochs, as an int: 3, 3.0, a scalar array or tensor.

    Raises:
        ValueError: Anything else, NaN and infinity included.
    """
    try:
        number = int(value)
        if number == value and number >= 1:
            return number
    except (OverflowError, TypeError, ValueError):
        pass
    raise ValueError(f"`{name}` is a whole number from 1; received {value!r}.")


def check_is_object(name, value, arguments=""):
    """Raises TypeError for a class where an object of it is needed: SMOTE for SMOTE().

    Args:
        name: of the argument.
        value: what came.
        arguments: what the class is called with, for the error.
    """
    if inspect.isclass(value):
        raise TypeError(
            f"`{name}` is an object; received the class {value.__name__}. Pass "
            f"{value.__name__}({arguments})."
        )


def check_rank(covariance_type, rank):
    """Raises for a rank that is no whole number from 1, or not of "low_rank"."""
    if rank is None:
        return
    if covariance_type != "low_rank":
        raise ValueError(
            f"`rank` is the number of directions of covariance_type='low_rank'; "
            f"received rank={rank!r} with {covariance_type!r}. Leave it out."
        )
    whole_number("rank", rank)


def resolve_rank(rank, feature_size):
    """The number of directions to keep of D features; 16 unless D is less."""
    if rank is None:
        return min(_DEFAULT_RANK, feature_size)
    rank = whole_number("rank", rank)
    if rank > feature_size:
        raise ValueError(
            f"`rank` is at most the number of features, {feature_size}; received "
            f"{rank}. Pass a smaller one, or covariance_type='full', which has all "
            f"directions."
        )
    return rank


def stateless_seed(seed):
    """A seed as TensorFlow's stateless functions take it, int32 `[2]`.

    Of numbers the lowest 31 bits count. A single one is refused: that would be a
    stateful seed, with which a graph and a resumed run draw other numbers.
    """
    if tf.is_tensor(seed):
        fits = seed.dtype.is_integer and seed.shape.is_compatible_with([2])
    else:
        numbers = np.asarray(seed)
        fits = numbers.shape == (2,) and numbers.dtype.kind in "iu"
    if not fits:
        raise ValueError(
            f"`seed` must be two whole numbers, such as (1, 2); received {seed!r}."
        )
    if not tf.is_tensor(seed):
        seed = numbers.astype(np.int64) % 2**31
    return tf.cast(seed, tf.int32)


def is_infinite(data):
    """Whether `data` never ends, as far as it says."""
    if isinstance(data, tf.data.Dataset):
        return bool(data.cardinality() == tf.data.INFINITE_CARDINALITY)
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    try:
        return len(data) >= sys.maxsize  # as Grain's `repeat()` has it
    except TypeError:
        return False


def check_finite(features, name="The features", inputs=None):
    """Raises for features that are no real numbers, NaN, or infinite.

    `inputs`, which they were computed from, `[N, ...]` in any structure, tell which of
    the two is to blame.
    """
    check_real(features, name)
    chunks = range(0, len(features), _CHUNK_ROWS)
    if all(np.isfinite(features[i : i + _CHUNK_ROWS]).all() for i in chunks):
        return
    wrong = np.flatnonzero(~_finite_rows(features))
    raise ValueError(
        f"{name} are NaN or infinite in {wrong.size} of {len(features)} rows, the "
        f"first is row {wrong[0]}. {_where_from(inputs, wrong)}"
    )


def check_floats(features, layer_name):
    """Raises for features of whole numbers, such as ids of words, or of booleans."""
    if features.dtype.kind != "f" and features.dtype.name != "bfloat16":
        raise ValueError(
            f"The features at '{layer_name}' are {features.dtype}, and a Gaussian is "
            f"of floats. Split behind the layer that makes floats of them, such as an "
            f"Embedding."
        )


def without_overflow(features, inputs):
    """Features with zeros in the rows that are not finite and whose inputs are."""
    wrong = np.flatnonzero(~_finite_rows(features))
    if not wrong.size:
        return features
    features = features.copy()
    features[wrong[_have_finite_inputs(inputs, wrong)]] = 0
    return features


def _have_finite_inputs(inputs, rows):
    finite = np.ones(len(rows), bool)
    for leaf in map(np.asarray, tf.nest.flatten(inputs)):
        if leaf.ndim and (leaf.dtype.kind == "f" or leaf.dtype.name == "bfloat16"):
            finite &= _finite_rows(leaf[rows])
    return finite


def _where_from(inputs, wrong):
    """What to do about features that are not finite in the rows `wrong`."""
    if inputs is None:
        return "Clean the inputs, or look for an overflow (float16?) before the layer."
    finite = _have_finite_inputs(inputs, wrong)
    if finite.all():
        return (
            "The inputs of these rows are finite, so the layers in between made it: "
            "look for an overflow (float16?)."
        )
    return (
        f"So are the inputs of {int((~finite).sum())} of them, the first is row "
        f"{wrong[~finite][0]}: clean the inputs."
    )


def _finite_rows(array):
    return np.isfinite(array).reshape(len(array), -1).all(axis=1)


def check_weights(sample_weight, count):
    """Raises for weights that are not one finite number from 0 for each example."""
    check_real(sample_weight, "`sample_weight`")
    if sample_weight.shape != (count,):
        raise ValueError(
            f"`sample_weight` has one number for each of the {count} examples, shape "
            f"[{count}]; received shape {list(sample_weight.shape)}."
        )
    wrong = np.flatnonzero(~((sample_weight >= 0) & np.isfinite(sample_weight)))
    if wrong.size:
        raise ValueError(
            f"Sample weights are finite and not below 0; example {wrong[0]} has weight "
            f"{sample_weight[wrong[0]]} ({wrong.size} such examples of {count}). Give "
            f"an example that is not to count the weight 0."
        )


def check_real(array, name):
    """Refuses arrays of strings, objects, complex numbers, times."""
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise ValueError(
            f"{name} must be real numbers; received dtype {array.dtype}. Convert them "
            f"first."
        )
