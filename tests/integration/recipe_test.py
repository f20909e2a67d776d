"""Tests for recipe.py, extraction.py and options.py: options as objects."""

import dataclasses
import functools
import json

import keras
import numpy as np
import pytest
from imblearn.over_sampling import SMOTE

from tests.small_models import small_classifier
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.extraction.options import Extraction, resolve_extraction
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.head import recipe as recipe_module
from tf_pseudofeat.head.fit import fit_head
from tf_pseudofeat.head.material import prepare_material
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.task import Task
from tf_pseudofeat.retraining.options import resolve_options
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.retraining.tune import tune
from tf_pseudofeat.sampling.counts import multiply_minority
from tf_pseudofeat.splitting.split_at import split_at
from tf_pseudofeat.splitting.trunk_and_head import Split

RNG = np.random.default_rng(0)
Y = np.repeat([0, 1, 2], [60, 30, 8])
X = (RNG.normal(size=(98, 4)) + 2 * np.eye(4)[Y]).astype("float32")


def retrained(*args, **settings):
    model = small_classifier()
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
    [
        {},
        {"blend": 0.3, "tau": 0.5, "epochs": 3},
        {"fresh_head": True, "gaussian": {"rank": None}, "epochs": 3},
    ],
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
    report, _ = retrained(recipe=paper, epochs=2)
    assert all(entry.shrinkage == 0.0 for entry in report.covariance.classes)
    assert report.extraction == Extraction.plain()
    assert report.view_source == "none" and report.used == report.real


def test_a_gaussian_is_an_object_or_its_arguments():
    mine = ClassConditionalGaussian(3, "tied")
    assert HeadRecipe(gaussian=mine).gaussian_for(3) is mine
    for_three = HeadRecipe(gaussian={"covariance_type": "tied"}).gaussian_for(3)
    assert (for_three.num_classes, for_three.covariance_type) == (3, "tied")
    by_object, by_dict = (
        retrained(gaussian=gaussian, epochs=2)
        for gaussian in (mine, {"covariance_type": "tied"})
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
        ({"sampler": SMOTE}, TypeError, r"received the class SMOTE. Pass SMOTE\(\)"),
        ({"gaussian": ClassConditionalGaussian}, TypeError, r"Gaussian\(num_classes\)"),
        ({"optimizer": keras.optimizers.Adam}, TypeError, r"class Adam. Pass Adam\(\)"),
        (
            {"optimizer": functools.partial(keras.optimizers.SGD, momentum=0.9)},
            TypeError,
            r"class SGD. Pass SGD\(\)",
        ),
        (
            {"optimizer": keras.optimizers.schedules.CosineDecay(0.1, 9)},
            TypeError,
            "learning rate CosineDecay. Pass an optimizer",
        ),
        ({"loss": "entropy"}, ValueError, "entropy"),
        ({"blend": "0.5"}, ValueError, r"must be in \[0, 1\]; received '0.5'"),
        ({"blend": float("nan")}, ValueError, r"must be in \[0, 1\]; received nan"),
        ({"prior": "even"}, ValueError, "`prior` must be one of"),
        ({"prior": [1, 0, 1]}, ValueError, "Every class of `prior` needs a positive"),
        ({"target_prior": [[1.0]]}, ValueError, "positive share for each class"),
        ({"fresh_head": "no"}, TypeError, "`fresh_head` must be True or False.*'no'"),
    ],
)
def test_a_recipe_is_checked_when_it_is_made(settings, error, message):
    with pytest.raises(error, match=message):
        HeadRecipe(**settings)


def sgd_of(steps, rate=0.1):
    return keras.optimizers.SGD(rate / steps)


