"""Tests for judge.py: a head whose weights are set by hand, judged before and after."""

import warnings

import keras
import numpy as np
import pytest
import scipy.special

import tf_pseudofeat as tfpf
from tf_pseudofeat.evaluation.comparison import score_predictions, standard_errors
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.judge import Judge
from tf_pseudofeat.evaluation.predictions import Predictions

SIZES = [600, 60]


def drawn(sizes, seed, apart=2.0):
    """Log odds of class 1 in equal shares, and how far they are from chance."""
    ids = np.repeat([0, 1], sizes)
    noise = np.random.default_rng(seed).normal(size=ids.size)
    x = apart * (ids - 0.5) + noise
    return tfpf.LabeledFeatures((apart * x[:, None]).astype("float32"), ids)


class Linear:
    """A head of one logit, `slope * x + bias`, and the judge of it."""

    def __init__(self, activation="sigmoid", slope=1.0, bias=-2.3):
        self.dense = keras.layers.Dense(1, activation)
        self.head = keras.Sequential([keras.Input((1,)), self.dense])
        self.set(slope, bias)

    def set(self, slope, bias):
        self.dense.set_weights([np.array([[slope]]), np.array([bias])])

    def judge(self, training, scoring, guard=None, *, errors=True, **settings):
        chosen = {name: settings.pop(name) for name in {"tau", "prior"} & {*settings}}
        material = settings.pop("material", None)
        if material is None:
            counts = {1: 540} if settings.pop("draws", True) else {}
            material = tfpf.Material(
                training, training.class_counts(2), counts=counts, **settings
            )
        names = ("ok", "fraud")
        linear = self.dense.activation is keras.activations.linear
        loss = keras.losses.BinaryCrossentropy(from_logits=linear)
        task = tfpf.Task(self.head, 2, loss, 0.0 if linear else 0.5, class_names=names)
        recipe = tfpf.HeadRecipe(**{"blend": 0.5, "tau": 0.5, **chosen})
        return Judge(task, material, recipe, scoring, guard or Guard(), errors)

    def said(self, data):
        logits = data.features @ self.dense.kernel.numpy() + self.dense.bias.numpy()
        return Predictions(data.labels, scipy.special.expit(logits), "sigmoid")


PRIOR = np.array(SIZES) / sum(SIZES)
TRAINING, SCORING = drawn(SIZES, 0), drawn([1000, 100], 1)


def about(notes, word):
    return [note for note in notes if word in note]


# ---- What is measured. ---------------------------------------------------------------


def test_a_head_is_scored_as_it_was_and_as_it_is():
    linear = Linear()
    judge = linear.judge(TRAINING, SCORING)
    before = linear.said(SCORING)
    linear.set(1.0, -0.5)
    after = linear.said(SCORING)
    verdict = judge([0.5], PRIOR)
    assert verdict["reason"] == ""
    for when, predictions in (("before", before), ("after", after)):
        for name, score in score_predictions(predictions, [1]).items():
            np.testing.assert_allclose(
                verdict[when][name], score, rtol=1e-5, err_msg=name
            )
    for name, error in standard_errors(before, after, [1]).items():
        np.testing.assert_allclose(
            verdict["standard_error"][name], error, rtol=1e-3, atol=1e-9, err_msg=name
        )


def test_a_head_without_a_gain_may_not_stay_and_is_scored_all_the_same():
    linear = Linear()
    judge = linear.judge(TRAINING, SCORING)
    linear.set(-1.0, 0.0)
    verdict = judge([0.5], PRIOR)
    assert verdict["reason"].startswith("balanced_accuracy on the validation data fell")
    assert verdict["after"]["roc_auc"] < 0.5 < verdict["before"]["roc_auc"]
    assert verdict["standard_error"]["roc_auc"] > 0


@pytest.mark.parametrize("losses", [[0.5, np.nan], [np.inf]])
def test_a_loss_without_bounds_is_a_reason(losses):
    linear = Linear()
    judge = linear.judge(TRAINING, SCORING)
    linear.set(1.0, -0.5)
    verdict = judge(losses, PRIOR)
    assert (
        "the loss or the weights became infinite or NaN (losses: ["
        in (verdict["reason"])
    )
    assert verdict["after"] == verdict["before"] != {}
    assert verdict["standard_error"] == {} and verdict["notes"] == []


@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_a_weight_without_bounds_is_a_reason(weight):
    linear = Linear()
    judge = linear.judge(TRAINING, SCORING, Guard(None))
    linear.set(weight, 0.0)
    assert "became infinite or NaN" in judge([0.5], PRIOR)["reason"]


