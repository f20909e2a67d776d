"""Tests for guard.py: which head may stay, by every kind of monitor."""

import keras
import numpy as np
import pytest
from sklearn import metrics

from tf_pseudofeat.evaluation.comparison import SCORE_NAMES, difference_error
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.predictions import Predictions


def decided(ids, guess, weight=None, sure=0.9):
    """Predictions that say `guess`."""
    guess = np.asarray(guess)
    outputs = np.where(np.eye(2)[guess] == 1, sure, 1 - sure)
    return Predictions(np.asarray(ids), outputs, "softmax", weight)


IDS = np.repeat([0, 1], [80, 40])
# 60 of 80 and 20 of 40 are right, and then 10 more of the 40.
OLD_GUESS = np.repeat([0, 1, 1, 0], [60, 20, 20, 20])
NEW_GUESS = np.repeat([0, 1, 1, 0], [60, 20, 30, 10])
BEFORE, AFTER = decided(IDS, OLD_GUESS), decided(IDS, NEW_GUESS)


# ---- Scores. -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCORE_NAMES)
def test_a_score_goes_by_its_name(name):
    guard = Guard(name)
    assert guard.name == name
    score = guard.score(BEFORE, [1])
    ids, guess, p = IDS, OLD_GUESS, BEFORE.probabilities
    expected = {
        "accuracy": lambda: metrics.accuracy_score(ids, guess),
        "balanced_accuracy": lambda: metrics.balanced_accuracy_score(ids, guess),
        "mean_minority_accuracy": lambda: metrics.recall_score(ids, guess),
        "f1": lambda: metrics.f1_score(ids, guess),
        "macro_f1": lambda: metrics.f1_score(ids, guess, average="macro"),
        "roc_auc": lambda: metrics.roc_auc_score(ids, p[:, 1]),
        "average_precision": lambda: metrics.average_precision_score(ids, p[:, 1]),
        "log_loss": lambda: metrics.log_loss(ids, p),
        "brier_score": lambda: 2 * metrics.brier_score_loss(ids, p[:, 1]),
    }
    if name in expected:
        assert score == pytest.approx(expected[name]())
    assert 0 < score < 1


def share_that_is_right(labels, outputs):
    return np.mean(np.argmax(outputs, axis=1) == labels)


def log_loss(labels, outputs):
    """Higher for better, as a function is, whatever it is called."""
    return -metrics.log_loss(labels, outputs)


class Cost:
    name = "cost"

    def __call__(self, labels, outputs):
        return -np.sum(np.argmax(outputs, axis=1) != labels)


@pytest.mark.parametrize(
    ("monitor", "name", "sign", "score"),
    [
        (None, None, 1.0, None),
        ("f1", "f1", 1.0, None),
        ("log_loss", "log_loss", -1.0, None),
        ("brier_score", "brier_score", -1.0, None),
        ("calibration_error", "calibration_error", -1.0, None),
        (share_that_is_right, "share_that_is_right", 1.0, 80 / 120),
        (log_loss, "log_loss", 1.0, -metrics.log_loss(IDS, BEFORE.probabilities)),
        (Cost(), "cost", 1.0, -40.0),
        (keras.metrics.SparseCategoricalAccuracy("acc"), "acc", 1.0, 80 / 120),
        (
            keras.metrics.SparseCategoricalCrossentropy(name="ce"),
            "ce",
            -1.0,
            metrics.log_loss(IDS, BEFORE.probabilities),
        ),
    ],
)
def test_every_monitor_has_a_name_a_direction_and_a_score(monitor, name, sign, score):
    guard = Guard.of(monitor)
    assert (guard.name, guard.sign) == (name, sign)
    if score is not None:
        assert guard.score(BEFORE, [1]) == pytest.approx(score, rel=1e-5)
        assert guard.score(BEFORE, [1]) == pytest.approx(score, rel=1e-5)  # no memory


def test_a_guard_stays_what_it_is():
    guard = Guard("f1", confidence=0.9)
    assert Guard.of(guard) is guard
    assert Guard.of("f1").confidence == 0.8


class Broken(keras.metrics.SparseCategoricalAccuracy):
    def result(self):
        raise RuntimeError("no result")


