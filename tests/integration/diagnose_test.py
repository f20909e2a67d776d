"""Tests for diagnose.py: each remedy is what its code would give."""

import dataclasses

import keras
import numpy as np
import pytest
from sklearn import metrics

import tf_pseudofeat as tfpf
from tests.model_state import weights
from tests.small_fraud import NAMES, classifier, payments, word
from tf_pseudofeat.evaluation.choose_thresholds import (
    cross_fitted_decisions,
    predictions_of,
)
from tf_pseudofeat.evaluation.comparison import beyond_chance, difference_error
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.predictions import Predictions
from tf_pseudofeat.retraining.diagnose import _recommend, diagnose

TRAINING, VALIDATION = payments(0), payments(1, (600, 60))
THRESHOLD, ADJUSTED = "a threshold of its own", "logit adjustment, tau 1"
DEFAULT, AUTO = "retraining, by default", "retraining, recipe 'auto'"
EPOCHS = 2


def run(model, validation=VALIDATION, training=TRAINING, **settings):
    settings = {"epochs": EPOCHS, "verbose": 0, **settings}
    return diagnose(model, "features", training, validation, **settings)


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def diagnosis(model):
    before = weights(model)
    diagnosis = run(model)
    assert weights(model) == before
    return diagnosis


def scores_of(diagnosis):
    return {remedy.name: remedy.scores for remedy in diagnosis.remedies}


def decided(model):
    p = keras.ops.convert_to_numpy(model(VALIDATION[0])).astype(float)
    return p / p.sum(axis=1, keepdims=True), p.argmax(axis=1)


# ---- Each remedy. --------------------------------------------------------------------


def test_the_cheapest_remedy_comes_first(diagnosis):
    names = [remedy.name for remedy in diagnosis.remedies]
    assert names == ["as it is", THRESHOLD, ADJUSTED, DEFAULT, AUTO]
    fitted = [remedy.name for remedy in diagnosis.remedies if remedy.cross_fitted]
    assert fitted == [THRESHOLD, AUTO]
    assert diagnosis.monitor == "balanced_accuracy"
    assert diagnosis.counts == [600, 60]


def test_a_frame_has_a_row_for_each_remedy(diagnosis):
    frame = diagnosis.to_frame()
    assert frame.index.tolist() == [remedy.name for remedy in diagnosis.remedies]
    assert frame.index.name == "remedy"
    assert frame.index[frame["recommended"]] == [diagnosis.recommended.name]
    for remedy in diagnosis.remedies:
        row = frame.loc[remedy.name]
        assert row["score"] == remedy.score == row["balanced_accuracy"]
        assert row["log_loss"] == remedy.scores["log_loss"]
        assert (row["cross_fitted"], row["code"]) == (remedy.cross_fitted, remedy.code)


def test_a_frame_has_a_row_for_each_trial(diagnosis):
    tuning = diagnosis.tuning
    frame = tuning.to_frame()
    assert frame.index.name == "candidate" and frame.index[0] == "as it is"
    assert frame.index.is_unique and len(frame) == len(tuning.trials)
    (chosen,) = frame[frame["chosen"]].itertuples()
    assert (chosen.blend, chosen.tau) == (tuning.chosen.blend, tuning.chosen.tau)
    assert frame["score"].tolist() == [trial.score for trial in tuning.trials]


def check_scores(received, p, guess):
    ids = VALIDATION[1]
    expected = {
        "accuracy": metrics.accuracy_score(ids, guess),
        "balanced_accuracy": metrics.balanced_accuracy_score(ids, guess),
        "f1": metrics.f1_score(ids, guess),
        "average_precision": metrics.average_precision_score(ids, p[:, 1]),
        "log_loss": metrics.log_loss(ids, p),
    }
    for name, score in expected.items():
        assert received[name] == pytest.approx(score, abs=1e-5), name


def test_as_it_is_is_the_model(diagnosis, model):
    check_scores(scores_of(diagnosis)["as it is"], *decided(model))


