"""Tests for thresholds.py: what biases decide, calibrate and print."""

import numpy as np
import pytest
import scipy.special

from tf_pseudofeat.evaluation.thresholds import Thresholds


def thresholds(bias=(0.0, 2.0), temperature=1.0, **changed):
    settings = {
        "metric": "f1",
        "before": 0.5,
        "estimate": 0.625,
        "standard_error": 0.05,
        "counts": [1200] + [30] * (len(bias) - 1),
        **changed,
    }
    return Thresholds(bias=bias, temperature=temperature, **settings)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 4.0])
@pytest.mark.parametrize("bias", [2.0, -3.0, 0.0])
def test_the_threshold_is_where_both_classes_are_as_good(bias, temperature):
    chosen = thresholds((0.0, bias), temperature)
    p = chosen.threshold
    assert np.log(p / (1 - p)) + bias == pytest.approx(0, abs=1e-6)
    near = np.array([[p - 1e-6], [p], [p + 1e-6]])
    assert chosen.decide(near).tolist() == [0, 0, 1]
    assert chosen.decide(np.hstack([1 - near, near])).tolist() == [0, 0, 1]


@pytest.mark.parametrize(("bias", "threshold"), [(1e3, -1.0), (-1e3, 1.0)])
def test_a_bias_that_decides_all_says_so(bias, threshold):
    one = thresholds((0.0, bias), 0.5)
    assert one.threshold == threshold
    chosen = int(bias > 0)
    assert f"Decide for class {chosen}, whatever model.predict" in str(one)
    everything = np.array([[0.0], [0.5], [1.0]])
    expected = [chosen] * 3
    assert one.decide(everything).tolist() == expected
    assert one.decide(np.hstack([1 - everything, everything])).tolist() == expected


def test_probabilities_that_round_to_1_are_decided_by_the_other_class():
    chosen = thresholds((0.0, -20.0), class_names=("ok", "fraud"))
    second = np.exp([-19.0, -21.0])[:, None]  # float32 has no 1 minus these
    p = np.hstack([second, 1 - second]).astype("float32")
    assert (p[:, 1] == 1).all()
    assert chosen.decide(p).tolist() == [0, 1]
    assert chosen.decide(p[:, 1:]).tolist() == [1, 1]
    assert (p[:, 1] > chosen.threshold).all()
    assert "more than 0.99999994, or if it has two outputs, 'ok' less than" in str(
        chosen
    )


def test_logits_are_decided_by_their_difference():
    chosen = thresholds((0.0, 2.0), 4.0, from_logits=True)
    logits = np.array([[1.0, -1.5], [1.0, -0.5]])
    assert chosen.decide(logits).tolist() == [0, 1]
    assert chosen.decide(logits[:, 1:] - logits[:, :1]).tolist() == [0, 1]
    expected = scipy.special.softmax(logits / 4, axis=1)
    np.testing.assert_allclose(chosen.calibrate(logits), expected)
    assert "exceeds that of class 0, 0 for a single output, by more than -2" in str(
        chosen
    )


@pytest.mark.parametrize("y", [[[3.0, -1.0]], [[0.7, 0.7]], [[2.0]]])
def test_logits_for_probabilities_raise(y):
    for method in (thresholds().decide, thresholds().calibrate):
        with pytest.raises(ValueError, match="must be probabilities from 0 to 1 whose"):
            method(y)


def test_three_classes_have_no_threshold():
    chosen = thresholds((0.0, 1.0, 2.0))
    assert chosen.threshold is None
    assert "Decide for" not in str(chosen)
    assert chosen.decide([[0.5, 0.25, 0.25], [0.98, 0.01, 0.01]]).tolist() == [2, 0]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_probability_of_0_can_be_decided_against():
    assert thresholds().decide([[1.0, 0.0], [0.0, 1.0]]).tolist() == [0, 1]


@pytest.mark.parametrize("p", [[0.5, 0.5], [[0.2, 0.3, 0.5]], 0.5, [[[0.5, 0.5]]]])
def test_probabilities_of_another_shape_raise(p):
    with pytest.raises(ValueError, match=r"shape \[N, 2\]; received \["):
        thresholds().decide(p)


def test_it_prints_what_to_expect_and_where_to_decide():
    text = str(thresholds(class_names=("ok", "fraud"), temperature=1.5))
    assert text.splitlines()[:3] == [
        "F1 of the minority: 50.0 as it is; expect 62.5 +- 5.0 on new data "
        "(cross-fitted on 1,230 validation examples).",
        "Decide for 'fraud' where model.predict gives it more than 0.11920292.",
        "For calibrated probabilities divide the logits by 1.5, as `calibrate` does; "
        "decisions are made without.",
    ]
    rows = [line.split() for line in text.splitlines()]
    assert ["ok", "1,200", "+0.000"] in rows
    assert ["fraud", "30", "+2.000"] in rows
    assert "<td" in thresholds()._repr_html_()
    assert "divide" not in str(thresholds())


@pytest.mark.parametrize("from_logits", [False, True])
def test_outputs_that_are_nan_are_not_decided(from_logits):
    chosen = thresholds(from_logits=from_logits)
    for method in (chosen.decide, chosen.calibrate):
        with pytest.raises(ValueError, match="`outputs` are NaN.*the first is row 1"):
            method([[0.5, 0.5], [np.nan, 0.5]])
