"""Tests for recipe_checks.py: fields of a recipe; refusals in calls are contracts."""

import functools
import types

import keras
import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import SMOTE
from keras import layers

from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.head.recipe_checks import (
    check_blend,
    check_fresh,
    check_optimizer,
    check_source,
    check_task_logit_bias,
    resolve_target_prior,
)
from tf_pseudofeat.head.task import Task


def source(gaussian=None, sampler=None, sampling_strategy="auto"):
    return types.SimpleNamespace(
        gaussian=gaussian, sampler=sampler, sampling_strategy=sampling_strategy
    )


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"gaussian": ClassConditionalGaussian(3)},
        {"gaussian": {"covariance_type": "tied"}},
        {"sampler": SMOTE()},
        {"sampling_strategy": {1: 3}},
    ],
    ids=str,
)
def test_gaussians_or_a_sampler_are_a_source(given):
    check_source(source(**given))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"gaussian": {}, "sampler": SMOTE()},
            ValueError,
            "`gaussian` or `sampler`, no",
        ),
        ({"gaussian": {"covariance": "full"}}, ValueError, "covariance"),
        ({"gaussian": {"covariance_type": "ful"}}, ValueError, "'ful'"),
        ({"gaussian": "full"}, ValueError, "a ClassConditionalGaussian; received str"),
        ({"sampler": SMOTE}, TypeError, r"received the class SMOTE. Pass SMOTE\(\)"),
        ({"sampler": "SMOTE"}, ValueError, "`fit_resample.X, y.`; received str"),
        (
            {"sampler": SMOTE(), "sampling_strategy": {1: 3}},
            ValueError,
            r"Set it there, SMOTE\(sampling_strategy=...\)",
        ),
    ],
)
def test_another_source_raises(given, error, message):
    with pytest.raises(error, match=message):
        check_source(source(**given))


SCHEDULE = keras.optimizers.schedules.CosineDecay(0.1, 10)


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [
        (keras.optimizers.Adam, TypeError, "received the class Adam"),
        (functools.partial(keras.optimizers.Adam, 0.1), TypeError, "the class Adam"),
        ("adamm", ValueError, "adamm"),
        (SCHEDULE, TypeError, r"the learning rate CosineDecay. .*Adam\(schedule\)"),
        (0.1, TypeError, "its name, or a function from the number of steps to one"),
    ],
)
def test_what_makes_no_optimizer_raises(optimizer, error, message):
    with pytest.raises(error, match=message):
        check_optimizer(optimizer)


def test_an_optimizer_its_name_or_its_maker_is_taken():
    for optimizer in (None, "adam", keras.optimizers.SGD(), lambda steps: None):
        check_optimizer(optimizer)


@pytest.mark.parametrize("blend", [-0.1, 1.1, np.nan, "0.5", None])
def test_a_blend_is_a_share(blend):
    with pytest.raises(ValueError, match=r"`blend` must be in \[0, 1\]; received"):
        check_blend(blend, fresh_head=False)
    for fine in (0, 0.5, 1):
        check_blend(fine, fresh_head=False)
    check_blend(0, fresh_head=True)
    with pytest.raises(
        ValueError, match="blend=0.5 averages the old head with the one"
    ):
        check_blend(0.5, fresh_head=True)


@pytest.mark.parametrize(
    "target", [[1, 3], {1: 3, 0: 1}, pd.Series([1.0, 3.0]), np.array([0.25, 0.75])]
)
def test_shares_in_any_form_become_numbers_by_class(target):
    resolved = resolve_target_prior(target, tau=None)
    np.testing.assert_allclose(np.divide(resolved, sum(resolved)), [0.25, 0.75])


@pytest.mark.parametrize(
    ("target", "tau", "message"),
    [
        ("uniform", 0.5, "tau=0.5 and `target_prior` both adjust the logits"),
        ("even", None, "must be one of .*received 'even'"),
        ([[1, 2]], None, "a positive share for each class"),
        (3, None, "a positive share for each class; received 3"),
        ([1, 0], None, "target_prior"),
    ],
)
def test_another_prior_raises(target, tau, message):
    with pytest.raises(ValueError, match=message):
        resolve_target_prior(target, tau)
    assert resolve_target_prior("uniform", 0) == "uniform"
    assert resolve_target_prior(None, 1) is None


def head_of(*last):
    return keras.Sequential([keras.Input((3,)), *last], name="head")


def test_log_odds_and_a_bias_are_needed_to_shift_them():
    softmax, numbers = layers.Dense(4, "softmax"), layers.Dense(1)
    crossentropy = "sparse_categorical_crossentropy"
    check_task_logit_bias(Task(head_of(softmax), 4, crossentropy), "tau=1")
    with pytest.raises(
        ValueError, match="tau=1 shifts log-odds, but the outputs of 'h"
    ):
        check_task_logit_bias(Task(head_of(numbers), 2, "mse"), "tau=1")
    unbiased = head_of(layers.Dense(4, "softmax", use_bias=False))
    with pytest.raises(ValueError, match="does not end in a trainable one"):
        check_task_logit_bias(Task(unbiased, 4, crossentropy), "tau=1")


def test_a_quantized_layer_cannot_start_anew():
    head = head_of(layers.Dense(8, name="hidden"), layers.Dense(4))
    check_fresh(head)
    head.layers[0].quantize("int8")
    with pytest.raises(ValueError, match="but layer 'hidden' is quantized"):
        check_fresh(head)