def test_without_features_to_score_there_are_no_scores():
    verdict = Linear().judge(TRAINING, None, Guard(None))([0.5], PRIOR)
    assert verdict == {
        "reason": "",
        "before": {},
        "after": {},
        "standard_error": {},
        "notes": [],
    }
    with pytest.raises(ValueError, match="`monitor` 'f1' needs features to score on"):
        Linear().judge(TRAINING, None, Guard("f1"))


def test_on_data_that_were_trained_on_there_are_no_errors():
    linear = Linear()
    judge = linear.judge(TRAINING, TRAINING, Guard(None), errors=False)
    linear.set(1.0, -0.5)
    verdict = judge([0.5], PRIOR)
    assert verdict["standard_error"] == {}
    before, after = verdict["before"]["accuracy"], verdict["after"]["accuracy"]
    (note,) = verdict["notes"]
    assert note.startswith(
        f"Worse on the training data, which flatter a head: accuracy "
        f"{100 * before:.1f} -> {100 * after:.1f}; recall of 'ok' "
    )


def test_what_cannot_be_scored_raises_before_the_head_changes():
    common = SCORING.select(SCORING.ids == 0)
    with pytest.raises(ValueError, match="'f1' needs examples of two classes"):
        Linear().judge(TRAINING, common, Guard("f1"))
    with pytest.raises(TypeError, match="`scoring` must be a LabeledFeatures"):
        Linear().judge(TRAINING, (SCORING.features, SCORING.labels))


# ---- What is said of the data. -------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "balanced"), [((100, 60), True), ((100, 50), False), ((60, 60), True)]
)
def test_data_that_are_balanced_are_said_to_be(sizes, balanced):
    training = drawn(sizes, 0)
    verdict = Linear().judge(training, SCORING, Guard(None))([0.5], PRIOR)
    notes = about(verdict["notes"], "equally common")
    sentence = (
        f"The classes are about equally common, {sizes[1]} to {sizes[0]} examples: "
        f"there is little to balance."
    )
    assert notes == ([sentence] if balanced else [])


def test_counts_are_of_all_the_data_and_not_of_what_was_looked_at():
    looked_at = drawn((60, 60), 0)
    material = tfpf.Material(looked_at, np.array([60, 60]))
    verdict = Linear().judge(looked_at, SCORING, material=material)([0.5], PRIOR)
    assert about(verdict["notes"], "equally common, 60 to 60")
    recipe = tfpf.HeadRecipe()
    material = tfpf.prepare_material(looked_at, recipe, 2, totals=np.array([6000, 60]))
    verdict = Linear().judge(looked_at, SCORING, material=material)([0.5], PRIOR)
    assert not about(verdict["notes"], "equally common")
    assert about(verdict["notes"], "No pseudo-features were drawn")


def test_features_that_are_all_the_same_are_said_to_be():
    same = tfpf.LabeledFeatures(
        np.ones((60, 1), "float32"), np.repeat([0, 1], [50, 10])
    )
    verdict = Linear().judge(same, SCORING, Guard(None))([0.5], PRIOR)
    assert about(verdict["notes"], "All features are the same")
    verdict = Linear().judge(TRAINING, SCORING, Guard(None))([0.5], PRIOR)
    assert not about(verdict["notes"], "All features are the same")


@pytest.mark.parametrize("tau", [0.5, 0.0])
def test_a_class_without_an_example_is_named(tau):
    training = TRAINING.select(TRAINING.ids == 0)
    material = tfpf.Material(training, np.array([600, 0]), counts={})
    verdict = Linear().judge(
        training, SCORING, Guard(None), material=material, tau=tau
    )([0.5], PRIOR)
    assert about(verdict["notes"], "no example") == [
        f"Of 'fraud' there is no example in the training data: nothing can be drawn, "
        f"and the prior has no logarithm, so tau is {tau:g}."
    ]


@pytest.mark.parametrize(
    ("bias", "tau", "prior", "said"),
    [
        (0.0, 0.5, None, True),
        (-2.3, 0.5, None, False),
        (0.0, 0.0, None, False),
        (0.0, 0.5, "uniform", False),
    ],
    ids=["of equal shares", "of the data's", "tau 0", "prior given"],
)
def test_outputs_that_assume_other_shares_than_the_data_are_named(
    bias, tau, prior, said
):
    linear = Linear(bias=bias)
    judge = linear.judge(TRAINING, SCORING, tau=tau, prior=prior)
    share = 100 * linear.said(TRAINING).probabilities[:, 1].mean()
    notes = about(judge([0.5], PRIOR)["notes"], "class weights")
    assert bool(notes) is said
    if said:
        assert notes[0].startswith(
            f"The original classifier gives 'fraud' {share:.1f} percent in all where "
            f"the training data have 9.1, as after class weights"
        )