def test_logit_adjustment_is_that_of_the_counts(diagnosis, model):
    adjusted = tfpf.adjust_logits(model, tfpf.class_counts(TRAINING[1]))
    check_scores(scores_of(diagnosis)[ADJUSTED], *decided(adjusted))


def test_thresholds_are_cross_fitted_and_leave_the_probabilities(diagnosis, model):
    fitted = cross_fitted_decisions(
        predictions_of(model, VALIDATION), Guard("balanced_accuracy"), [1], (1, 2)
    )
    p, _ = decided(model)
    check_scores(scores_of(diagnosis)[THRESHOLD], p, fitted.predicted)
    chosen = tfpf.choose_thresholds(model, VALIDATION)
    (remedy,) = (r for r in diagnosis.remedies if r.name == THRESHOLD)
    assert remedy.score == pytest.approx(chosen.estimate, abs=1e-6)
    assert remedy.standard_error == pytest.approx(chosen.standard_error, abs=1e-6)


def test_the_default_is_that_of_retrain_head(diagnosis):
    retrained = classifier()
    report = tfpf.retrain_head(
        *(retrained, "features", TRAINING),
        validation_data=VALIDATION,
        monitor=None,
        epochs=EPOCHS,
        verbose=0,
    )
    assert report.recipe.blend == diagnosis.tuning.default.blend
    check_scores(scores_of(diagnosis)[DEFAULT], *decided(retrained))


def test_auto_is_what_its_search_expects(diagnosis):
    remedy = diagnosis.remedies[-1]
    assert remedy.score == pytest.approx(diagnosis.tuning.estimate)
    assert remedy.standard_error == pytest.approx(diagnosis.tuning.standard_error)
    assert remedy.score <= diagnosis.tuning.chosen.score


def test_the_score_of_each_remedy_is_the_monitored_one(diagnosis):
    for remedy in diagnosis.remedies:
        assert remedy.score == pytest.approx(remedy.scores["balanced_accuracy"])


def codes(diagnosis):
    return {remedy.name: remedy.code for remedy in diagnosis.remedies}


def test_with_weights_the_code_is_not_that_of_counted_labels(diagnosis, model):
    """Which know nothing of the weights."""
    weight = np.where(TRAINING[1] == 1, 3.0, 1.0)
    weighted = run(model, training=(*TRAINING, weight), epochs=1)
    assert codes(diagnosis)[ADJUSTED] == "adjust_logits(model, class_counts(labels))"
    code = "retrain_head(model, 'features', data, validation_data=..., blend=1, tau=1)"
    assert codes(weighted)[ADJUSTED] == code


def test_the_code_of_a_split_names_it(model):
    split = tfpf.split_at(model, "features")
    settings = {"epochs": 1, "verbose": 0, "monitor": "f1"}
    code = codes(diagnose(model, split, TRAINING, VALIDATION, **settings))[DEFAULT]
    assert code == "retrain_head(model, split, data, validation_data=..., monitor='f1')"


def test_the_code_of_the_recommended_runs(diagnosis, model):
    names = {
        "choose_thresholds": tfpf.choose_thresholds,
        "adjust_logits": tfpf.adjust_logits,
        "class_counts": tfpf.class_counts,
        "labels": TRAINING[1],
        "model": model,
        "validation_data": VALIDATION,
    }
    for remedy in diagnosis.remedies[1:3]:
        assert eval(remedy.code, names) is not None
    for remedy in diagnosis.remedies[3:]:
        assert remedy.code.startswith("retrain_head(model, 'features', data, validat")
    assert diagnosis.remedies[-1].code.endswith('recipe="auto")')


def test_a_recipe_is_none_of_its_arguments(model):
    with pytest.raises(TypeError, match="`diagnose` does not take a `recipe`"):
        run(model, recipe="auto")


# ---- What is recommended. ------------------------------------------------------------


