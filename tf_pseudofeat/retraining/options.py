"""Options given as keywords: the fields of `HeadRecipe` and of `Extraction`.

A new option is one field of one of them. Every function that takes `**options` knows it
by its name from then on.
"""

from tf_pseudofeat.core.options import check_known, field_names, with_fields
from tf_pseudofeat.extraction.extraction import Extraction
from tf_pseudofeat.head.recipe import HeadRecipe

__all__ = ["resolve_options"]

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
    ours = field_names(HeadRecipe)
    check_known(options, [*ours, *field_names(Extraction)])
    of_recipe = {name: value for name, value in options.items() if name in ours}
    rest = {name: value for name, value in options.items() if name not in ours}
    recipe = None if search else recipe
    recipe = with_fields(HeadRecipe, "recipe", recipe, of_recipe, also=", or 'auto'")
    extraction = with_fields(Extraction, "extraction", extraction, rest)
    return recipe, extraction.for_recipe(recipe), search
