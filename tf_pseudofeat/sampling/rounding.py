"""Continuous draws in the dtype of the features that they stand beside."""

import warnings

import numpy as np
import tensorflow as tf

__all__ = ["cast_draws", "check_continuous", "warn_of_rounding"]


def cast_draws(draws, dtype):
    """Draws `[N, ...]` in the dtype of features.

    To a dtype of whole numbers they are rounded to the nearest, and what lies beyond
    its range becomes its smallest or largest number.

    Args:
        draws: floats, an array or a tensor.
        dtype: NumPy dtype of numbers.

    Returns:
        cast: an array or a tensor, as it came in.
    """
    dtype = np.dtype(dtype)
    if tf.is_tensor(draws):
        whole = _is_whole(dtype)
        return _whole_tensor(draws, dtype) if whole else tf.saturate_cast(draws, dtype)
    if not _is_whole(dtype):
        return draws.astype(dtype, copy=False)
    limits, draws = np.iinfo(dtype), np.rint(draws)
    # The largest int64 is no float: so the ends are compared with, not clipped to.
    below, above = draws <= float(limits.min), draws >= float(limits.max)
    cast = np.where(below | above, 0, draws).astype(dtype)
    cast[below], cast[above] = limits.min, limits.max
    return cast


def _whole_tensor(draws, dtype):
    # `tf.saturate_cast` takes what is beyond the largest int64 for the smallest.
    limits, draws = np.iinfo(dtype), tf.round(draws)
    below, above = draws <= float(limits.min), draws >= float(limits.max)
    cast = tf.cast(tf.where(below | above, tf.zeros_like(draws), draws), dtype)
    cast = tf.where(below, tf.constant(limits.min, dtype), cast)
    return tf.where(above, tf.constant(limits.max, dtype), cast)


def check_continuous(dtype, name="an array"):
    """Raises for a dtype with nothing between its values: bool, category, text.

    Args:
        dtype: of NumPy or pandas.
        name: what has it, for the error.

    Raises:
        ValueError: The dtype is not one of numbers.
    """
    if not _is_number(dtype):
        raise ValueError(
            f"Draws are continuous, and {name} of dtype {dtype} has nothing between "
            f"its values. Cast it to float and round afterwards, or use "
            f"imbalanced-learn's SMOTENC or RandomOverSampler, which take categories."
        )


def warn_of_rounding(dtypes, stacklevel=2):
    """Warns, once for all of them, of dtypes that draws are rounded to.

    Args:
        dtypes: of NumPy or pandas.
        stacklevel: as of `warnings.warn`, counted from whoever calls this.
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
