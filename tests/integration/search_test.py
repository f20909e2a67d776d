"""Tests for search.py: small heads, on features whose answer is known."""

import dataclasses

import keras
import numpy as np
import pytest
from scipy import stats

import tf_pseudofeat as tfpf
from tests.trained import Trained, compiled, train
from tf_pseudofeat.evaluation.candidates import Candidates, score_error
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.head.bias_shift import shift_bias
from tf_pseudofeat.retraining.search import search_recipe

SIZES = [400, 400, 20]
LABELS = np.repeat([0, 1, 2], SIZES)
EVEN = np.repeat([0, 1, 2], 300)
CENTERS = np.array([[0.0, 0.0], [3.0, 0.0], [1.5, 1.5]])


def drawn(seed, labels=LABELS, spread=1.0):
    noise = np.random.default_rng(seed).normal(size=(len(labels), 2))
    features = (CENTERS[labels] + spread * noise).astype("f4")
    return tfpf.LabeledFeatures(features, labels)


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    head = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(3, activation="softmax")]
    )
    optimizer, loss = keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy"
    compiled(head, optimizer, loss, jit_compile=False)
    seen = drawn(0)
    train(head, seen.features, seen.labels, epochs=20)
    return Trained(head)


@pytest.fixture
def head(trained):
    return trained.again()


def task_of(head, num_classes=3, loss="sparse_categorical_crossentropy"):
    return tfpf.Task(
        head, num_classes, loss, optimizer=getattr(head, "optimizer", None)
    )


def search(head, training, validation, recipe=None, **settings):
    task, recipe = task_of(head), recipe or tfpf.HeadRecipe(epochs=3)
    material = tfpf.prepare_material(training, recipe, 3, viewed=True)
    tuning, _ = search_recipe(task, material, validation, recipe=recipe, **settings)
    return tuning


def weights(head):
    return [variable.numpy().tobytes() for variable in head.variables]


def test_the_best_on_validation_data_is_chosen_and_the_head_is_left(head):
    before = weights(head)
    tuning = search(head, drawn(1), drawn(5, EVEN))
    assert weights(head) == before
    assert tuning.chosen.score == max(trial.score for trial in tuning.trials)
    assert (tuning.recipe.blend, tuning.recipe.tau) == (
        tuning.chosen.blend,
        tuning.chosen.tau,
    )
    assert tuning.counts == [300, 300, 300]
    assert str(tuning.trials[0]) == "as it is"
    assert str(tuning.default) == "blend=0.2, tau=0.5"


def test_each_score_is_that_of_fit_head_with_its_settings(head):
    training, validation = drawn(1), drawn(5, EVEN)
    tuning = search(head, training, validation, monitor="geometric_mean")
    old = head.get_weights()
    for trial in tuning.trials[:: len(tuning.trials) // 4]:
        head.set_weights(old)
        recipe = tfpf.HeadRecipe(epochs=3, blend=trial.blend, tau=trial.tau)
        material = tfpf.prepare_material(training, recipe, 3)
        fit = tfpf.fit_head(
            task_of(head), material, recipe, scoring=validation, verbose=0
        )
        assert fit.after["geometric_mean"] == pytest.approx(trial.score, abs=1e-12)
        assert fit.after["mean_minority_accuracy"] == pytest.approx(
            trial.minority_recall, abs=1e-12
        )


def test_the_first_candidates_are_the_model_as_it_is_and_its_adjustment(head):
    validation = drawn(5, EVEN)
    tuning = search(head, drawn(1), validation)
    alone = {trial.tau: trial.score for trial in tuning.trials if trial.blend == 1}
    for tau, score in alone.items():
        copy = keras.models.clone_model(head)
        copy.set_weights(head.get_weights())
        shift_bias(copy, SIZES, tau)
        outputs = keras.ops.convert_to_numpy(copy(validation.features))
        predicted = outputs.argmax(axis=-1)
        expected = tfpf.balanced_accuracy(validation.labels, predicted)
        assert score == pytest.approx(expected, abs=1e-12)


def test_a_model_that_nothing_beats_is_left_as_it_is(head):
    # Judged by plain accuracy on data like those it was trained on, of clear classes.
    easy, again = drawn(1, spread=0.05), drawn(2, spread=0.05)
    train(head, easy.features, easy.labels, epochs=20)
    tuning = search(head, easy, again, monitor="accuracy")
    assert str(tuning.chosen) == "as it is"
    assert (tuning.recipe.blend, tuning.recipe.tau) == (1.0, 0.0)


class Rare:
    """Training data of which class 1 has no example, so that no tau is tried."""

    minority, population, mix = [2], np.array([9, 0, 1]), np.array([9, 0, 9])


class Guesses:
    """A task and its validation data in one: whose head guesses, anew each time."""

    num_classes, has_logit_bias = 3, True

    def __init__(self, labels, rng):
        self.ids, self.rng = labels, rng

    def predict(self, validation):
        outputs = self.rng.dirichlet(np.ones(3), len(self.ids))
        return Predictions(self.ids, outputs, "softmax")


def test_the_estimate_is_not_from_the_data_that_chose():
    """Of 100 candidates that guess, the best scores above chance; the estimate not."""
    rng = np.random.default_rng(0)
    labels, guard = np.repeat([0, 1, 2], 45), Guard()
    chosen, estimates, errors = [], [], []
    for _ in range(20):
        guesses = Guesses(labels, rng)
        candidates = Candidates(guesses, Rare(), guesses, guard, 0.5, (1, 2))
        for blend in np.linspace(0, 0.99, 99):
            candidates.add(blend)
        fitted = candidates.cross_fitted()
        chosen.append(guard.score(candidates.predictions(*candidates.best), [2]))
        estimates.append(guard.score(fitted, [2]))
        errors.append(score_error(fitted, guard, [2]))
    assert np.mean(chosen) > 0.42
    assert np.mean(estimates) == pytest.approx(1 / 3, abs=4 * stats.sem(estimates))
    assert np.mean(errors) > 0.6 * np.std(estimates)  # the choice varies, too


def test_seven_of_seven_is_no_certainty(head):
    labels = np.repeat([0, 1, 2], [200, 200, 7])
    tuning = search(head, drawn(1), drawn(3, labels, spread=0.01))
    certain = [trial for trial in tuning.trials if trial.minority_recall == 1]
    assert certain
    assert min(trial.standard_error for trial in certain) > 0.02
    assert tuning.standard_error > 0.02


def test_a_head_without_a_bias_has_no_tau():
    head = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(3, "softmax", use_bias=False)]
    )
    tuning = search(head, drawn(1), drawn(2))
    assert {trial.tau for trial in tuning.trials} == {0.0}


