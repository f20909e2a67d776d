"""Options given as keywords: the fields of a frozen dataclass, by their names."""

import dataclasses
import difflib

__all__ = ["check_known", "field_names", "with_fields"]


def field_names(kind):
    """The names of the fields of a dataclass, in order."""
    return [field.name for field in dataclasses.fields(kind)]


def check_known(options, names):
    """Raises TypeError for a name of `options` that is not among `names`."""
    for name in options:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            names = ", ".join(dict.fromkeys(names))
            raise TypeError(f"{name!r} is no option.{hint} The options are {names}.")


def with_fields(kind, name, value, options, also=""):
    """`value`, an object of `kind` or None, with the fields that `options` override.

    Args:
        kind: a frozen dataclass.
        name: str, of the argument that `value` was passed as, for the error.
        value: object of `kind`, or None for one with the defaults.
        options: {field: value}.
        also: str, what else the argument may be, for the error.

    Raises:
        TypeError: `value` is of another type.
    """
    if value is not None and not isinstance(value, kind):
        raise TypeError(
            f"`{name}` is of type {kind.__name__}{also}; received {value!r:.200}."
        )
    return dataclasses.replace(value, **options) if value else kind(**options)
