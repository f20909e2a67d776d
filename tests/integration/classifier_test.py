"""Tests for classifier.py: scikit-learn's own checks, and its tools around it."""

import pickle
import random

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.special
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import NotFittedError
from sklearn.metrics import recall_score, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import (
    estimator_checks_generator,
    parametrize_with_checks,
)

import tf_pseudofeat as tfpf
from tf_pseudofeat import HeadRecipe, PseudoFeatureClassifier
from tf_pseudofeat.retraining.perceptron import build_perceptron

RNG = np.random.default_rng(0)
Y = np.repeat([0, 1, 2], [140, 40, 20])
X = RNG.normal(size=(200, 5)).astype("float32")
X[np.arange(200), Y] += 2
NAMES = np.array(["ok", "fraud", "error"])  # not sorted
ORDER = RNG.permutation(200)
X, Y = X[ORDER], Y[ORDER]

NOT_OF_A_NETWORK = {
    "check_sample_weight_equivalence_on_dense_data": (
        "an example of weight 2 has one place in an epoch, two examples have two"
    ),
}


def small(**settings):
    settings = {"epochs": 4, "random_state": 0} | settings
    return PseudoFeatureClassifier(**settings)


def bits(classifier):
    return [weight.tobytes() for weight in classifier.model_.get_weights()]


@pytest.fixture(scope="module")
def fitted():
    return small().fit(X, Y)


# ---- scikit-learn's checks. ----------------------------------------------------------

# Without a training, or with one of a moment; all of them take minutes.
QUICK = {
    "check_do_not_raise_errors_in_init_or_set_param",
    "check_estimator_cloneable",
    "check_estimator_sparse_tag",
    "check_estimators_unfitted",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_get_params_invariance",
    "check_n_features_in",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_supervised_y_no_nan",
}


def name_of(check):
    return getattr(check, "func", check).__name__


@pytest.mark.slow
@parametrize_with_checks(
    [small(epochs=30)], expected_failed_checks=lambda estimator: NOT_OF_A_NETWORK
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, id=name_of(check))
        for estimator, check in estimator_checks_generator(small(epochs=2))
        if name_of(check) in QUICK
    ],
)
def test_the_quick_ones_of_scikit_learns_own_checks(estimator, check):
    check(estimator)


# ---- scikit-learn's tools. -----------------------------------------------------------


def test_it_is_retrained_on_what_it_is_fitted_to_and_on_nothing_else():
    """The folds that are scored are not among the examples of the report."""
    seen = []

    class Counting(PseudoFeatureClassifier):
        def fit(self, X, y):
            super().fit(X, y)
            seen.append((len(X), sum(self.report_.real)))
            return self

    scores = cross_val_score(Counting(epochs=2, random_state=0), X, Y, cv=2)
    assert seen == [(100, 100)] * 2
    assert len(scores) == 2 and np.isfinite(scores).all()


def test_fields_of_the_recipe_are_parameters_of_a_search():
    grid = {"recipe__tau": [0.0, 1.0]}
    classifier = small(epochs=3, recipe=HeadRecipe(blend=1))
    settings = {"cv": 2, "scoring": "balanced_accuracy", "error_score": "raise"}
    search = GridSearchCV(classifier, grid, **settings).fit(X, Y)
    report = search.best_estimator_.report_
    assert report.recipe.blend == 1
    assert report.recipe.tau == search.best_params_["recipe__tau"]
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] != scores[1]


@pytest.mark.slow
def test_in_a_pipeline_with_calibration_it_ranks_a_real_table():
    x, y = load_breast_cancer(return_X_y=True)
    rows = np.flatnonzero((y == 1) | (np.cumsum(y == 0) <= 40))
    classifier = make_pipeline(StandardScaler(), small(epochs=25))
    calibrated = CalibratedClassifierCV(classifier, cv=2).fit(x[rows], y[rows])
    p = calibrated.predict_proba(x[rows])
    np.testing.assert_allclose(p.sum(axis=1), 1)
    assert roc_auc_score(y[rows], p[:, 1]) > 0.98


