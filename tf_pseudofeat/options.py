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
_SEARCHED = (
    *("gaussian", "sampler", "sampling_strategy", "optimizer"),
    *("fresh_head", "blend", "tau", "target_prior"),
)


def resolve_options(recipe, extraction, options):
    """The two objects, with the fields that `options` override.

    Args:
        recipe: `HeadRecipe`, "auto", or None for the defaults.
        extraction: `Extraction`, or None for the defaults.
        options: {name: value}; `batch_size` is that of the recipe.

    Returns:
        recipe: `HeadRecipe`.
        extraction: `Extraction`.
        search: whether the rest of the recipe is to be chosen, as "auto" says.

    Raises:
        TypeError: A name is a field of neither, or an object of another kind.
        ValueError: A value is out of its range, or set beside "auto", which chooses it.
    """
    search = isinstance(recipe, str) and recipe == "auto"
    given = [name for name in _SEARCHED if search and name in options]
    if given:
        raise ValueError(
            f"recipe='auto' chooses for itself; leave out {given}, or recipe='auto'."
        )
    ours = _names(HeadRecipe)
    _check_known(options, [*ours, *_names(Extraction)])
    of_recipe = {name: value for name, value in options.items() if name in ours}
    rest = {name: value for name, value in options.items() if name not in ours}
    return (
        _replaced(HeadRecipe, "recipe", None if search else recipe, of_recipe),
        _replaced(Extraction, "extraction", extraction, rest),
        search,
    )


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
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise TypeError(
                f"{name!r} is no option; {hint}The options are {', '.join(names)}."
            )


def _replaced(kind, name, value, options):
    if value is not None and not isinstance(value, kind):
        auto = ", or 'auto'" if kind is HeadRecipe else ""
        raise TypeError(f"`{name}` is a {kind.__name__}{auto}; received {value!r}.")
    return dataclasses.replace(value, **options) if value else kind(**options)
