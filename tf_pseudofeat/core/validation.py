"""Checks of single arguments."""

import inspect
import sys

import keras
import tensorflow as tf

__all__ = ["check_is_object", "is_infinite", "whole_number"]


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
