"""Options given as keywords: the fields of `HeadRecipe` and of `Extraction`.

A new option is one field of one of them. Every function that takes `**options` knows it
by its name from then on.
"""

import dataclasses
import difflib

from tf_pseudofeat.extraction import Extraction
from tf_pseudofeat.recipe import HeadRecipe

__all__ = ["resolve_extraction", "resolve_options"]

# What recipe="auto" decides, and nobody else.
_SEARCHED = ("blend", "tau", "target_prior", "optimizer")


def resolve_options(recipe, extraction, options):
    """The two objects with the fields that `options` override, and whether to search.

    `batch_size` is that of the recipe. Of "auto" `blend` and `tau` are to be chosen,
    and may not be among the options.

    Raises:
        TypeError: A name is a field of neither, or an object of another kind.
        ValueError: A value is out of its range, or is for the search to choose.
    """
    search = isinstance(recipe, str) and recipe == "auto"
    given = [name for name in _SEARCHED if search and name in options]
    if given:
        raise ValueError(
            f"{given} are what the search chooses; leave out either them or the search."
        )
    ours = _names(HeadRecipe)
    _check_known(options, [*ours, *_names(Extraction)])
    of_recipe = {name: value for name, value in options.items() if name in ours}
    rest = {name: value for name, value in options.items() if name not in ours}
    recipe = _replaced(HeadRecipe, "recipe", None if search else recipe, of_recipe)
    extraction = _replaced(Extraction, "extraction", extraction, rest)
    return recipe, extraction.for_recipe(recipe), search


def resolve_extraction(extraction, options):
    """An `Extraction` with the fields that `options` override, see above."""
    _check_known(options, _names(Extraction))
    return _replaced(Extraction, "extraction", extraction, options)


def _names(kind):
    return [field.name for field in dataclasses.fields(kind)]


def _check_known(options, names):
    for name in options:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            names = ", ".join(dict.fromkeys(names))
            raise TypeError(f"{name!r} is no option.{hint} The options are {names}.")


def _replaced(kind, name, value, options):
    if value is not None and not isinstance(value, kind):
        auto = ", or 'auto'" if kind is HeadRecipe else ""
        raise TypeError(
            f"`{name}` is of type {kind.__name__}{auto}; received {value!r:.200}."
        )
    return dataclasses.replace(value, **options) if value else kind(**options)
