"""Tests for options.py: which examples and views are used; refusals are contracts."""

import keras
import pytest
from imblearn.over_sampling import SMOTE

from tf_pseudofeat.extraction.options import Extraction, resolve_extraction
from tf_pseudofeat.head.recipe import HeadRecipe

SHIFTS = keras.layers.RandomTranslation(0.1, 0.1)


def test_numbers_are_whole_and_paths_are_strings(tmp_path):
    extraction = Extraction(
        augment=SHIFTS, views=2.0, per_class=7.0, steps=3.0, cache_dir=tmp_path
    )
    numbers = extraction.views, extraction.per_class, extraction.steps
    assert numbers == (2, 7, 3) and all(type(number) is int for number in numbers)
    assert extraction.cache_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("options", "views"),
    [({}, 1), ({"augment": None}, 0), ({"views": 3}, 3), ({"augment": SHIFTS}, 1)],
)
def test_each_example_has_one_view_unless_told(options, views):
    assert Extraction(**options).num_views == views


def test_plain_and_literal_are_every_example_without_views():
    assert Extraction.plain().num_views == 0 and Extraction.plain().per_class is None
    literal = Extraction(steps=3).literal()
    assert (literal.augment, literal.per_class, literal.steps) == (None, None, 3)
    given = Extraction(augment=SHIFTS, per_class=5).literal()
    assert (given.augment, given.per_class) == (SHIFTS, 5)


@pytest.mark.parametrize(
    ("recipe", "options", "per_class", "augment"),
    [
        (HeadRecipe(), {}, 500, "auto"),
        (HeadRecipe(), {"per_class": None}, None, "auto"),
        (HeadRecipe(sampler=SMOTE()), {}, None, None),
        (HeadRecipe(sampler=SMOTE()), {"views": 2}, None, "auto"),
        (HeadRecipe(sampler=SMOTE()), {"augment": SHIFTS}, None, SHIFTS),
        (HeadRecipe(sampling_strategy={1: 9}), {"per_class": 20}, 20, None),
    ],
)
def test_a_recipe_that_balances_otherwise_reads_every_example(
    recipe, options, per_class, augment
):
    resolved = Extraction(**options).for_recipe(recipe)
    assert resolved.per_class == per_class and resolved.augment == augment


def test_keywords_override_what_is_given():
    given = Extraction(steps=3)
    assert resolve_extraction(given, {"steps": 4}).steps == 4
    assert resolve_extraction(None, {}).steps is None
    with pytest.raises(TypeError, match=r"Pass weights as the third item"):
        resolve_extraction(given, {"sample_weight": [1.0]})
    with pytest.raises(TypeError, match="'step' is not an option. Did you mean 'steps"):
        resolve_extraction(given, {"step": 4})
    with pytest.raises(TypeError, match="`extraction` must be of type Extraction"):
        resolve_extraction("all", {})
