"""Checks that arrays hold finite real numbers, and where non-finite ones come from."""

import numpy as np
import tensorflow as tf

__all__ = [
    "check_any_weight",
    "check_finite",
    "check_floats",
    "check_real",
    "check_weights",
    "count_nan_rows",
    "mask_overflow",
]

_CHUNK_ROWS = 4096


def check_finite(features, name="The features", inputs=None, start=0):
    """Raises ValueError if features are not real, or are NaN or infinite.

    `inputs`, arrays `[N, ...]` in any structure that the features were computed from,
    tell whether the inputs or the layers are the cause. `start` is the row of the data
    that the first of these rows is.
    """
    check_real(features, name)
    chunks = range(0, len(features), _CHUNK_ROWS)
    if all(np.isfinite(features[i : i + _CHUNK_ROWS]).all() for i in chunks):
        return
    wrong = np.flatnonzero(~_finite_rows(features))
    rows = f"{len(features)} rows" + (f" from row {start}" if start else "")
    raise ValueError(
        f"{name} are NaN or infinite in {wrong.size} of {rows}, the first is row "
        f"{start + wrong[0]}. {_where_from(inputs, wrong, start)}"
    )


def check_floats(features, layer_name):
    """Raises ValueError if features are integers, such as word ids, or booleans."""
    if features.dtype.kind != "f" and features.dtype.name != "bfloat16":
        raise ValueError(
            f"The features at '{layer_name}' are {features.dtype}, but a Gaussian "
            f"needs floats. Split after the layer that turns them into floats, such as "
            f"an Embedding."
        )


def count_nan_rows(inputs, sample_weight=None):
    """Counts the examples with a NaN among arrays `[N, ...]` in any structure.

    Only NumPy arrays of floats and data frames are looked at, a part at a time.
    Examples of weight 0 do not count.
    """
    found = None
    for leaf in tf.nest.flatten(inputs):
        rows = _nan_rows(leaf)
        if rows is not None:
            found = rows if found is None else found | rows
    if found is None:
        return 0
    weight = True if sample_weight is None else np.asarray(sample_weight).ravel() > 0
    return int(np.count_nonzero(found & weight))


def _nan_rows(leaf):
    """A mask `[N]`; None of what is no array of floats."""
    if hasattr(leaf, "isna"):  # of pandas
        rows = leaf.isna().to_numpy()
        return rows if rows.ndim == 1 else rows.any(axis=1)
    if not isinstance(leaf, np.ndarray) or leaf.dtype.kind != "f" or not leaf.ndim:
        return None
    parts = (leaf[i : i + _CHUNK_ROWS] for i in range(0, len(leaf), _CHUNK_ROWS))
    return np.concatenate(
        [np.isnan(part).reshape(len(part), -1).any(axis=1) for part in parts]
    )


def mask_overflow(features, inputs):
    """Replaces non-finite rows whose inputs are finite by zeros."""
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


def _where_from(inputs, wrong, start):
    """The advice for features that are not finite in the rows `wrong`."""
    if inputs is None:
        return "Clean the inputs, or look for an overflow (float16?) before the layer."
    finite = _have_finite_inputs(inputs, wrong)
    if finite.all():
        return (
            "The inputs of these rows are finite, so the layers in between caused it: "
            "look for an overflow (float16?)."
        )
    return (
        f"So are the inputs of {int((~finite).sum())} of them, the first is row "
        f"{start + wrong[~finite][0]}: clean the inputs."
    )


def _finite_rows(array):
    return np.isfinite(array).reshape(len(array), -1).all(axis=1)


def check_weights(sample_weight, count):
    """Raises ValueError unless each example has one finite, non-negative weight."""
    check_real(sample_weight, "`sample_weight`")
    if sample_weight.shape != (count,):
        raise ValueError(
            f"`sample_weight` must have one number for each of the {count} examples, "
            f"shape [{count}]; received shape {list(sample_weight.shape)}."
        )
    wrong = np.flatnonzero(~((sample_weight >= 0) & np.isfinite(sample_weight)))
    if wrong.size:
        raise ValueError(
            f"Sample weights must be finite and non-negative; example {wrong[0]} has "
            f"weight {sample_weight[wrong[0]]} ({wrong.size} such examples of "
            f"{count}). Use weight 0 for examples that should not count."
        )


def check_any_weight(sample_weight):
    """Raises ValueError if all weights are 0."""
    if not np.any(sample_weight):
        raise ValueError(
            f"All {len(sample_weight)} sample weights are 0, so there is no example. "
            f"Give some a positive weight."
        )


def check_real(array, name):
    """Raises ValueError if the dtype is not real: strings, objects, complex, dates."""
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise ValueError(
            f"{name} must be real numbers; received dtype {array.dtype}. Convert them "
            f"first."
        )
