"""Tests for options.py: keywords go to the recipe or to the extraction."""

import pytest
from imblearn.over_sampling import SMOTE

from tf_pseudofeat.core.options import field_names
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.retraining.options import resolve_options


def test_each_keyword_goes_where_it_is_a_field():
    given = {"epochs": 5, "views": 2, "per_class": 9, "batch_size": 32}
    recipe, extraction, search = resolve_options(None, None, given)
    assert (recipe.epochs, recipe.batch_size) == (5, 32)
    assert (extraction.views, extraction.per_class) == (2, 9)
    assert extraction.batch_size == Extraction().batch_size and not search


def test_keywords_override_what_is_given():
    recipe, extraction, _ = resolve_options(
        HeadRecipe(epochs=3, tau=0.1), Extraction(steps=4), {"epochs": 5}
    )
    assert (recipe.epochs, recipe.tau, extraction.steps) == (5, 0.1, 4)


def test_auto_is_a_search_from_the_defaults_and_what_it_chooses_is_not_given():
    recipe, _, search = resolve_options("auto", None, {"epochs": 5})
    assert search and recipe.epochs == 5 and recipe.blend is None
    with pytest.raises(
        ValueError, match=r"^\['blend', 'tau'\] cannot be passed .*: leave them out"
    ):
        resolve_options("auto", None, {"tau": 1, "blend": 0.5})


def test_what_a_search_chooses_is_no_option_of_it():
    with pytest.raises(
        TypeError, match=r"'lr' is not an option. The options"
    ) as raised:
        resolve_options("auto", None, {"lr": 1e-3})
    assert "optimizer" not in str(raised.value) and "blend" not in str(raised.value)


@pytest.mark.parametrize("recipe", [None, "auto"])
def test_weights_are_part_of_the_data(recipe):
    third = r"Pass weights as the third item of `data`, \(x, y, sample_weight\)"
    with pytest.raises(TypeError, match=f"'sample_weight' is not an option. {third}"):
        resolve_options(recipe, None, {"sample_weight": [1.0]})
    with pytest.raises(TypeError, match=f"'class_weight'.*{third}.* tau=0 is right"):
        resolve_options(recipe, None, {"class_weight": {0: 1.0}})


def test_the_extraction_follows_the_recipe():
    _, extraction, _ = resolve_options(None, None, {"sampler": SMOTE()})
    assert extraction.per_class is None and extraction.augment is None


@pytest.mark.parametrize(
    ("recipe", "extraction", "message"),
    [
        (
            "best",
            None,
            "`recipe` must be of type HeadRecipe, or 'auto'; received 'best'",
        ),
        (None, {"steps": 3}, "`extraction` must be of type Extraction; received"),
    ],
)
def test_other_types_raise(recipe, extraction, message):
    with pytest.raises(TypeError, match=message):
        resolve_options(recipe, extraction, {})


def test_no_name_is_a_field_of_both_but_the_batch_size():
    both = {*field_names(HeadRecipe)} & {*field_names(Extraction)}
    assert both == {"batch_size"}
