"""Counts and shares of classes, in the order of the class ids."""

import collections.abc

import numpy as np

__all__ = ["by_class", "positive_shares"]


def by_class(values, num_classes, name):
    """Converts one number per class to an array in the order of the class ids.

    Args:
        values: `[C]` in that order; or {id: number}, a dict or a pandas Series such as
            `labels.value_counts()`.
        num_classes: C.
        name: name of the values in error messages.

    Returns:
        numbers: float64 `[C]`.

    Raises:
        ValueError: If they are not numbers, not C, or have other ids.
        TypeError: If they are not ordered, as in a set.
    """
    if isinstance(values, collections.abc.Set):
        raise TypeError(
            f"`{name}` must be one number per class in the order of the class ids, or "
            f"a dict; received the set {values!r:.200}."
        )
    if hasattr(values, "keys") and not isinstance(values, np.ndarray):
        numbers = {_plain(key): values[key] for key in values.keys()}  # noqa: SIM118
        if set(numbers) != set(range(num_classes)):
            raise ValueError(
                f"`{name}` must have the class ids 0 to {num_classes - 1}; received "
                f"{list(numbers)!r:.200}."
            )
        values = [numbers[place] for place in range(num_classes)]
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be one number per class; received {values!r:.200}. "
            f"`class_counts(labels)` counts the examples of each."
        ) from error
    if numbers.shape != (num_classes,):
        raise ValueError(
            f"`{name}` must have shape [{num_classes}], one number per class of the "
            f"model; received shape {list(numbers.shape)}."
        )
    return numbers


def positive_shares(numbers, name):
    """Normalizes numbers `[C]` to shares that sum to 1.

    Raises:
        ValueError: If one is not positive or not finite.
    """
    wrong = np.flatnonzero(~(numbers > 0) | np.isinf(numbers))
    if wrong.size:
        raise ValueError(
            f"Every class of `{name}` needs a positive number, since log(0) is "
            f"infinite; class {wrong[0]} has {numbers[wrong[0]]:g} ({wrong.size} such "
            f"classes of {numbers.size}). Pass the counts that the head was trained "
            f"on, or a positive estimate."
        )
    return numbers / numbers.sum()


def _plain(key):
    """Converts a class id to an int: 1, 1.0, np.int64(1), or True of a bool column."""
    try:
        return int(key) if int(key) == key else key
    except (OverflowError, TypeError, ValueError):
        return key