class WithoutDecisions(PseudoFeatureClassifier):
    @property
    def decision_function(self):
        raise AttributeError  # so that scikit-learn calibrates probabilities


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (PseudoFeatureClassifier, True),
        pytest.param(WithoutDecisions, False, marks=pytest.mark.slow),
    ],
)
def test_calibration_by_its_defaults_finds_the_rare_class(kind, found):
    """A network fitted for long is sure of its mistakes, too."""
    x, y = load_breast_cancer(return_X_y=True)
    x, y = x[:, :4], y == 0
    rows = np.flatnonzero(~y | (np.cumsum(y) <= 25))
    x, x_test, y, y_test = train_test_split(
        x[rows], y[rows], test_size=0.5, stratify=y[rows], random_state=0
    )
    classifier = make_pipeline(StandardScaler(), kind(epochs=100, random_state=0))
    calibrated = CalibratedClassifierCV(classifier, cv=2).fit(x, y)
    assert (recall_score(y_test, calibrated.predict(x_test)) > 0) == found


def test_data_frames_and_string_classes():
    columns = [f"column {i}" for i in range(5)]
    frame = pd.DataFrame(X, columns=columns)
    named = small(epochs=15).fit(frame, pd.Series(NAMES[Y]))
    assert named.classes_.tolist() == ["error", "fraud", "ok"]
    assert named.report_.class_names == ("error", "fraud", "ok")
    assert named.feature_names_in_.tolist() == columns
    assert set(named.predict(frame)) <= set(NAMES)
    assert np.mean(named.predict(frame) == NAMES[Y]) > 0.7
    with pytest.raises(ValueError, match="feature names"):
        named.predict(frame[columns[::-1]])


# ---- Parameters. ---------------------------------------------------------------------


def test_a_field_of_the_recipe_is_a_parameter():
    recipe = HeadRecipe(blend=0.5)
    classifier = PseudoFeatureClassifier(recipe=recipe)
    classifier.set_params(recipe__tau=2.0, extraction__per_class=7, epochs=3)
    assert classifier.recipe == HeadRecipe(blend=0.5, tau=2.0)
    assert recipe.tau is None  # another may have it
    assert classifier.get_params()["recipe__tau"] == 2.0
    assert classifier.get_params()["extraction__per_class"] == 7
    assert "recipe__tau" not in classifier.get_params(deep=False)
    assert clone(classifier).get_params() == classifier.get_params()
    classifier.set_params(recipe="auto")
    assert "recipe__tau" not in classifier.get_params()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"recipe__temperature": 1}, "Invalid parameter 'temperature' of 'recipe'"),
        ({"recipe__blend": 3}, "blend"),
        ({"depth": 3}, "Invalid parameter 'depth'"),
    ],
)
def test_a_parameter_that_is_none_is_named(params, message):
    classifier = small()
    before = classifier.get_params()
    with pytest.raises(ValueError, match=message):
        classifier.set_params(**params)
    assert classifier.get_params() == before


def test_a_field_of_a_recipe_that_is_searched_raises():
    classifier = small(recipe="auto", validation_fraction=0.25)
    before = classifier.get_params()
    message = (
        r"\['recipe__tau'\] are fields of a HeadRecipe, but `recipe` is 'auto'\. Set "
        r"recipe=HeadRecipe\(\) with them, or leave them out"
    )
    with pytest.raises(ValueError, match=message):
        classifier.set_params(recipe__tau=0.5, epochs=3)
    assert classifier.get_params() == before
    with pytest.raises(ValueError, match=message):
        GridSearchCV(classifier, {"recipe__tau": [0.5]}, error_score="raise").fit(X, Y)
    with pytest.raises(ValueError, match=message):
        small().set_params(recipe="auto", recipe__tau=0.5)
    classifier.set_params(recipe=HeadRecipe(), recipe__tau=0.5)
    assert classifier.recipe == HeadRecipe(tau=0.5)
    assert classifier.set_params(recipe=None, recipe__tau=1.0).recipe.tau == 1.0


# ---- Training. -----------------------------------------------------------------------


def test_a_random_state_gives_the_same_weights_whatever_else_is_drawn(fitted):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    state = random.getstate()
    again = small().fit(X, Y)
    assert bits(again) == bits(fitted)
    assert random.getstate() == state
    assert bits(small(random_state=1).fit(X, Y)) != bits(fitted)


