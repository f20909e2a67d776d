"""Checks of single arguments."""

import inspect
import sys

import keras
import tensorflow as tf

__all__ = ["check_is_object", "is_infinite", "whole_number"]


def whole_number(name, value):
    """Converts a whole number of at least 1, such as 3.0 or a scalar tensor, to int.

    Raises:
        ValueError: If `value` is anything else, including NaN and infinity.
    """
    try:
        number = int(value)
        if number == value and number >= 1:
            return number
    except (OverflowError, TypeError, ValueError):
        pass
    raise ValueError(
        f"`{name}` must be a whole number of at least 1; received {value!r}."
    )


def check_is_object(name, value, arguments=""):
    """Raises TypeError if `value` is a class and not an instance: SMOTE for SMOTE().

    Args:
        name: name of the argument.
        value: the received value.
        arguments: arguments of the constructor, for the error message.
    """
    if inspect.isclass(value):
        raise TypeError(
            f"`{name}` must be an instance; received the class {value.__name__}. Pass "
            f"{value.__name__}({arguments})."
        )


def is_infinite(data):
    """Whether `data` has no end, as far as its length or cardinality tells."""
    if isinstance(data, tf.data.Dataset):
        return bool(data.cardinality() == tf.data.INFINITE_CARDINALITY)
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    try:
        return len(data) >= sys.maxsize  # as Grain's `repeat()` has it
    except TypeError:
        return False
