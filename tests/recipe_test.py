"""Tests for recipe.py, extraction.py and options.py: options as objects."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from imblearn.over_sampling import SMOTE

from tf_pseudofeat import recipe as recipe_module
from tf_pseudofeat.budget import multiply_minority
from tf_pseudofeat.extraction import Extraction
from tf_pseudofeat.gaussian import ClassConditionalGaussian
from tf_pseudofeat.options import resolve_extraction, resolve_options
from tf_pseudofeat.recipe import HeadRecipe
from tf_pseudofeat.retrain import retrain_head

RNG = np.random.default_rng(0)
Y = np.repeat([0, 1, 2], [60, 30, 8])
X = (RNG.normal(size=(98, 4)) + 2 * np.eye(4)[Y]).astype("float32")


def make_model():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, activation="relu", name="features"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def retrained(*args, **settings):
    model = make_model()
    report = retrain_head(model, "features", (X, Y), *args, verbose=0, **settings)
    return report, model.get_weights()


def test_keywords_are_the_fields_of_the_two_objects():
    flat = retrained(epochs=3, blend=0.25, augment=lambda x: x + 0.1, views=1)
    objects = retrained(
        recipe=HeadRecipe(epochs=3, blend=0.25),
        extraction=Extraction(augment=lambda x: x + 0.1, views=1),
    )
    over = retrained(
        recipe=HeadRecipe(epochs=9, blend=0.25),
        extraction=Extraction(augment=lambda x: x + 0.1),
        epochs=3,
        views=1,
    )
    for _, weights in (objects, over):
        for one, other in zip(flat[1], weights, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "settings",
    [{}, {"blend": 0.3, "tau": 0.5}, {"fresh_head": True, "gaussian": {"rank": None}}],
    ids=str,
)
def test_the_recipe_of_a_report_reproduces_it(settings):
    report, weights = retrained(**settings)
    again, same = retrained(recipe=report.recipe, seed=report.seed)
    for one, other in zip(weights, same, strict=True):
        np.testing.assert_array_equal(one, other)
    assert again.after == report.after and again.loss == report.loss


def test_the_recipe_of_the_paper():
    paper = HeadRecipe.paper()
    assert (paper.blend, paper.tau, paper.target_prior) == (0.0, 0.0, None)
    assert paper.fresh_head and not paper.fresh_each_epoch
    assert paper.gaussian_for(3).get_config()["shrinkage"] == 0.0
    report, _ = retrained(recipe=paper)
    assert all(entry.shrinkage == 0.0 for entry in report.covariance.classes)


def test_a_gaussian_is_an_object_or_its_arguments():
    mine = ClassConditionalGaussian(3, "tied")
    assert HeadRecipe(gaussian=mine).gaussian_for(3) is mine
    for_three = HeadRecipe(gaussian={"covariance_type": "tied"}).gaussian_for(3)
    assert (for_three.num_classes, for_three.covariance_type) == (3, "tied")
    by_object, by_dict = (
        retrained(gaussian=gaussian) for gaussian in (mine, {"covariance_type": "tied"})
    )
    np.testing.assert_array_equal(by_object[1][-1], by_dict[1][-1])


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"gaussian": {"covariance": "tied"}}, ValueError, "covariance"),
        ({"gaussian": {"covariance_type": "ful"}}, ValueError, "ful"),
        ({"gaussian": SMOTE()}, ValueError, "received SMOTE"),
        ({"gaussian": {}, "sampler": SMOTE()}, ValueError, "not both"),
        ({"sampler": 3}, ValueError, "fit_resample.*int"),
        ({"epochs": 0}, ValueError, "`epochs`"),
        ({"optimizer": 3}, TypeError, "Keras optimizer, its name.*received 3"),
        ({"loss": "entropy"}, ValueError, "entropy"),
        ({"blend": None}, ValueError, "share from 0 to 1; received None"),
        ({"target_prior": [[1.0]]}, ValueError, "positive share for each class"),
    ],
    ids=str,
)
def test_a_recipe_is_checked_when_it_is_made(settings, error, message):
    with pytest.raises(error, match=message):
        HeadRecipe(**settings)


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"views": 2}, ValueError, "views=2 without `augment`"),
        ({"augment": "flip"}, TypeError, "`augment` is a Keras .*received str"),
        ({"steps": 0}, ValueError, "`steps`.*received 0"),
        ({"batch_size": None}, ValueError, "`batch_size`.*received None"),
        ({"augment": abs, "views": 1.5}, ValueError, "`views`.*received 1.5"),
    ],
    ids=str,
)
def test_an_extraction_is_checked_when_it_is_made(settings, error, message):
    with pytest.raises(error, match=message):
        Extraction(**settings)


def test_views_of_an_extraction():
    assert Extraction().num_views == 0
    assert Extraction(augment=abs).num_views == 3
    assert Extraction(augment=abs, views=2).num_views == 2
    assert dataclasses.replace(Extraction(augment=abs), augment=None).num_views == 0


@pytest.mark.parametrize("kind", [HeadRecipe(), Extraction()])
def test_objects_are_frozen(kind):
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind.batch_size = 3


def test_an_option_is_known_by_its_name_alone():
    recipe, extraction, search = resolve_options(None, None, {"tau": 1, "steps": 2})
    assert (recipe.tau, extraction.steps, search) == (1.0, 2, False)
    assert resolve_options("auto", None, {"epochs": 2})[0::2][1]
    assert resolve_extraction(Extraction(steps=3), {"batch_size": 7}).steps == 3
    with pytest.raises(TypeError, match="'epochs' is no option; .*are augment, views"):
        resolve_extraction(None, {"epochs": 2})
    with pytest.raises(TypeError, match="'target' is no option; did you mean 'target_"):
        resolve_options(None, None, {"target": "uniform"})
    with pytest.raises(TypeError, match="`extraction` is a Extraction; received 3"):
        resolve_options(None, 3, {})


def test_a_new_option_is_one_field(monkeypatch):
    """Every function that takes options would know it."""

    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Longer(HeadRecipe):
        temperature: float = 1.0

    monkeypatch.setattr("tf_pseudofeat.options.HeadRecipe", Longer)
    report, _ = retrained(epochs=1, temperature=2.0)
    assert report.recipe.temperature == 2.0
    assert report.to_dict()["recipe"]["temperature"] == 2.0


def test_a_recipe_in_words_is_json():
    recipe = HeadRecipe(
        gaussian=ClassConditionalGaussian(3),
        sampling_strategy=multiply_minority(20),
        optimizer=keras.optimizers.SGD(),
        loss=keras.losses.sparse_categorical_crossentropy,
        target_prior=np.array([0.5, 0.5]),
    )
    words = json.loads(json.dumps(recipe.to_dict()))
    assert words["gaussian"] == "ClassConditionalGaussian"
    assert words["sampling_strategy"] == "multiply_minority(20, below=0.5)"
    assert (words["optimizer"], words["loss"]) == (
        "SGD",
        "sparse_categorical_crossentropy",
    )
    assert words["target_prior"] == [0.5, 0.5]
    assert HeadRecipe(sampler=SMOTE(k_neighbors=3)).to_dict()["sampler"] == (
        "SMOTE(k_neighbors=3)"
    )
    assert set(words) == {f.name for f in dataclasses.fields(recipe_module.HeadRecipe)}