@pytest.mark.parametrize("optimizer", [sgd_of, functools.partial(sgd_of, rate=1.0)])
def test_a_function_of_the_steps_makes_an_optimizer(optimizer):
    assert HeadRecipe(optimizer=optimizer).optimizer is optimizer


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"views": 2, "augment": None}, ValueError, "views=2 needs `augment`"),
        ({"augment": "flip"}, TypeError, "`augment` must be 'auto', a Keras .*'flip'"),
        ({"augment": keras.layers.RandomFlip}, TypeError, r"Pass RandomFlip\(\)"),
        ({"per_class": 0}, ValueError, "`per_class`.*received 0"),
        ({"per_class": "all"}, ValueError, "`per_class`.*received 'all'"),
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
    assert Extraction().num_views == 1
    assert Extraction(augment=abs).num_views == 1
    assert Extraction(augment=abs, views=2).num_views == 2
    assert Extraction.plain().num_views == 0
    assert dataclasses.replace(Extraction(augment=abs), augment=None).num_views == 0
    assert Extraction.plain() == Extraction(augment=None, per_class=None)


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, 500),
        ({"blend": 0.0, "tau": 1.0, "target_prior": None}, 500),
        ({"sampler": SMOTE()}, None),
        ({"sampling_strategy": "minority"}, None),
        ({"fresh_head": True}, None),
    ],
    ids=str,
)
def test_how_many_examples_are_looked_at_is_left_to_the_recipe(settings, expected):
    recipe = HeadRecipe(**settings)
    assert Extraction().for_recipe(recipe).per_class == expected
    assert resolve_options(None, None, settings)[1].per_class == expected
    for per_class in (7, None):  # what is given is taken
        given = Extraction(per_class=per_class)
        assert given.for_recipe(recipe).per_class == per_class
    augment = None if expected is None else "auto"
    assert Extraction().for_recipe(recipe).augment == augment
    for augment in (None, np.negative):  # and so it is here
        assert Extraction(augment=augment).for_recipe(recipe).augment == augment
    assert Extraction(views=2).for_recipe(recipe).augment == "auto"


def resolved(num_classes=3, viewed=True, movable=True, **settings):
    """`(blend, tau)` of a recipe on features of X, or of those of two classes."""
    last = keras.layers.Dense(3, activation="softmax", use_bias=movable)
    head = keras.Sequential([keras.Input((4,)), last])
    recipe, rows = HeadRecipe(**settings), num_classes > Y
    data = LabeledFeatures(X[rows], Y[rows])
    task = Task(head, 3, "sparse_categorical_crossentropy")
    recipe = recipe.resolve(task, prepare_material(data, recipe, 3, viewed=viewed))
    return recipe.blend, recipe.tau


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, (0.2, 0.5)),
        ({"viewed": False}, (0.7, 1.0)),
        ({"blend": 0.5}, (0.5, 0.8)),
        ({"tau": 0.1}, (0.2, 0.1)),
        ({"blend": 0.0, "tau": 0.0, "viewed": False}, (0.0, 0.0)),
        ({"sampler": SMOTE(k_neighbors=3)}, (0.0, 0.0)),
        ({"sampling_strategy": "minority"}, (0.0, 0.0)),
        ({"fresh_head": True}, (0.0, 0.0)),
        ({"target_prior": "uniform"}, (0.0, 0.0)),
        ({"num_classes": 2}, (0.2, 0.0)),
        ({"movable": False}, (0.2, 0.0)),
    ],
    ids=str,
)
def test_what_is_kept_and_taken_off_by_default(settings, expected):
    assert (HeadRecipe().blend, HeadRecipe().tau) == (None, None)
    assert resolved(**settings) == expected


@pytest.mark.parametrize("kind", [HeadRecipe(), Extraction()])
def test_objects_are_frozen(kind):
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind.batch_size = 3


def test_an_option_is_known_by_its_name_alone():
    recipe, extraction, search = resolve_options(None, None, {"tau": 1, "steps": 2})
    assert (recipe.tau, extraction.steps, search) == (1.0, 2, False)
    assert resolve_options("auto", None, {"epochs": 2})[0::2][1]
    assert resolve_extraction(Extraction(steps=3), {"batch_size": 7}).steps == 3
    with pytest.raises(
        TypeError, match="'epochs' is not an option. .*are augment, views"
    ):
        resolve_extraction(None, {"epochs": 2})
    with pytest.raises(
        TypeError, match="'target' is not an option. Did you mean 'target_"
    ):
        resolve_options(None, None, {"target": "uniform"})
    with pytest.raises(
        TypeError, match="`extraction` must be of type Extraction; received 3"
    ):
        resolve_options(None, 3, {})