def test_a_keras_metric_counts_weights_and_is_left_empty():
    weight = np.arange(120.0)
    metric = keras.metrics.SparseCategoricalAccuracy()
    weighted = decided(IDS, OLD_GUESS, weight)
    expected = metrics.accuracy_score(IDS, OLD_GUESS, sample_weight=weight)
    assert Guard(metric).score(weighted, [1]) == pytest.approx(expected, rel=1e-5)
    assert float(metric.result()) == 0
    broken = Broken()
    with pytest.raises(RuntimeError, match="no result"):
        Guard(broken).score(weighted, [1])
    assert [float(variable) for variable in broken.variables] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("monitor", "error", "message"),
    [
        ("acc", ValueError, r"`monitor` must be one of \('accuracy'.*received 'acc'"),
        ("F1", ValueError, r"received 'F1'\. Did you mean 'f1'\?"),
        ("balanced", ValueError, r"Did you mean 'balanced_accuracy'\?"),
        (3, TypeError, r"name of a score, a function .*received 3"),
        (["f1"], TypeError, r"received \['f1'\]"),
        (
            keras.metrics.AUC,
            TypeError,
            r"received the class AUC. Pass AUC\(",
        ),
    ],
)
def test_what_is_no_monitor_raises(monitor, error, message):
    with pytest.raises(error, match=message):
        Guard(monitor)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("confidence", [0.4, 1, 1.5, np.nan, "0.9", True, None]),
        ("max_recall_drop", [-0.1, 1, np.nan, "0.5", False, [0.5]]),
    ],
)
def test_numbers_out_of_their_range_raise(option, values):
    for value in values:
        with pytest.raises(
            ValueError, match=f"`{option}` must be a number from 0.* to be"
        ):
            Guard(**{option: value})


@pytest.mark.parametrize("score", ["many", [1, 2], None])
def test_a_function_gives_one_number(score):
    guard = Guard(lambda labels, outputs: score)
    message = (
        r"`monitor` '<lambda>' must return one number, where higher is better; received"
    )
    with pytest.raises(ValueError, match=message):
        guard.score(BEFORE, [1])


def test_a_function_that_fails_is_named_with_what_it_got():
    def needs_one_hot(labels, outputs):
        return (labels * outputs).sum()

    with pytest.raises(ValueError, match="'needs_one_hot' failed on.*shape") as seen:
        Guard(needs_one_hot).try_on(BEFORE)
    assert r"labels of shape [120] and outputs of shape [120, 2]" in str(seen.value)
    assert isinstance(seen.value.__cause__, ValueError)
    for monitor in (None, "f1", share_that_is_right):
        Guard(monitor).try_on(BEFORE)


def test_what_cannot_be_scored_raises():
    Guard(None).check(BEFORE, [1])
    Guard("f1").check(BEFORE, [1])
    unknown = Predictions(IDS, BEFORE.outputs, None)
    with pytest.raises(ValueError, match="'roc_auc' needs probabilities"):
        Guard("roc_auc").check(unknown, [1])
    three = Predictions(IDS, np.full((len(IDS), 3), 1 / 3), "softmax")
    with pytest.raises(ValueError, match=r"'f1' is undefined.* classes \[2\]"):
        Guard("f1").check(three, [2])
    with pytest.raises(ValueError, match="'average_precision' is undefined"):
        Guard("average_precision").check(three, [2])


# ---- Whether a head may stay. --------------------------------------------------------


@pytest.mark.parametrize(
    "monitor",
    [
        "balanced_accuracy",
        "f1",
        "log_loss",
        share_that_is_right,
        keras.metrics.SparseCategoricalAccuracy(),
        keras.metrics.SparseCategoricalCrossentropy(),
    ],
)
def test_a_gain_beyond_chance_may_stay_and_a_loss_not(monitor):
    guard = Guard.of(monitor)
    assert guard.rollback_reason(BEFORE, AFTER, [1]) == ""
    objection = guard.rollback_reason(AFTER, BEFORE, [1])
    old, new = guard.score(AFTER, [1]), guard.score(BEFORE, [1])
    verb = "fell" if new < old else "rose"
    assert objection == (
        f"{guard.name} on the validation data {verb} from {old:.4f} to {new:.4f}"
    )


def test_no_monitor_lets_any_head_stay():
    worst = decided(IDS, 1 - IDS)
    assert Guard(None).rollback_reason(BEFORE, worst, [1]) == ""


@pytest.mark.parametrize("monitor", ["balanced_accuracy", share_that_is_right])
def test_a_tie_is_no_gain(monitor):
    objection = Guard(monitor, confidence=0.5).rollback_reason(BEFORE, BEFORE, [1])
    assert objection.endswith("did not change (0.6250), which is a tie") or (
        objection.endswith("did not change (0.6667), which is a tie")
    )
    # Decisions that are as they were, of other probabilities.
    surer = decided(IDS, OLD_GUESS, sure=0.99)
    assert "which is a tie" in Guard(monitor).rollback_reason(BEFORE, surer, [1])