# ---- What is said of the change. -----------------------------------------------------


def test_where_no_decision_changes_it_is_said():
    linear = Linear()
    judge = linear.judge(TRAINING, SCORING, Guard(None))
    assert about(judge([0.5], PRIOR)["notes"], "No decision changed.")
    linear.set(1.0, -0.5)
    assert not about(judge([0.5], PRIOR)["notes"], "No decision changed.")


@pytest.mark.parametrize(("apart", "said"), [(0.02, True), (2.0, False)])
def test_classes_that_are_not_told_apart_are_said_to_be(apart, said):
    training, scoring = drawn(SIZES, 0, apart), drawn([1000, 100], 1, apart)
    verdict = Linear().judge(training, scoring, Guard(None))([0.5], PRIOR)
    area = 100 * verdict["before"]["roc_auc"]
    notes = about(verdict["notes"], f"than chance (ROC-AUC {area:.1f})")
    assert bool(notes) is said


def memorized():
    """Training data of clear classes, and validation data where class 1 is like 0."""
    known = tfpf.LabeledFeatures(
        np.array([[-4.0]] * 50 + [[4.0]] * 10), [0] * 50 + [1] * 10
    )
    new = tfpf.LabeledFeatures(
        np.array([[-4.0]] * 50 + [[-4.0]] * 30), [0] * 50 + [1] * 30
    )
    return known, new


def test_a_class_that_is_known_by_heart_is_named():
    known, new = memorized()
    sentence = (
        "The classifier has memorized its training examples of 'fraud' and misses "
        "others: augmented views of images (`augment`), or a larger `tau`, help more "
        "than further training."
    )
    linear = Linear(bias=0.0)
    verdict = linear.judge(known, new, Guard(None), draws=False)([0.5], PRIOR)
    assert about(verdict["notes"], "memorized") == [sentence]
    for settings in ({"errors": False}, {"viewed": True}):
        verdict = linear.judge(known, new, Guard(None), draws=False, **settings)(
            [0.5], PRIOR
        )
        assert not about(verdict["notes"], "memorized")
    verdict = linear.judge(known, known, Guard(None), draws=False)([0.5], PRIOR)
    assert not about(verdict["notes"], "memorized")


def adjusted():
    """What logit adjustment takes off the bias."""
    return -np.log(SIZES[1] / SIZES[0])


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_logit_adjustment_that_does_as_much_is_named_with_its_score(activation):
    linear = Linear(activation)
    judge = linear.judge(TRAINING, SCORING)
    linear.set(1.0, -2.3 + adjusted())
    rival = linear.said(SCORING)
    score = 100 * tfpf.balanced_accuracy(rival.ids, rival.predicted)
    linear.set(1.0, -2.3 + adjusted() + 0.05)
    after = linear.said(SCORING)
    own = 100 * tfpf.balanced_accuracy(after.ids, after.predicted)
    verdict = judge([0.5], PRIOR)
    assert verdict["reason"] == ""
    assert about(verdict["notes"], "Logit adjustment") == [
        f"Logit adjustment alone, which needs no training, has balanced accuracy "
        f"{score:.1f} and the retraining {own:.1f}: adjust_logits(model, "
        f"counts) of the original model is enough."
    ]


def test_where_the_retraining_does_more_logit_adjustment_is_not_named():
    linear = Linear(slope=-1.0)  # as it came, it took one class for the other
    judge = linear.judge(TRAINING, SCORING)
    linear.set(1.0, 0.0)
    verdict = judge([0.5], PRIOR)
    assert verdict["reason"] == ""
    assert not about(verdict["notes"], "Logit adjustment")


def test_after_a_rollback_logit_adjustment_is_named_where_the_guard_keeps_it():
    linear = Linear()
    judge = linear.judge(TRAINING, SCORING)
    before = linear.said(SCORING)
    linear.set(1.0, -2.3 + adjusted())
    rival = linear.said(SCORING)
    linear.set(1.0, -2.3)
    scores = [tfpf.balanced_accuracy(p.ids, p.predicted) for p in (before, rival)]
    verdict = judge([0.5], PRIOR)
    assert "tie" in verdict["reason"]
    assert about(verdict["notes"], "Logit adjustment") == [
        f"Logit adjustment alone, which needs no training, changes balanced accuracy "
        f"from {100 * scores[0]:.1f} to {100 * scores[1]:.1f} and passes the guard: "
        f"adjust_logits(model, counts)."
    ]


