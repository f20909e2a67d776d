"""Columns of data frames, of pandas or another library."""

import keras

__all__ = ["check_same_columns", "some_of"]

_MOST_NAMES = 8  # in an error message


def check_same_columns(data, validation_data):
    """Raises if data frames of inputs differ in the names or the order of columns.

    Args:
        data: as users pass them; anything but a tuple with data frames is accepted.
        validation_data: the same.

    Raises:
        ValueError: If they differ.
    """
    pairs = zip(_inputs(data), _inputs(validation_data), strict=False)
    for place, (frame, other) in enumerate(pairs):
        if not (hasattr(frame, "columns") and hasattr(other, "columns")):
            continue
        names, received = list(frame.columns), list(other.columns)
        if names != received:
            several = f", input {place} of several," if place else ""
            raise ValueError(_message(names, received, several))


def _inputs(data):
    if not isinstance(data, tuple | list) or not data:
        return []
    return keras.tree.flatten(data[0])


def _message(names, received, several):
    if sorted(map(repr, names)) == sorted(map(repr, received)):
        differ = "the same in another order"
    else:
        lacking = [name for name in names if name not in received]
        new = [name for name in received if name not in names]
        differ = "; ".join(
            f"{what} {some_of(which)}"
            for what, which in (("it lacks", lacking), ("unknown are", new))
            if which
        )
    known = set(map(repr, names)) <= set(map(repr, received))
    how = "validation_data[0][list(data[0].columns)]" if known else "the same columns"
    return (
        f"`validation_data`{several} has the columns {some_of(received)}, where `data` "
        f"has {some_of(names)}: {differ or 'some names repeat'}. The model takes "
        f"columns by position. Pass {how} as its inputs."
    )


def some_of(names, shown=repr):
    """The first names for an error message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(shown, names[:_MOST_NAMES])) + more
