"""Casts continuous draws to the dtype of the features."""

import warnings

import numpy as np
import tensorflow as tf

__all__ = ["cast_draws", "check_continuous", "warn_of_rounding"]


def cast_draws(draws, dtype):
    """Casts draws `[N, ...]` to the dtype of features.

    For integer dtypes they are rounded to the nearest integer and clipped to the range.

    Args:
        draws: floats, an array or a tensor.
        dtype: real NumPy dtype.

    Returns:
        cast: an array or a tensor, like `draws`.
    """
    dtype = np.dtype(dtype)
    if tf.is_tensor(draws):
        whole = _is_whole(dtype)
        return _whole_tensor(draws, dtype) if whole else tf.saturate_cast(draws, dtype)
    if not _is_whole(dtype):
        return draws.astype(dtype, copy=False)
    limits, draws = np.iinfo(dtype), np.rint(draws)
    # Float64 cannot hold the largest int64, so the limits are assigned, not clipped to.
    below, above = draws <= float(limits.min), draws >= float(limits.max)
    cast = np.where(below | above, 0, draws).astype(dtype)
    cast[below], cast[above] = limits.min, limits.max
    return cast


def _whole_tensor(draws, dtype):
    # `tf.saturate_cast` wraps values above the largest int64 to the smallest.
    limits, draws = np.iinfo(dtype), tf.round(draws)
    below, above = draws <= float(limits.min), draws >= float(limits.max)
    cast = tf.cast(tf.where(below | above, tf.zeros_like(draws), draws), dtype)
    cast = tf.where(below, tf.constant(limits.min, dtype), cast)
    return tf.where(above, tf.constant(limits.max, dtype), cast)


def check_continuous(dtype, name="an array"):
    """Raises if a dtype is not numeric: bool, category, text.

    Args:
        dtype: dtype of NumPy or pandas.
        name: what has the dtype, for the error message.

    Raises:
        ValueError: If the dtype is not numeric.
    """
    if not _is_number(dtype):
        raise ValueError(
            f"Draws are continuous, but {name} has dtype {dtype}. Cast it to float and "
            f"round afterwards, or use imbalanced-learn's SMOTENC or "
            f"RandomOverSampler, which take categories."
        )


def warn_of_rounding(dtypes, stacklevel=2):
    """Warns, once, about integer dtypes that draws are rounded to.

    Args:
        dtypes: dtypes of NumPy or pandas.
        stacklevel: as for `warnings.warn`, counted from the caller.
    """
    whole = sorted({str(dtype) for dtype in dtypes if _is_whole(dtype)})
    if whole:
        warnings.warn(
            f"Features of dtype {', '.join(whole)}: pseudo-features are rounded to "
            f"whole numbers; cast the features to float for continuous ones",
            stacklevel=stacklevel + 1,
        )


def _is_whole(dtype):
    return dtype.kind in "iu"


def _is_number(dtype):
    return dtype.kind in "iuf" or getattr(dtype, "name", "") == "bfloat16"
