"""Tests for search.py: small heads, on features whose answer is known."""

import time

import keras
import numpy as np
import pytest

from tests import heads
from tf_pseudofeat.budget import pseudo_counts
from tf_pseudofeat.gaussian import ClassConditionalGaussian
from tf_pseudofeat.labeled import LabeledFeatures
from tf_pseudofeat.recipe import HeadRecipe
from tf_pseudofeat.search import Trial, Tuning, _better, _leaning, search_recipe
from tf_pseudofeat.task import Task

SIZES = [400, 400, 20]
LABELS = np.repeat([0, 1, 2], SIZES)
CENTRES = np.array([[0.0, 0.0], [3.0, 0.0], [1.5, 1.5]])


def drawn(seed, labels=LABELS, spread=1.0):
    noise = np.random.default_rng(seed).normal(size=(len(labels), 2))
    return LabeledFeatures((CENTRES[labels] + spread * noise).astype("f4"), labels)


@pytest.fixture
def head():
    keras.utils.set_random_seed(0)
    head = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(3, activation="softmax")]
    )
    head.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy")
    seen = drawn(0)
    head.fit(seen.features, seen.labels, epochs=20, verbose=0)
    return head


def search(head, *args, **settings):
    return search_recipe(
        Task(
            head,
            3,
            "sparse_categorical_crossentropy",
            optimizer=getattr(head, "optimizer", None),
        ),
        *args,
        recipe=HeadRecipe(epochs=3),
        **settings,
    )


def weights(head):
    return [variable.numpy().tobytes() for variable in head.variables]


def test_what_is_chosen_is_as_good_on_new_data_as_the_best_trial_is(head):
    before = weights(head)
    tuning = search(head, drawn(1), [drawn(2), drawn(3)])
    assert weights(head) == before
    assert tuning.judged_on == "a held-out view"
    assert tuning.complete
    chosen = next(t for t in tuning.trials if t.settings == tuning.chosen)
    best = max(tuning.trials, key=lambda t: t.balanced_accuracy)
    assert chosen.balanced_accuracy >= best.balanced_accuracy - 2 * best.standard_error
    plain = next(
        t for t in tuning.trials if t.settings == {**tuning.chosen, "tau": 0.0}
    )
    assert chosen.minority_recall >= plain.minority_recall


def test_the_score_is_that_of_a_head_with_these_settings(head):
    # With the prior taken off by tau, against Bayes' rule on the same outputs.
    judged = drawn(9)
    tuning = search(head, drawn(1), [judged], time_budget=0.0)
    assert not tuning.complete
    taus = {t.settings["tau"]: t for t in tuning.trials}
    assert sorted(taus) == [0.0, 0.15, 0.3, 0.5, 0.65, 0.8, 1.0, 1.25]
    assert {t.settings["blend"] for t in tuning.trials} == {0.5}
    recalls = [taus[tau].minority_recall for tau in sorted(taus)]
    assert recalls == sorted(recalls)
    assert recalls[0] < recalls[-1]


def test_validation_data_decide_by_balanced_accuracy_alone(head):
    tuning = search(head, drawn(1), [], drawn(5, np.repeat([0, 1, 2], 300)))
    assert tuning.judged_on == "validation data"
    assert {t.settings["blend"] for t in tuning.trials} == {0.0, 0.5}
    best = max(t.balanced_accuracy for t in tuning.trials)
    chosen = next(t for t in tuning.trials if t.settings == tuning.chosen)
    assert chosen.balanced_accuracy == best


def test_a_memorised_trunk_is_not_believed(head):
    # Features that lie at their class's centre: all right, whatever the settings.
    collapsed = drawn(0, spread=1e-3)
    head.fit(collapsed.features, collapsed.labels, epochs=60, verbose=0)
    with pytest.warns(UserWarning, match="left at their defaults.*`augment`"):
        tuning = search(head, collapsed)
    assert (tuning.judged_on, tuning.trials) == ("nothing", [])
    assert (tuning.chosen["blend"], tuning.chosen["tau"]) == (0.0, 0.0)
    # A view tells them apart.
    assert search(head, collapsed, [drawn(1), drawn(2)]).chosen["on_views"] is True


