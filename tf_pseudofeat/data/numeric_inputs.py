"""Inputs that hold numbers as objects, in nullable columns, or as booleans."""

import numpy as np
import tensorflow as tf

from tf_pseudofeat.data.frames import some_of

__all__ = ["as_numbers", "check_texts"]

_ADVICE = (
    "Encode it as numbers, as for the training of the model. A model with an input of "
    "dtype string for it takes a dict of arrays by name, such as (dict(frame), y)."
)


def as_numbers(values, holder):
    """Converts inputs to an array of numbers, as `fit` does.

    Args:
        values: `[N, ...]`, an array, a tensor or its `tf.TensorSpec`, or a data frame.
        holder: beginning of the error message, "`data` has inputs".

    Returns:
        numbers: the same object if its dtype is numeric, otherwise an int64 array of
            integers, or a float64 array, with NaN for missing values.

    Raises:
        ValueError: If a value is no number. The message names the column of a data
            frame.
    """
    if hasattr(values, "columns"):
        return _of_frame(values, holder)
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, tf.DType) and dtype == tf.string:
        raise ValueError(_message(holder, "string"))
    if not isinstance(dtype, np.dtype) or dtype.kind in "biufcV":  # V is bfloat16
        return values
    try:
        if dtype.kind == "O":
            return _of_objects(values)
    except (TypeError, ValueError) as error:
        raise ValueError(_message(holder, f"{dtype} ({error})")) from error
    raise ValueError(_message(holder, dtype))


def check_texts(values, holder):
    """Returns inputs unchanged; raises ValueError if they are numbers.

    Args:
        values: what `as_numbers` takes.
        holder: beginning of the error message, "`data` has inputs".
    """
    dtypes = [getattr(values, "dtype", None), *getattr(values, "dtypes", ())]
    for dtype in dtypes:
        if isinstance(dtype, tf.DType):
            dtype = np.dtype(dtype.as_numpy_dtype)
        if isinstance(dtype, np.dtype) and dtype.kind in "biuf":
            raise ValueError(
                f"{holder} of dtype {dtype}, where the model takes texts (dtype "
                f"string). Pass texts, as for its training."
            )
    return values


def _message(holder, dtype):
    return f"{holder} of dtype {dtype}, where the model takes numbers. {_ADVICE}"


def _of_frame(frame, holder):
    dtypes = list(frame.dtypes)
    if all(isinstance(dtype, np.dtype) and dtype.kind in "iuf" for dtype in dtypes):
        return frame
    columns, wrong = [], []
    for place, (column, dtype) in enumerate(zip(frame.columns, dtypes, strict=True)):
        try:
            columns.append(_of_column(frame, place, column))
        except (TypeError, ValueError):
            wrong.append(f"{column!r} (dtype {dtype})")
    if wrong:
        which = some_of(wrong, str)
        raise ValueError(
            f"{holder} with columns that are no numbers, {which}, where the model "
            f"takes numbers. {_ADVICE}"
        )
    return np.column_stack(columns)  # [N, D]


def _of_column(frame, place, name):
    if not hasattr(frame, "iloc"):
        return np.asarray(frame[name], np.float64)
    column = frame.iloc[:, place]  # of pandas, where names may repeat
    dtype = column.dtype
    if dtype.kind == "O":
        return _of_objects(column.to_numpy())
    if dtype.kind == "u" and isinstance(dtype, np.dtype):
        return column.to_numpy()
    whole = dtype.kind in "iub" and not column.isna().any()  # float64 ends at 2 ** 53
    return column.astype("int64" if whole else "float64").to_numpy()


def _of_objects(values):
    """Numbers in an array of objects: int64 if all are integers, otherwise float64."""
    whole = all(isinstance(v, int | np.integer) for v in values.ravel())
    return values.astype(np.int64 if whole else np.float64)