def test_a_remedy_is_recommended_and_printed(diagnosis):
    assert diagnosis.recommended in diagnosis.remedies[1:]
    text = str(diagnosis)
    assert text.endswith(f"{diagnosis.reason}\n    {diagnosis.recommended.code}")
    header, *rows = text.splitlines()[:6]
    assert " ".join(header.split()) == (
        "remedy balanced accuracy +- accuracy macro F1 F1 of the minority average "
        "precision of the minority log loss"
    )
    for row, remedy in zip(rows, diagnosis.remedies, strict=True):
        assert row.startswith(remedy.name + "*" * remedy.cross_fitted)
        assert f"{100 * remedy.score:.1f}" in row
        assert row.endswith(f"{remedy.scores['log_loss']:.3f}")
    assert "On 660 validation examples" in text
    assert "<table>" in diagnosis._repr_html_()


IDS = np.repeat([0, 1], [300, 100])


def right_of_100(found, lost=0):
    """Predictions that find so many of class 1, and lose so many of class 0."""
    guess = IDS.copy()
    guess[300 + found :] = 0
    guess[:lost] = 1
    p = np.where(np.eye(2)[guess] == 1, 0.9, 0.1)
    return Predictions(IDS, p, "softmax")


@pytest.mark.parametrize(
    ("found", "chosen", "words"),
    [
        ([50, 50, 50], 0, "Nothing raises F1 of the minority by more than chance:"),
        ([50, 51, 40], 0, "Nothing raises"),
        ([50, 80, 60], 1, "The best in F1 of the minority, by more than chance:"),
        ([50, 60, 80], 2, "The best in F1 of the minority, by more than chance:"),
        (
            [50, 79, 80],
            1,
            "Within chance as good in F1 of the minority as the best, which is 'b', "
            "and cheaper:",
        ),
    ],
)
def test_the_cheapest_that_is_as_good_as_the_best_is_recommended(found, chosen, words):
    said = dict(zip(["no", "a", "b"], map(right_of_100, found), strict=True))
    name, reason = _recommend(said, Guard("f1", confidence=0.95), [1])
    assert name == ["no", "a", "b"][chosen]
    assert reason.startswith(words)
    # And that is what a test of each pair says.
    guard = Guard("f1", confidence=0.95)

    def sure(new, old):
        def gained(rows=slice(None)):
            return guard.score(said[new].select(rows), [1]) - guard.score(
                said[old].select(rows), [1]
            )

        return beyond_chance(gained(), float(difference_error(gained, IDS)))

    assert (name != "no") is (sure("a", "no") or sure("b", "no"))


def test_what_loses_a_class_is_marked_and_not_recommended(model):
    guard = Guard("balanced_accuracy", max_recall_drop=0.001)
    diagnosis = run(model, monitor=guard)
    lost = {r.name for r in diagnosis.remedies if r.excluded}
    assert {ADJUSTED, DEFAULT} <= lost and "as it is" not in lost
    before = diagnosis.remedies[0].scores["recall"][0]
    rows = {row.split("   ")[0].strip(): row for row in str(diagnosis).splitlines()}
    for remedy in diagnosis.remedies:
        name = remedy.name + ("*" if remedy.cross_fitted else "")
        assert f"{name} (a class is lost)" in rows if remedy.excluded else name in rows
        if remedy.excluded:
            assert f"from {100 * before:.1f} to " in remedy.excluded
    assert not diagnosis.recommended.excluded
    assert diagnosis.reason.startswith("Of those that lose no class: ")
    code = codes(diagnosis)[AUTO]
    assert "monitor=Guard('balanced_accuracy', max_recall_drop=0.001)" in code


def test_without_a_limit_no_class_is_lost(diagnosis, model):
    assert not any(remedy.excluded for remedy in diagnosis.remedies)
    assert not diagnosis.reason.startswith("Of those")
    guard = Guard("f1", confidence=0.9, max_recall_drop=None)
    code = codes(run(model, monitor=guard, epochs=1))[DEFAULT]
    assert code.endswith("monitor=Guard('f1', confidence=0.9, max_recall_drop=None))")