def test_features_are_held_out_of_every_class(head):
    tuning = search(head, drawn(4))
    assert tuning.judged_on == "held-out features"
    assert tuning.trials


def test_a_head_without_a_bias_has_no_tau():
    head = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(3, "softmax", use_bias=False)]
    )
    tuning = search(head, drawn(1), [drawn(2)], time_budget=0.0)
    assert {t.settings["tau"] for t in tuning.trials} == {0.0}


def test_one_output_is_judged_by_its_threshold():
    labels = np.repeat([0, 1], [300, 30])
    head = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])
    plain, view = (drawn(seed, labels) for seed in range(2))
    tuning = search_recipe(
        Task(head, 2, "binary_crossentropy"),
        plain,
        [view],
        recipe=HeadRecipe(
            epochs=20, optimizer=lambda steps: keras.optimizers.Adam(0.05)
        ),
    )
    best = max(t.balanced_accuracy for t in tuning.trials)
    assert best > 0.85


def test_the_same_seed_tries_and_chooses_the_same(head):
    first, second = (
        search(head, drawn(1), [drawn(2)], seed=(3, 4), time_budget=0.0)
        for _ in range(2)
    )
    assert first.chosen == second.chosen
    scores = [[t.balanced_accuracy for t in run.trials] for run in (first, second)]
    assert scores[0] == scores[1]


def test_the_blend_that_is_judged_is_the_one_of_fit_head(head):
    plain, judged = drawn(1), drawn(2)
    tuning = search(head, plain, [], judged, time_budget=0.0)
    gaussian = ClassConditionalGaussian(3)
    gaussian.adapt(plain.features, plain.labels)
    for blend in (0.0, 0.5):
        copy = keras.models.clone_model(head)
        copy.set_weights(head.get_weights())
        fit = heads.fit(
            copy,
            plain,
            judged,
            num_classes=3,
            gaussian=gaussian,
            counts=pseudo_counts(LABELS, "auto"),
            blend=blend,
            epochs=3,
        )
        (trial,) = (
            t
            for t in tuning.trials
            if (t.settings["blend"], t.settings["tau"]) == (blend, 0.0)
        )
        assert trial.balanced_accuracy == fit.after["balanced_accuracy"]


def test_no_head_is_trained_after_the_budget(head):
    began = time.perf_counter()
    tuning = search(head, drawn(1), [drawn(2)], time_budget=0.0)
    assert not tuning.complete
    assert len({t.seconds for t in tuning.trials}) == 1
    assert tuning.seconds <= time.perf_counter() - began


def trial(score, minority, **settings):
    return Trial({**settings, "tau": minority}, score, 0.01, minority, 0.0)


def test_leaning_stays_within_one_standard_error_and_with_the_head():
    mine = {"scale": 1.0}
    trials = [trial(0.70, 0.4, **mine), trial(0.695, 0.5, **mine)]
    others = [trial(0.68, 0.6, **mine), trial(0.70, 0.7, scale=2.0)]
    assert _leaning(trials + others, mine, trials[0]) is trials[1]


@pytest.mark.parametrize(
    "score, lean, better",
    [(0.709, True, False), (0.711, True, True), (0.701, False, True)],
)
def test_a_view_changes_a_setting_by_more_than_chance_alone(score, lean, better):
    assert _better(trial(score, 0.5), trial(0.70, 0.5), lean) is better
    assert _better(trial(score, 0.5), None, lean)
    assert not _better(None, trial(0.70, 0.5), lean)


def test_it_prints_what_was_chosen():
    trial = Trial({"covariance_scale": 2.0, "tau": 0.3}, 0.7, 0.01, 0.5, 1.0)
    chosen = HeadRecipe(tau=0.3), trial.settings
    text = str(Tuning(*chosen, "a held-out view", [trial], 1.0, True))
    assert "Judged on a held-out view; 1 combinations" in text
    assert "70.0*   1.0      50.0  covariance_scale=2.0, tau=0.3" in text
