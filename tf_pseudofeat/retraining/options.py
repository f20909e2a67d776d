"""Options given as keywords: the fields of `HeadRecipe` and of `Extraction`.

A new option is a new field of one of them; every function with `**options` then accepts
it.
"""

from tf_pseudofeat.core.options import check_known, field_names, with_fields
from tf_pseudofeat.extraction.options import ELSEWHERE, Extraction
from tf_pseudofeat.head.recipe import HeadRecipe

__all__ = ["resolve_options"]

# What users look for by another name, and what to pass for it.
_ELSEWHERE = {
    **ELSEWHERE,
    "class_weight": f"{ELSEWHERE['sample_weight']}, where there are any. A retraining "
    f"balances the classes by itself; for a model that was trained with class weights "
    f"tau=0 is right",
    "covariance_type": "gaussian={'covariance_type': 'tied'}",
    "learning_rate": "optimizer=keras.optimizers.Adam(1e-4)",
    "lr": "optimizer=keras.optimizers.Adam(1e-4)",
    "random_state": "seed=(1, 2)",
    "shrinkage": "gaussian={'shrinkage': 0.1}",
}
# Fields that recipe="auto" chooses.
_SEARCHED = ("blend", "tau", "target_prior", "optimizer")


def resolve_options(recipe, extraction, options):
    """Returns recipe and extraction with overridden fields, and whether to search.

    `batch_size` is that of the recipe. With "auto", `blend` and `tau` are chosen and
    must not be in `options`.

    Raises:
        TypeError: If a name is not a field, or an object is of another type.
        ValueError: If a value is out of range, or is chosen by the search.
    """
    search = isinstance(recipe, str) and recipe == "auto"
    given = [name for name in _SEARCHED if search and name in options]
    if given:
        raise ValueError(
            f"{given} cannot be passed where they are chosen on validation data, as "
            f"`tune`, `diagnose` and recipe='auto' do: leave them out. To set them, "
            f"use retrain_head without recipe='auto'."
        )
    ours = field_names(HeadRecipe)
    known = [*ours, *field_names(Extraction)]
    if search:
        known = [name for name in known if name not in _SEARCHED]
    elsewhere = {
        name: advice
        for name, advice in _ELSEWHERE.items()
        if not search or advice.partition("=")[0] not in _SEARCHED
    }
    check_known(options, known, elsewhere)
    of_recipe = {name: value for name, value in options.items() if name in ours}
    rest = {name: value for name, value in options.items() if name not in ours}
    recipe = None if search else recipe
    recipe = with_fields(HeadRecipe, "recipe", recipe, of_recipe, also=", or 'auto'")
    extraction = with_fields(Extraction, "extraction", extraction, rest)
    return recipe, extraction.for_recipe(recipe), search