def test_of_a_loss_the_lowest_is_the_best():
    said = {"no": right_of_100(50), "a": right_of_100(90), "b": right_of_100(20)}
    name, reason = _recommend(said, Guard("log_loss"), [1])
    assert (name, reason) == ("a", "The best in log loss, by more than chance:")


# ---- Other models, data and monitors. ------------------------------------------------


def test_labels_may_be_names():
    training, validation = (
        (x, word(ids)) for x, ids in (TRAINING, payments(1, (200, 8)))
    )
    diagnosis = run(classifier(), validation, training, class_names=NAMES)
    assert diagnosis.class_names == NAMES
    assert diagnosis.counts == [200, 8]
    assert "The validation data have 8 of 'fraud'" in str(diagnosis)


def test_one_output_has_the_same_remedies():
    diagnosis = run(classifier("sigmoid"))
    names = [remedy.name for remedy in diagnosis.remedies]
    assert names == ["as it is", THRESHOLD, ADJUSTED, DEFAULT, AUTO]
    assert diagnosis.remedies[1].score > diagnosis.remedies[0].score


def test_a_head_without_a_bias_has_no_adjustment():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(4, "relu", name="features")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax", use_bias=False)(x))
    names = [remedy.name for remedy in run(model).remedies]
    assert names == ["as it is", THRESHOLD, DEFAULT, AUTO]


def share_of_fraud_found(labels, outputs):
    return metrics.f1_score(labels, np.argmax(outputs, axis=1))


def test_a_function_is_a_monitor(model):
    diagnosis = run(model, monitor=share_of_fraud_found)
    assert diagnosis.monitor == "share_of_fraud_found"
    for remedy in diagnosis.remedies:
        assert remedy.score == pytest.approx(remedy.scores["f1"])
    code = diagnosis.remedies[1].code
    assert code == "choose_thresholds(model, validation_data, share_of_fraud_found)"


def test_a_score_that_no_threshold_moves_has_no_threshold_as_its_remedy(model):
    few = payments(1, (100, 20))  # and few candidates: each costs a second
    diagnosis = run(model, few, monitor="log_loss", fresh_head=True)
    names = [remedy.name for remedy in diagnosis.remedies]
    assert names == ["as it is", ADJUSTED, DEFAULT, AUTO]
    for remedy in diagnosis.remedies:
        assert remedy.score == pytest.approx(remedy.scores["log_loss"])


def test_without_a_monitor_it_goes_by_balanced_accuracy(diagnosis, model):
    received = run(model, monitor=None)
    assert received.monitor == "balanced_accuracy"
    assert dataclasses.replace(received, seconds=0, tuning=None) == (
        dataclasses.replace(diagnosis, seconds=0, tuning=None)
    )


def test_more_classes_have_a_bias_each():
    rng = np.random.default_rng(0)
    ids = np.repeat([0, 1, 2], [200, 60, 40])
    x = (rng.normal(size=(300, 6)) + 2 * np.eye(3, 6)[ids]).astype("float32")
    inputs = keras.Input((6,))
    features = keras.layers.Dense(6, "relu", name="features")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(features))
    diagnosis = run(model, (x[::2], ids[::2]), (x[1::2], ids[1::2]))
    assert diagnosis.remedies[1].name == "a bias per class"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"validation": None}, ValueError, "Pass `validation_data`"),
        ({"monitor": "acc"}, ValueError, "`monitor` must be one of"),
        ({"class_names": ["ok"]}, ValueError, "1 names for 2"),
        ({"blend": 0.5}, (TypeError, ValueError), "blend"),
    ],
)
def test_what_does_not_fit_raises(model, settings, error, message):
    with pytest.raises(error, match=message):
        run(model, **settings)
