"""Tests for material.py: what a head is trained on, of some or all examples."""

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE
from imblearn.under_sampling import RandomUnderSampler

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.extraction.chosen import ClassTotals
from tf_pseudofeat.head.material import Material, prepare_material
from tf_pseudofeat.head.recipe import HeadRecipe

Y = np.repeat([0, 1, 2], [30, 8, 2])
X = np.random.default_rng(0).normal(size=(40, 3)).astype("float32") + Y[:, np.newaxis]
DATA = LabeledFeatures(X, Y)
TIED = {"covariance_type": "tied"}


def test_gaussians_are_fitted_and_the_rest_is_drawn():
    material = prepare_material(DATA, HeadRecipe(gaussian=TIED), 3)
    np.testing.assert_array_equal(material.real, [30, 8, 2])
    np.testing.assert_array_equal(material.pseudo, [0, 22, 28])
    np.testing.assert_array_equal(material.gaussian.moments.count, [30, 8, 2])
    assert material.features is DATA and material.minority == [1, 2]


def test_a_sampler_adds_and_removes_real_features():
    more = prepare_material(DATA, HeadRecipe(sampler=SMOTE(k_neighbors=1)), 3)
    np.testing.assert_array_equal(more.pseudo, [0, 22, 28])
    fewer = prepare_material(DATA, HeadRecipe(sampler=RandomUnderSampler()), 3)
    np.testing.assert_array_equal(fewer.pseudo, [-28, -6, 0])
    for material in (more, fewer):
        np.testing.assert_array_equal(material.real, [30, 8, 2])
        np.testing.assert_array_equal(material.mass, [30, 8, 2])
        assert material.gaussian is None


@pytest.mark.parametrize("totals", [[3000, 80, 2], ClassTotals([3000, 80, 2])])
def test_of_chosen_examples_the_data_behind_them_say_what_is_rare(totals):
    material = prepare_material(DATA, HeadRecipe(gaussian=TIED), 3, totals, viewed=True)
    np.testing.assert_array_equal(material.real, [30, 8, 2])
    np.testing.assert_array_equal(material.examples, [3000, 80, 2])
    np.testing.assert_array_equal(material.population, [3000, 80, 2])
    assert material.viewed


def test_weights_make_the_mass_and_not_the_examples():
    weighted = LabeledFeatures(X, Y, np.where(Y == 0, 0.5, 2.0))
    material = Material(weighted, weighted.class_counts(3))
    np.testing.assert_array_equal(material.real, [30, 8, 2])
    np.testing.assert_allclose(material.mass, [15, 16, 4])
    np.testing.assert_allclose(material.population, [15, 16, 4])


def test_chosen_examples_weigh_what_their_classes_do_in_all_the_data():
    totals = ClassTotals([3000, 80, 2])
    material = prepare_material(DATA, HeadRecipe(gaussian=TIED), 3, totals)
    weighted = material.weighted_as_population(DATA)
    sums = np.bincount(Y, weighted.sample_weight)
    np.testing.assert_allclose(sums / sums.sum(), np.array([3000, 80, 2]) / 3082)
    np.testing.assert_array_equal(weighted.features, DATA.features)
    own = LabeledFeatures(X, Y, np.linspace(1, 2, 40))
    weighted = material.weighted_as_population(own).sample_weight
    np.testing.assert_allclose(np.bincount(Y, weighted), [3000, 80, 2])
    np.testing.assert_allclose(weighted[1] / weighted[0], 1 + 1 / 39)


def test_all_examples_or_as_many_of_each_class_need_no_weights():
    whole = prepare_material(DATA, HeadRecipe(gaussian=TIED), 3)
    assert whole.weighted_as_population(DATA) is DATA
    material = prepare_material(DATA, HeadRecipe(gaussian=TIED), 3, [300, 80, 20])
    assert material.weighted_as_population(DATA) is DATA


def test_a_mix_has_the_weights_of_what_is_drawn():
    weighted = LabeledFeatures(X, Y, np.where(Y == 0, 0.5, 2.0))
    material = Material(weighted, weighted.class_counts(3), counts={1: 8})
    np.testing.assert_allclose(material.mix, [15, 32, 4])


def test_a_stream_has_each_real_feature_once_and_the_pseudo_features():
    recipe = HeadRecipe(gaussian=TIED, batch_size=16)
    stream = prepare_material(DATA, recipe, 3).stream(recipe, (1, 2))
    batches = list(stream.as_numpy_iterator())
    assert [len(labels) for _, labels in batches[:-1]] == [16] * (len(batches) - 1)
    features, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    np.testing.assert_array_equal(np.bincount(labels), [30, 30, 30])
    received = {row.tobytes() for row in features}
    assert {row.tobytes() for row in X} <= received and len(received) == 90


def test_one_class_is_nothing_to_balance():
    with pytest.raises(
        ValueError, match="one class of 3, so there is nothing to balan"
    ):
        prepare_material(LabeledFeatures(X[:9], Y[:9]), HeadRecipe(), 3)


def test_a_sampler_takes_no_weights():
    weighted = LabeledFeatures(X, Y, np.full(40, 2.0))
    with pytest.raises(ValueError, match="weight"):
        prepare_material(weighted, HeadRecipe(sampler=SMOTE()), 3)
