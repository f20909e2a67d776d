"""Tests of what a retraining costs, from `fit` to the report: 3 of 100 are fraud."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
from keras import layers
from sklearn import metrics

import tf_pseudofeat as tfpf
from tests.model_state import weights
from tests.small_fraud import NAMES, classifier, payments
from tests.trained import train
from tf_pseudofeat.evaluation.guard import Guard

TRAINING, VALIDATION = payments(0), payments(1, (1000, 100))
# Two epochs, for speed; and the bias alone, which trains nothing.
QUICK = {"epochs": 2, "verbose": 0}
BIAS = {"blend": 1.0, "verbose": 0}


def retrain(model, training=TRAINING, validation=VALIDATION, **settings):
    settings = {"validation_data": validation, **settings}
    return tfpf.retrain_head(model, "features", training, **settings)


def said(model, x=VALIDATION[0]):
    """Probabilities float64 `[N, 2]`, which add up to 1."""
    p = keras.ops.convert_to_numpy(model(x)).astype(float)
    p = np.hstack([1 - p, p]) if p.shape[1] == 1 else p
    return p / p.sum(axis=1, keepdims=True)


@contextlib.contextmanager
def rolled_back(model, message):
    before = weights(model)
    with pytest.warns(UserWarning, match=rf"rolled back.*{message}"):
        yield
    assert weights(model) == before


# ---- What is reported. ---------------------------------------------------------------


@pytest.fixture(scope="module", params=["softmax", "sigmoid"])
def retrained(request):
    model = classifier(request.param)
    before = said(model)
    report = retrain(model, class_names=NAMES, **QUICK)
    return report, before, said(model)


def test_fit_did_not_find_the_rare_class_and_the_retraining_does(retrained):
    report, _, _ = retrained
    assert report.kept and report.reason == ""
    assert report.before["recall"][1] < 0.5 < 0.7 < report.after["recall"][1]


def test_scores_before_and_after_are_scikit_learns(retrained):
    report, before, after = retrained
    ids = VALIDATION[1]
    for received, p in ((report.before, before), (report.after, after)):
        guess = p.argmax(axis=1)
        recall = metrics.recall_score(ids, guess, average=None)
        expected = {
            "accuracy": metrics.accuracy_score(ids, guess),
            "balanced_accuracy": recall.mean(),
            "f1": metrics.f1_score(ids, guess),
            "macro_f1": metrics.f1_score(ids, guess, average="macro"),
            "average_precision": metrics.average_precision_score(ids, p[:, 1]),
            "roc_auc": metrics.roc_auc_score(ids, p[:, 1]),
            "log_loss": metrics.log_loss(ids, p),
            "brier_score": 2 * metrics.brier_score_loss(ids, p[:, 1]),
            "recall": recall,
            "predicted_share": np.bincount(guess, minlength=2) / ids.size,
            "confusion_matrix": metrics.confusion_matrix(ids, guess),
        }
        for name, score in expected.items():
            np.testing.assert_allclose(received[name], score, rtol=1e-4, err_msg=name)


def test_the_price_is_named_with_the_names_of_the_classes(retrained):
    report, _, _ = retrained
    text = str(report)
    assert "Worse by more than chance: accuracy" in text
    assert "recall of 'ok'" in text
    assert "Classes are ranked" in text
    assert report.to_frame().index.tolist() == list(NAMES)
    assert report.metrics()["after_recall_of_fraud"] == report.after["recall"][1]
    assert report.standard_error["accuracy"] > 0
    assert report.class_names == NAMES


def test_on_training_data_no_gain_is_proven():
    report = retrain(classifier(), validation=None, **QUICK)
    assert report.kept and report.scored_on == "training data"
    assert report.standard_error == {} and report.monitor is None
    assert "chance" not in str(report)


# ---- Monitors. -----------------------------------------------------------------------


def f1_of_fraud(labels, outputs):
    return metrics.f1_score(labels, np.argmax(outputs, axis=1))


MONITORS = {
    "f1": ("f1", "f1"),
    "f1_of_fraud": (f1_of_fraud, "f1"),
    "balanced": (tfpf.BalancedAccuracy(2, name="balanced"), "balanced_accuracy"),
    "macro_f1": (Guard("macro_f1", confidence=0.9), "macro_f1"),
}


@pytest.mark.parametrize("name", MONITORS)
def test_every_kind_of_monitor_guards(name):
    monitor, score = MONITORS[name]
    model = classifier()
    report = retrain(model, monitor=monitor, tau=0.7, **BIAS)
    assert report.kept
    assert report.monitor == name
    assert report.after[score] > report.before[score]
    guess = said(model).argmax(axis=1)
    expected = {
        "f1": metrics.f1_score(VALIDATION[1], guess),
        "balanced_accuracy": metrics.balanced_accuracy_score(VALIDATION[1], guess),
        "macro_f1": metrics.f1_score(VALIDATION[1], guess, average="macro"),
    }
    assert report.after[score] == pytest.approx(expected[score])
    model = classifier()
    with rolled_back(model, f"{name} on the validation data fell"):
        report = retrain(model, monitor=monitor, tau=-1.0, **BIAS)
    assert not report.kept and report.after[score] < report.before[score]


def test_a_monitor_that_is_to_fall_guards():
    model = classifier()
    with rolled_back(model, "log_loss on the validation data rose"):
        retrain(model, monitor="log_loss", tau=2.0, **BIAS)
    assert retrain(model, monitor="log_loss", tau=0.3, **BIAS).kept


def test_a_function_that_fails_costs_no_training():
    model = classifier()
    with pytest.raises(ValueError, match="'wrong' failed on labels of shape"):

        def wrong(labels, outputs):
            return metrics.f1_score(labels, outputs)

        retrain(model, monitor=wrong, **QUICK)


def test_without_a_monitor_any_head_stays_and_auto_goes_by_balanced_accuracy():
    report = retrain(classifier(), monitor=None, tau=-1.0, **BIAS)
    assert report.kept and report.monitor is None
    report = retrain(classifier(), monitor=None, recipe="auto", **QUICK)
    assert report.tuning.monitor == "balanced_accuracy"
    assert report.after["balanced_accuracy"] == pytest.approx(
        report.tuning.chosen.score, abs=1e-3
    )


# ---- What is no gain. ----------------------------------------------------------------


def test_a_tie_is_rolled_back():
    model = classifier()
    with rolled_back(model, "did not change .*which is a tie"):
        report = retrain(model, tau=0.0, **BIAS)
    assert "No decision changed." in report.notes
    assert report.before["balanced_accuracy"] == report.after["balanced_accuracy"]


def one_more():
    """Validation data of which a small shift of the bias finds one fraud more."""
    x, ids = payments(2, (3000, 3000))
    model = classifier()
    adjusted = tfpf.adjust_logits(model, [1455, 45], tau=0.2)
    old, new = said(model, x).argmax(axis=1), said(adjusted, x).argmax(axis=1)
    found = np.flatnonzero((ids == 1) & (old != new))[:1]
    fraud = np.flatnonzero((ids == 1) & (old == new))[:30]
    common = np.flatnonzero((ids == 0) & (old == new))[:100]
    rows = np.concatenate([found, fraud, common])
    return x[rows], ids[rows]


def test_a_gain_within_chance_is_rolled_back_unless_every_gain_counts():
    validation, surely = one_more(), Guard(confidence=0.95)
    model = classifier()
    with rolled_back(model, "may be chance: the standard error of the difference is 0"):
        report = retrain(model, validation=validation, tau=0.2, monitor=surely, **BIAS)
    gain = report.after["recall"][1] - report.before["recall"][1]
    assert gain == pytest.approx(1 / 31)
    report = retrain(
        model, validation=validation, tau=0.2, monitor=Guard(confidence=0.5), **BIAS
    )
    assert report.kept


def test_a_class_that_is_lost_is_rolled_back_whatever_the_monitor_says():
    model, monitor = classifier(), "mean_minority_accuracy"
    with rolled_back(model, "the recall of class 0 on the validation data fell from"):
        report = retrain(model, monitor=monitor, tau=4.0, **BIAS)
    assert report.after["recall"][1] > report.before["recall"][1]
    guard = Guard(monitor, max_recall_drop=None)
    assert retrain(model, monitor=guard, tau=4.0, **BIAS).kept


# ---- Weights, and few examples. ------------------------------------------------------


def test_weights_of_validation_data_count():
    x, ids = VALIDATION
    weight = np.random.default_rng(0).random(ids.size).astype("float32")
    model = classifier()
    report = retrain(model, validation=(x, ids, weight), tau=0.7, **BIAS)
    p = said(model)
    own = {"sample_weight": weight}
    for name, expected in {
        "accuracy": metrics.accuracy_score(ids, p.argmax(axis=1), **own),
        "f1": metrics.f1_score(ids, p.argmax(axis=1), **own),
        "roc_auc": metrics.roc_auc_score(ids, p[:, 1], **own),
        "log_loss": metrics.log_loss(ids, p, **own),
    }.items():
        assert report.after[name] == pytest.approx(expected, rel=1e-4), name


def test_weight_0_is_as_good_as_no_example():
    x, ids = VALIDATION
    weight = np.random.default_rng(0).random(ids.size).astype("float32")
    weight[::3] = 0
    rows = np.flatnonzero(weight)
    first, second = (
        retrain(classifier(), validation=data, tau=0.7, **BIAS)
        for data in [(x, ids, weight), (x[rows], ids[rows], weight[rows])]
    )
    for name in ("before", "after", "standard_error", "notes"):
        one, other = getattr(first, name), getattr(second, name)
        if isinstance(one, list):
            assert one == other
            continue
        for key, value in one.items():
            pair = np.array([value, other[key]], float)  # None is NaN
            np.testing.assert_allclose(pair[0], pair[1], rtol=1e-5, err_msg=key)


def test_few_validation_examples_are_warned_of():
    x, ids = payments(1, (200, 6))
    sentence = "The validation data have 6 of 'fraud': scores of a class"
    with pytest.warns(UserWarning, match=sentence) as seen:
        report = retrain(
            classifier(),
            validation=(x, ids),
            class_names=NAMES,
            monitor=None,
            tau=0.7,
            **BIAS,
        )
    (warning,) = (w for w in seen if "6 of 'fraud'" in str(w.message))
    assert warning.filename == __file__
    assert report.notes[0].startswith(sentence)


# ---- Notes. --------------------------------------------------------------------------


def noted(report, words):
    return [note for note in report.notes if words in note]


def test_logit_adjustment_that_does_as_much_is_noted():
    model = classifier()
    rival = tfpf.adjust_logits(model, [1455, 45])
    guess = said(rival).argmax(axis=1)
    score = 100 * metrics.balanced_accuracy_score(VALIDATION[1], guess)
    report = retrain(model, tau=1.0, **BIAS)
    (note,) = noted(report, "Logit adjustment alone")
    assert f"has balanced accuracy {score:.1f} and the retraining" in note
    assert note in str(report)


def test_balanced_data_are_noted():
    report = retrain(classifier(), payments(3, (200, 190)), monitor=None, **QUICK)
    assert noted(report, "equally common, 190 to 200 examples")
    assert not noted(retrain(classifier(), tau=0.7, **BIAS), "equally common")


def test_features_that_are_all_the_same_are_noted():
    model = classifier()
    dead = model.get_layer("features")
    dead.set_weights([0 * dead.kernel.numpy(), 0 * dead.bias.numpy()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        report = retrain(model, monitor=None, **QUICK)
    assert noted(report, "All features are the same")
    assert noted(report, "hardly better than chance (ROC-AUC 50.0)")


def test_a_class_that_is_known_by_heart_is_noted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(560, 30)).astype("float32")  # nothing but noise
    ids = np.repeat([0, 1, 0, 1], [200, 10, 300, 50])
    inputs = keras.Input((30,))
    features = layers.Dense(64, "relu", name="features")(inputs)
    model = keras.Model(inputs, layers.Dense(2, "softmax")(features))
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.02), loss, jit_compile=False)
    train(model, x[:210], ids[:210], epochs=30)
    training, validation = (x[:210], ids[:210]), (x[210:], ids[210:])
    report = retrain(
        *(model, training, validation),
        monitor=None,
        class_names=NAMES,
        augment=None,
        tau=0.7,
        **BIAS,
    )
    assert noted(report, "has memorized its training examples of 'fraud' and misses")
    assert not noted(retrain(classifier(), tau=0.7, **BIAS), "memorized")
