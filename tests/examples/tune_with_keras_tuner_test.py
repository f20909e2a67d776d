"""The search over networks and recipes, with real trainings of a few epochs."""

import inspect

import numpy as np
import pytest

import tf_pseudofeat as tfpf
from examples.data import imbalance, load_images, validation_and_test

tuning = pytest.importorskip(
    "examples.tune_with_keras_tuner", reason="the extra `test` has keras-tuner"
)
TRIALS, EPOCHS = 3, 3


@pytest.fixture(scope="module")
def data():
    images = imbalance(load_images("digits"), seed=0)
    train = images.train_images, images.train_labels
    return train, *validation_and_test(images)


@pytest.fixture(scope="module")
def reports():
    """Of every retraining, in order."""
    return []


@pytest.fixture(scope="module")
def tuner(data, reports, tmp_path_factory):
    retrain_head = tfpf.retrain_head

    def reported(*args, **settings):
        reports.append(retrain_head(*args, **settings))

    train, validation, _ = data
    folder = tmp_path_factory.mktemp("tuner")
    settings = {"trials": TRIALS, "epochs": EPOCHS, "folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfpf, "retrain_head", reported)
        yield tuning.search(tuning.RetrainedNetwork(), train, validation, **settings)


@pytest.mark.slow
def test_every_trial_is_retrained_by_its_own_hyperparameters(tuner, reports, data):
    trials = [tuner.oracle.trials[name] for name in sorted(tuner.oracle.trials)]
    assert len(trials) == len(reports) == TRIALS
    chosen = [trial.hyperparameters.values for trial in trials]
    for values, report in zip(chosen, reports, strict=True):
        recipe, extraction = report.recipe, report.extraction
        assert values.keys() == {"units", "blend", "tau", "per_class"}
        assert (recipe.blend, recipe.tau) == (values["blend"], values["tau"])
        assert extraction.per_class == values["per_class"]
        assert report.feature_shape == (values["units"],)
    assert len({str(values) for values in chosen}) == TRIALS
    # The first is the default of the package; its head is judged by the tuner alone.
    assert (chosen[0]["blend"], chosen[0]["tau"]) == (0.7, 1.0)
    train_labels = data[0][1]
    assert all(report.scored_on == "training data" for report in reports)
    assert reports[0].real == np.bincount(train_labels).tolist()


@pytest.mark.slow
def test_the_best_network_is_the_one_that_was_scored(tuner, data):
    train, validation, test = data
    outcome = tuning.train_best(tuner, train, validation, test, epochs=EPOCHS)
    scores = [trial.score for trial in tuner.oracle.get_best_trials(TRIALS)]
    assert scores == sorted(scores, reverse=True)
    assert outcome.validation == pytest.approx(scores[0], abs=0.02)
    assert outcome.test == tuning.balanced_accuracy(outcome.model, test)
    assert outcome.test > 0.6
    assert outcome.test != outcome.validation


def test_validation_and_test_images_are_apart():
    images = load_images("digits")
    (validation, labels), (test, test_labels) = validation_and_test(images)
    assert len(validation) + len(test) == len(images.test_images)
    counts = np.bincount(labels) - np.bincount(test_labels)
    assert np.abs(counts).max() <= 1

    def rows(x):
        return sorted(image.tobytes() for image in x)

    assert rows(np.concatenate([validation, test])) == rows(images.test_images)


def test_the_search_sees_no_test_data():
    assert "test" not in inspect.signature(tuning.search).parameters