def test_after_a_rollback_the_next_step_is_named():
    linear = Linear(bias=0.0)
    judge = linear.judge(TRAINING, SCORING, Guard("accuracy"))
    verdict = judge([0.5], PRIOR)
    assert about(verdict["notes"], 'recipe="auto" chooses among heads that pass')
    assert not about(verdict["notes"], "Logit adjustment")


def test_without_a_monitor_the_rival_is_judged_by_balanced_accuracy():
    linear = Linear()
    judge = linear.judge(TRAINING, SCORING, Guard(None))
    linear.set(1.0, -2.2 + adjusted())
    assert about(judge([0.5], PRIOR)["notes"], "has balanced accuracy")


def test_a_rival_in_a_loss_is_judged_by_its_fall():
    linear = Linear(bias=adjusted() - 2.3)
    judge = linear.judge(TRAINING, SCORING, Guard("log_loss"))
    linear.set(1.0, -2.3)  # fits the shares of the validation data, and the rival not
    verdict = judge([0.5], PRIOR)
    assert verdict["reason"] == ""
    assert not about(verdict["notes"], "Logit adjustment")


def test_a_class_without_an_example_has_no_rival():
    material = tfpf.Material(
        TRAINING.select(TRAINING.ids == 0), np.array([600, 0]), counts={}
    )
    linear = Linear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        judge = linear.judge(TRAINING, SCORING, Guard(None), material=material)
        linear.set(1.0, -2.2 + adjusted())
        assert not about(judge([0.5], PRIOR)["notes"], "Logit adjustment")


# ---- Whether classes are ranked better. ----------------------------------------------


def three(seed):
    """Logits of three classes, 20 times as common as the next."""
    ids = np.repeat([0, 1, 2], [2000, 400, 100])
    logits = np.random.default_rng(seed).normal(size=(ids.size, 3))
    logits[np.arange(ids.size), ids] += 1.5
    counts = np.bincount(ids)
    logits += np.log(counts / counts.sum())
    return tfpf.LabeledFeatures(logits.astype("float32"), ids)


def judged_in_three_classes(prior, slope=1.0):
    """Notes on a head that has other class shares, and scales the logits of class 2."""
    dense = keras.layers.Dense(3, "softmax")
    head = keras.Sequential([keras.Input((3,)), dense])
    dense.set_weights([np.eye(3), np.zeros(3)])
    training, scoring = three(0), three(1)
    counts = training.class_counts(3)
    material = tfpf.Material(training, counts, counts={1: 1600, 2: 1900})
    task = tfpf.Task(head, 3, "sparse_categorical_crossentropy")
    recipe = tfpf.HeadRecipe(blend=0.5, tau=0.0)
    judge = Judge(task, material, recipe, scoring, Guard(None), True)
    kernel = np.eye(3)
    kernel[2, 2] = slope
    dense.set_weights([kernel, np.log(prior * counts.sum() / counts)])
    return judge([0.5], prior)


def test_other_class_shares_alone_are_no_better_ranking():
    verdict = judged_in_three_classes(np.full(3, 1 / 3))
    before, after = verdict["before"], verdict["after"]
    assert abs(after["average_precision"] - before["average_precision"]) > 0.01
    score = 100 * before["average_precision"]
    (note,) = about(verdict["notes"], "ranked")
    assert note.startswith(
        f"At equal class shares, classes are ranked as before (average precision of "
        f"the minority {score:.1f} -> {score:.1f} and ROC-AUC "
    )
    assert note.endswith("within chance): only the class shares changed.")


def test_a_worse_ranking_is_found_at_equal_class_shares():
    verdict = judged_in_three_classes(np.full(3, 1 / 3), slope=-1.0)
    (note,) = about(verdict["notes"], "ranked")
    assert note.startswith("At equal class shares, classes are ranked worse: ")


def test_at_the_same_class_shares_the_scores_are_those_of_the_table():
    shares = np.array([2000, 400, 100]) / 2500
    verdict = judged_in_three_classes(shares, slope=-1.0)
    (note,) = about(verdict["notes"], "ranked")
    assert note.startswith("Classes are ranked worse: average precision of the ")
    assert f" -> {100 * verdict['after']['average_precision']:.1f} and " in note