def test_a_gain_within_chance_is_none_unless_every_gain_counts():
    one_more = OLD_GUESS.copy()
    one_more[-1] = 1
    after = decided(IDS, one_more)
    objection = Guard("accuracy", confidence=0.95).rollback_reason(BEFORE, after, [1])

    def gained(rows):
        return np.mean(IDS[rows] == one_more[rows]) - np.mean(
            IDS[rows] == OLD_GUESS[rows]
        )

    error = difference_error(gained, IDS)
    assert objection == (
        f"accuracy on the validation data went from {80 / 120:.4f} to {81 / 120:.4f}, "
        f"which may be chance: the standard error of the difference is {error:.4f}"
    )
    assert Guard("accuracy", confidence=0.5).rollback_reason(BEFORE, after, [1]) == ""


def test_a_gain_whose_error_nobody_knows_may_be_chance():
    ids = np.repeat([0, 1], [20, 1])
    before, after = decided(ids, np.zeros(21, int)), decided(ids, ids)
    objection = Guard("mean_minority_accuracy").rollback_reason(before, after, [1])
    assert objection.endswith("the standard error of the difference is not known")


def test_a_score_that_is_lost_is_no_gain():
    before = Predictions([0, 1], [[0.2, 0.8], [0.8, 0.2]], "softmax")
    after = Predictions([0, 1], [[np.nan, 0.0], [0.8, 0.2]], None)
    assert Guard("roc_auc").rollback_reason(before, after, [1]) == (
        "roc_auc on the validation data went from 0.0000 to nan"
    )


# ---- A class that is lost. -----------------------------------------------------------


def collapsed(share):
    """Class 1 all right, and of class 0, of 80, a share lost."""
    return decided(IDS, np.where(np.arange(120) < 80 * share, 1, IDS))


@pytest.mark.parametrize(
    ("share", "drop", "lost"),
    [
        (0.6, 0.5, True),
        (0.4, 0.5, False),
        (0.4, 0.3, True),
        (0.4, None, False),
        (1.0, None, False),
        (0.1, 0.0, True),
    ],
)
def test_no_class_may_lose_too_much_of_its_recall(share, drop, lost):
    guard = Guard("mean_minority_accuracy", max_recall_drop=drop)
    before = decided(IDS, np.where(IDS == 1, np.arange(120) % 2, 0))
    objection = guard.rollback_reason(before, collapsed(share), [1])
    left = 100 * (1 - share)
    expected = (
        f"the recall of class 0 on the validation data fell from 100.0 to {left:.1f} "
        f"percent"
    )
    assert objection == (expected if lost else "")
    assert guard.collapse(before, collapsed(share)) == objection


def test_a_class_that_was_never_found_has_nothing_to_lose():
    assert Guard(max_recall_drop=0.0).collapse(decided(IDS, 0 * IDS), AFTER) == (
        "the recall of class 0 on the validation data fell from 100.0 to 75.0 percent"
    )
    assert Guard().collapse(decided(IDS, 0 * IDS), decided(IDS, 0 * IDS)) == ""


def test_a_loss_that_may_be_chance_is_no_collapse():
    ids = np.repeat([0, 1], [40, 3])
    before = decided(ids, ids)
    one_lost = decided(ids, np.where(np.arange(43) == 41, 0, ids))
    guard = Guard("accuracy", max_recall_drop=0.0)
    assert guard.collapse(before, one_lost) == ""
    single = np.repeat([0, 1], [40, 1])  # nor the only example of a class
    assert guard.collapse(decided(single, single), decided(single, 0 * single)) == ""


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_class_without_an_example_loses_nothing():
    three = np.eye(3)[IDS]
    before = Predictions(IDS, three, "softmax")
    after = Predictions(IDS, np.roll(three, 1, axis=1), "softmax")
    assert "class 0" in Guard().collapse(before, after)
    assert Guard().collapse(before, before) == ""


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.BinaryCrossentropy(),
        keras.losses.binary_crossentropy,
        metrics.log_loss,
        metrics.mean_squared_error,
    ],
)
def test_a_loss_is_no_score(loss):
    with pytest.raises(ValueError, match="this is a loss.*Pass 'log_loss'"):
        Guard(loss)


def test_a_single_class_says_nothing():
    alone = BEFORE.select(IDS == 1)
    with pytest.raises(ValueError, match=r"two classes or more.* are of class 1"):
        Guard("f1").check(alone, [1])


def test_a_score_of_the_users_own_that_is_nan_is_called_that():
    with pytest.raises(ValueError, match=r"is NaN for the data to score on"):
        Guard(lambda labels, outputs: float("nan")).check(BEFORE, [1])


def test_a_field_that_is_set_is_no_default():
    assert Guard().is_default and Guard("balanced_accuracy", 8 / 10).is_default
    others = (
        Guard("f1"),
        Guard(None),
        Guard(confidence=0.95),
        Guard(max_recall_drop=None),
    )
    assert not any(guard.is_default for guard in others)