def test_a_class_without_training_examples_takes_the_taus_away(head):
    two = drawn(1).select(LABELS < 2)
    tuning = search(head, two, drawn(2))
    assert {trial.tau for trial in tuning.trials} == {0.0}


def test_a_fresh_head_is_not_blended(head):
    recipe = tfpf.HeadRecipe(epochs=3, fresh_head=True)
    tuning = search(head, drawn(1), drawn(2), recipe)
    assert {trial.blend for trial in tuning.trials} == {0.0, 1.0}
    assert tuning.recipe.fresh_head is (tuning.chosen.blend == 0)


def test_one_output_is_judged_by_its_threshold():
    labels = np.repeat([0, 1], [300, 30])
    keras.utils.set_random_seed(0)
    head = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])
    recipe = tfpf.HeadRecipe(
        epochs=20, optimizer=lambda steps: keras.optimizers.Adam(0.05)
    )
    training, validation = (drawn(seed, labels) for seed in range(2))
    task = task_of(head, 2, "binary_crossentropy")
    material = tfpf.prepare_material(training, recipe, 2)
    tuning, _ = search_recipe(task, material, validation, recipe=recipe)
    assert tuning.chosen.score > 0.85
    assert tuning.estimate > 0.8


def test_a_training_that_breaks_leaves_the_old_head_to_choose_from(head):
    recipe = tfpf.HeadRecipe(
        epochs=3, optimizer=lambda steps: keras.optimizers.SGD(1e38)
    )
    before = weights(head)
    tuning = search(head, drawn(1), drawn(2), recipe)
    assert {trial.blend for trial in tuning.trials} == {1.0}
    assert weights(head) == before


def test_the_same_seed_chooses_the_same(head):
    first, second = (search(head, drawn(1), drawn(2), seed=(3, 4)) for _ in range(2))
    assert dataclasses.replace(first, seconds=0, recipe=None) == dataclasses.replace(
        second, seconds=0, recipe=None
    )


def test_it_prints_what_was_tried_and_what_to_expect(head):
    text = str(search(head, drawn(1), drawn(5, EVEN)))
    assert "Scored on 900 validation examples, at least 300 of a class; 48" in text
    assert "(cross-fitted; the score below is optimistic)" in text
    lines = text.splitlines()
    assert lines[4].startswith("as it is")
    assert lines[5].startswith("logit adjustment alone, tau=")
    assert any(line.startswith("blend=0.2, tau=0.5, the default") for line in lines)
    assert sum("*" in line for line in lines[4:]) == 1
