"""Keyword options that override fields of a frozen dataclass."""

import dataclasses
import difflib

__all__ = ["check_known", "did_you_mean", "field_names", "with_fields"]


def field_names(kind):
    """The names of the fields of a dataclass, in order."""
    return [field.name for field in dataclasses.fields(kind)]


def check_known(options, names, elsewhere=None):
    """Raises TypeError if a name in `options` is not one of `names`.

    Args:
        options: {name: value}.
        names: list of known names.
        elsewhere: {name: what to pass for it}, for the error message.
    """
    for name in options:
        if name not in names:
            hint = did_you_mean(name, names)
            if elsewhere and name in elsewhere:
                hint = f" Pass {elsewhere[name]}."
            names = ", ".join(dict.fromkeys(names))
            raise TypeError(
                f"{name!r} is not an option.{hint} The options are {names}."
            )


def did_you_mean(name, names):
    """Returns " Did you mean 'f1'?" if one of `names` is close to `name`, else ""."""
    close = difflib.get_close_matches(name.lower(), names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def with_fields(kind, name, value, options, also=""):
    """Returns `value` with the fields that `options` override.

    Args:
        kind: a frozen dataclass.
        name: string, the argument that `value` was passed as, for the error message.
        value: instance of `kind`, or None for the defaults.
        options: {field: value}.
        also: string, what else the argument may be, for the error message.

    Raises:
        TypeError: If `value` is of another type.
    """
    if value is not None and not isinstance(value, kind):
        raise TypeError(
            f"`{name}` must be of type {kind.__name__}{also}; received {value!r:.200}."
        )
    return dataclasses.replace(value, **options) if value else kind(**options)