@pytest.mark.parametrize("at_once", [1, 4])
def test_an_epoch_is_of_its_own_examples_however_many_steps_run_at_once(at_once):
    def build(input_shape, num_classes):
        model = build_perceptron(input_shape, num_classes)
        loss = "sparse_categorical_crossentropy"
        model.compile("sgd", loss, steps_per_execution=at_once)
        return model

    classifier = small(build=build, batch_size=64, validation_fraction=0.2).fit(X, Y)
    assert classifier.model_.optimizer.iterations == 4 * 3  # 160 examples, 4 epochs
    assert {len(values) for values in classifier.history_.values()} == {4}
    assert set(classifier.history_) == {"loss", "val_loss"}


def test_it_is_what_the_steps_by_hand_give(fitted):
    report = fitted.report_
    assert report.layer_name == "features"
    assert report.real == [140, 40, 20] and report.kept
    without = small(recipe=HeadRecipe(blend=1, tau=0)).fit(X, Y)
    trunk = tfpf.split_at(fitted.model_, "features").trunk
    other = tfpf.split_at(without.model_, "features").trunk
    for mine, theirs in zip(trunk.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert bits(without) != bits(fitted)
    assert without.history_ == fitted.history_
    rare = Y == 2
    gained = np.mean(fitted.predict(X)[rare] == 2) - np.mean(
        without.predict(X)[rare] == 2
    )
    assert gained > 0


def test_a_validation_fraction_guards_and_is_not_trained_on():
    classifier = small(validation_fraction=0.25, recipe="auto", epochs=3).fit(X, Y)
    assert classifier.report_.scored_on == "validation data"
    assert classifier.report_.real == [105, 30, 15]
    assert "val_loss" in classifier.history_
    with pytest.raises(ValueError, match="recipe='auto' chooses by validation data"):
        small(recipe="auto").fit(X, Y)


def test_a_validation_fraction_without_the_rare_class_raises():
    labels = np.where(np.arange(200) < 2, "fraud", "ok")
    with pytest.raises(ValueError, match="class fraud has 2 examples, of which 20 %"):
        small(validation_fraction=0.2).fit(X, labels)


def test_weights_count():
    weight = np.where(Y == 2, 0.0, 1.0)
    report = small(epochs=1).fit(X, Y, sample_weight=weight).report_
    assert report.real == [140, 40, 0]
    guarded = small(epochs=1, validation_fraction=0.25, monitor=None)
    assert guarded.fit(X, Y, sample_weight=weight).report_.real == [105, 30, 0]


def test_examples_of_weight_0_are_as_good_as_not_there():
    weight = np.where(np.arange(200) % 3 == 0, 0.0, 1.0)
    rows = np.flatnonzero(weight)
    settings = {"validation_fraction": 0.3, "monitor": None, "epochs": 2}
    weighted = small(**settings).fit(X, Y, sample_weight=weight)
    without = small(**settings).fit(X[rows], Y[rows], sample_weight=weight[rows])
    assert bits(weighted) == bits(without)
    assert weighted.history_ == without.history_
    with pytest.raises(ValueError, match="non-zero|are 0"):
        small(**settings).fit(X, Y, sample_weight=np.zeros(200))


def image_model(shape, num_classes):
    inputs = keras.Input(shape)
    x = keras.layers.Conv2D(3, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(num_classes, name="logits")(x)
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    return model


def test_images_logits_and_a_model_of_ones_own():
    images = RNG.normal(size=(60, 6, 6, 1))
    labels = np.repeat(["cat", "dog"], [50, 10])
    classifier = small(build=image_model, layer="pool").fit(images, labels)
    p = classifier.predict_proba(images)
    assert p.shape == (60, 2)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    guess = classifier.classes_[p.argmax(axis=1)]
    np.testing.assert_array_equal(classifier.predict(images), guess)
    decisions = classifier.decision_function(images)
    logits = classifier.model_.predict(images, verbose=0).astype(float)
    np.testing.assert_allclose(decisions, logits[:, 1] - logits[:, 0], atol=1e-9)


def one_output(shape, num_classes):
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Dense(4, activation="relu", name="first"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy")
    return model


def test_one_output_and_a_pickle_decide_alike():
    classifier = small(build=one_output).fit(X, Y == 0)
    again = pickle.loads(pickle.dumps(classifier))
    p = classifier.predict_proba(X)
    np.testing.assert_allclose(again.predict_proba(X), p, atol=1e-6)
    np.testing.assert_array_equal(again.predict(X), p[:, 1] > 0.5)
    decisions = classifier.decision_function(X)
    np.testing.assert_allclose(scipy.special.expit(decisions), p[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(classifier.predict(X), decisions > 0)


def test_decisions_of_three_classes_are_logs_of_their_probabilities(fitted):
    decisions = fitted.decision_function(X)
    assert decisions.shape == (200, 3)
    np.testing.assert_allclose(np.exp(decisions), fitted.predict_proba(X), rtol=1e-6)
    np.testing.assert_array_equal(fitted.predict(X), decisions.argmax(axis=1))


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("outputs", [1, 2])
def test_decisions_are_finite_where_probabilities_are_0_and_1(outputs, monkeypatch):
    classifier = small(build=one_output, epochs=1).fit(X, Y == 0)
    p = np.array([[0.0], [1e-30], [0.5], [1.0]], "float32")
    p = p if outputs == 1 else np.hstack([1 - p, p])
    monkeypatch.setattr(classifier.model_, "predict", lambda *a, **k: p)
    decisions = classifier.decision_function(X[:4])
    assert np.isfinite(decisions).all() and (np.diff(decisions) > 0).all()
    np.testing.assert_array_equal(classifier.predict(X[:4]), decisions > 0)


def no_probabilities(shape, num_classes):
    model = keras.Sequential(
        [keras.Input(shape), keras.layers.Dense(num_classes, name="scores")]
    )
    model.compile("adam", "mse")
    return model


@pytest.mark.parametrize("method", ["predict_proba", "decision_function"])
def test_outputs_that_are_neither_probabilities_nor_logits_raise(method, fitted):
    again = pickle.loads(pickle.dumps(fitted))
    again.model_ = no_probabilities((5,), 3)
    with pytest.raises(ValueError, match="neither probabilities nor logits. End it"):
        getattr(again, method)(X)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda shape, classes: None, TypeError, "must return a Keras model"),
        (
            lambda shape, classes: keras.Sequential([keras.layers.Dense(classes)]),
            ValueError,
            "without a loss. Compile it",
        ),
    ],
)
def test_a_model_that_is_none_is_named(build, error, message):
    with pytest.raises(error, match=message):
        small(build=build).fit(X, Y)


def test_bad_settings_cost_no_training(monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", None)
    with pytest.raises(ValueError, match="has no layer 'nowhere'|nowhere"):
        small(layer="nowhere").fit(X, Y)
    with pytest.raises(ValueError, match="monitor|score"):
        small(monitor="beauty").fit(X, Y)


def test_it_asks_to_be_fitted():
    with pytest.raises(NotFittedError):
        small().predict(X)


@pytest.mark.slow
def test_a_model_may_retrain_another_while_it_is_made():
    def build(shape, num_classes):
        model = one_output(shape, num_classes)
        settings = {"fresh_head": True, "epochs": 1, "verbose": 0}
        tfpf.retrain_head(model, "first", (X, Y == 0), **settings)
        return model

    assert small(build=build, epochs=1).fit(X, Y == 0).report_.kept


def test_a_fit_that_fails_leaves_nothing_to_predict_with():
    """Labels and model would be those of two fits."""
    classifier = small(epochs=1).fit(X, Y)
    with pytest.raises(ValueError, match="nowhere"):
        classifier.set_params(layer="nowhere").fit(X, NAMES[Y])
    with pytest.raises(NotFittedError):
        classifier.predict(X)


def test_numbers_beyond_float32_are_named(fitted):
    large = X.astype(float)
    large[3, 1] = 1e39
    for call in (lambda: small().fit(large, Y), lambda: fitted.predict(large)):
        with pytest.raises(ValueError, match="X contains a value too large for"):
            call()
    with pytest.raises(ValueError, match="weights contains a value too large"):
        small().fit(X, Y, sample_weight=np.full(200, 1e40))


def test_examples_of_another_shape_are_named(fitted):
    with pytest.raises(ValueError, match=r"was fitted to examples of shape \[5\]"):
        fitted.predict(X[:, :, None])


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 0}, {"batch_size": 0}, {"batch_size": 2.5}]
    + [{"validation_fraction": share} for share in (1.0, -0.1, 30)],
)
def test_a_setting_that_is_out_of_range_is_named(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}`"):
        small(**settings).fit(X, Y)
