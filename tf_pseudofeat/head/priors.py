"""One number for each class: counts and shares, in the order of the class ids."""

import collections.abc

import numpy as np

__all__ = ["by_class", "positive_shares"]


def by_class(values, num_classes, name):
    """Numbers of the classes in the order of their ids.

    Args:
        values: `[C]` in that order; or {id: number}, a dict or a pandas Series, such
            as `labels.value_counts()`, in any order.
        num_classes: C.
        name: what to call them in an error.

    Returns:
        numbers: float64 `[C]`.

    Raises:
        ValueError: They are no numbers, not C, or of other ids.
        TypeError: They are in no order, as in a set.
    """
    if isinstance(values, collections.abc.Set):
        raise TypeError(
            f"`{name}` is one number per class in the order of the class ids, or a "
            f"dict of them; received the set {values!r:.200}."
        )
    if hasattr(values, "keys") and not isinstance(values, np.ndarray):
        numbers = {_plain(key): values[key] for key in values.keys()}  # noqa: SIM118
        if set(numbers) != set(range(num_classes)):
            raise ValueError(
                f"`{name}` is of the class ids 0 to {num_classes - 1}; received those "
                f"of {list(numbers)!r:.200}."
            )
        values = [numbers[place] for place in range(num_classes)]
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` is one number per class; received {values!r:.200}."
        ) from error
    if numbers.shape != (num_classes,):
        raise ValueError(
            f"`{name}` must have shape [{num_classes}], one number per class of the "
            f"model; received shape {list(numbers.shape)}."
        )
    return numbers


def positive_shares(numbers, name):
    """Numbers `[C]` as shares that add up to 1.

    Raises:
        ValueError: One of them is not above 0, or not finite.
    """
    wrong = np.flatnonzero(~(numbers > 0) | np.isinf(numbers))
    if wrong.size:
        raise ValueError(
            f"Every class of `{name}` needs a number above 0, as log(0) is infinite; "
            f"class {wrong[0]} has {numbers[wrong[0]]:g} ({wrong.size} such classes of "
            f"{numbers.size}). Pass the examples that the head was trained on, or an "
            f"estimate above 0."
        )
    return numbers / numbers.sum()


def _plain(key):
    """A class id as an int: 1, 1.0, np.int64(1), True of a two-valued column."""
    try:
        return int(key) if int(key) == key else key
    except (OverflowError, TypeError, ValueError):
        return key