def test_a_new_option_is_one_field(monkeypatch):
    """Every function that takes options would know it."""

    @dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
    class Longer(HeadRecipe):
        temperature: float = 1.0

    monkeypatch.setattr("tf_pseudofeat.retraining.options.HeadRecipe", Longer)
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


def test_equal_options_are_equal_and_nobody_else_holds_them():
    settings, shares = {"covariance_type": "tied"}, [0.2, 0.8]
    recipe = HeadRecipe(gaussian=settings, target_prior=shares)
    assert recipe == HeadRecipe(gaussian=dict(settings), target_prior=(0.2, 0.8))
    assert Extraction(augment=abs) == Extraction(augment=abs) != Extraction()
    settings["covariance_type"], shares[0] = "diag", -5.0
    assert recipe.gaussian_for(2).covariance_type == "tied"
    assert recipe.target_prior == (0.2, 0.8)


def test_a_report_reproduces_with_an_optimizer_that_was_used():
    report, weights = retrained(epochs=3, optimizer=keras.optimizers.Adam(0.01))
    _, same = retrained(recipe=report.recipe)
    for one, other in zip(weights, same, strict=True):
        np.testing.assert_array_equal(one, other)


WEIGHTED = np.array([8.0, 1.0, 1.0])


@pytest.mark.parametrize(
    "dtype, options, expected",
    [
        ("float32", {}, [1 / 3] * 3),
        ("float32", {"tau": 0.5}, None),
        ("float32", {"target_prior": "uniform"}, [1 / 3] * 3),
        ("int64", {"target_prior": "training"}, [0.923, 0.0577, 0.0192]),
    ],
)
def test_weights_count_in_the_prior(dtype, options, expected):
    """Features that tell nothing: outputs are the prior, on average."""
    x, y = (
        RNG.normal(size=(500, 4)).astype("float32"),
        np.repeat([0, 1, 2], [300, 150, 50]),
    )
    options = {"blend": 0.0, "tau": 0.0, "epochs": 60, "batch_size": 900, **options}
    options["optimizer"] = keras.optimizers.Adam(0.05)
    model, data = small_classifier(), (x, y, WEIGHTED[y].astype(dtype))
    report = retrain_head(model, "features", data, monitor=None, verbose=0, **options)
    mean = keras.ops.convert_to_numpy(model(x)).mean(axis=0)
    np.testing.assert_allclose(mean, report.prior, atol=0.06)
    if expected is not None:
        np.testing.assert_allclose(report.prior, expected, atol=1e-3)


