"""Checks of arrays: real numbers, finite ones, and whether features or inputs broke."""

import numpy as np
import tensorflow as tf

__all__ = [
    "check_finite",
    "check_floats",
    "check_real",
    "check_weights",
    "without_overflow",
]

_CHUNK_ROWS = 4096


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