@pytest.mark.parametrize("given", ["report", "numbers"])
def test_a_model_that_was_saved_is_told_its_prior(given, tmp_path):
    def again(model, **prior):
        return retrain_head(model, "features", (X, Y), epochs=2, verbose=0, **prior)

    model = small_classifier()
    first = again(model)
    model.save(tmp_path / "model.keras")
    loaded = [keras.models.load_model(tmp_path / "model.keras") for _ in range(2)]
    known = again(model)
    told = again(loaded[0], prior=first if given == "report" else first.prior)
    assert told.recipe.tau == known.recipe.tau < first.recipe.tau
    np.testing.assert_allclose(told.prior, known.prior, rtol=1e-6)
    for one, other in zip(model.get_weights(), loaded[0].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    untold = again(loaded[1])
    assert untold.recipe.tau == first.recipe.tau


def test_the_prior_of_the_training_data_can_be_named():
    model = small_classifier()
    first = retrain_head(model, "features", (X, Y), epochs=1, verbose=0)
    report = retrain_head(
        model, "features", (X, Y), epochs=1, verbose=0, prior="training"
    )
    assert report.recipe.tau == first.recipe.tau
    np.testing.assert_allclose(report.prior, first.prior)


def test_of_outputs_in_equal_shares_nothing_is_kept_of_the_prior():
    model = small_classifier()
    report = retrain_head(
        model, "features", (X, Y), epochs=1, verbose=0, prior="uniform"
    )
    assert report.recipe.tau == 0.3


def test_a_class_without_examples_has_no_share():
    data = X[Y != 1], Y[Y != 1]
    model = small_classifier()
    report = retrain_head(model, "features", data, epochs=1, verbose=0)
    assert report.prior[1] == 0.0
    assert sum(report.prior) == pytest.approx(1.0)


def test_a_split_of_another_model_raises():
    model, other = small_classifier(), keras.models.clone_model(small_classifier())
    other.set_weights(model.get_weights())
    split = Split(split_at(model, "features").trunk, split_at(other, "features").head)
    with pytest.raises(
        ValueError, match="weights that .* does not have.*to another model"
    ):
        retrain_head(model, split, (X, Y), verbose=0)


@pytest.mark.parametrize(
    "name, error, message",
    [
        ("recipe", TypeError, "does not take a `recipe`"),
        *(
            (name, ValueError, rf"^\['{name}'\] cannot be passed")
            for name in ("blend", "tau", "target_prior", "optimizer")
        ),
    ],
)
def test_tune_takes_nothing_that_it_would_not_heed(name, error, message):
    with pytest.raises(error, match=message):
        tune(small_classifier(), "features", (X, Y), (X, Y), verbose=0, **{name: None})


def test_an_error_after_the_training_leaves_the_head_as_it_was(monkeypatch):
    class Broken(ClassConditionalGaussian):
        @property
        def report(self):
            raise RuntimeError("no report")

    model = small_classifier()
    before = model.get_weights()
    with pytest.raises(RuntimeError, match="no report"):
        retrain_head(model, "features", (X, Y), gaussian=Broken(3), verbose=0)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["task", "material", "recipe"])
def test_fit_head_names_what_is_of_another_kind(name):
    head = split_at(small_classifier(), "features").head
    data = LabeledFeatures(RNG.normal(size=(98, 5)).astype("float32"), Y)
    arguments = {
        "task": Task(head, 3, "sparse_categorical_crossentropy"),
        "material": prepare_material(data, HeadRecipe(), 3),
        "recipe": HeadRecipe(epochs=1),
    }
    assert fit_head(**arguments, verbose=0).kept
    with pytest.raises(TypeError, match=f"`{name}` must be a .*; received str"):
        fit_head(**{**arguments, name: "auto"}, verbose=0)


def test_a_dict_of_another_number_of_classes_raises():
    with pytest.raises(ValueError, match="`gaussian` has 7 classes, but the model 3"):
        retrained(gaussian={"num_classes": 7})


def test_weights_are_not_lost_in_a_sampler():
    data = LabeledFeatures(X, Y, 1.0 + Y)
    with pytest.raises(
        ValueError, match="have sample weights.*samplers do not support"
    ):
        prepare_material(data, HeadRecipe(sampler=SMOTE()), 3)


def test_a_head_of_another_width_raises():
    head = split_at(small_classifier(), "features").head
    data = LabeledFeatures(RNG.normal(size=(98, 5)).astype("float32"), Y)
    material = prepare_material(data, HeadRecipe(), 3)
    with pytest.raises(ValueError, match=r"5 classes must have outputs \[B, 5\]"):
        fit_head(Task(head, 5, "sparse_categorical_crossentropy"), material, verbose=0)


def test_a_class_with_one_example_has_all_share_a_covariance_by_default():
    labels = np.repeat([0, 1, 2], [20, 8, 1])
    features = np.random.default_rng(0).normal(size=(29, 3)).astype("float32")
    data = LabeledFeatures(features, labels)
    material = prepare_material(data, HeadRecipe(), 3)
    assert material.gaussian.covariance_type == "tied"
    with pytest.raises(ValueError, match="Class 2 has 1 example"):
        prepare_material(data, HeadRecipe(gaussian={}), 3)
    # Two views of one example are two features, and still one example.
    twice = LabeledFeatures.concatenate([data, data])
    material = prepare_material(twice, HeadRecipe(), 3, totals=[20, 8, 1])
    assert material.gaussian.covariance_type == "tied"
