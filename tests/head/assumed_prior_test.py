"""Tests for assumed_prior.py: class shares, and what is taken off the logits."""

import types

import numpy as np
import pytest

from tf_pseudofeat.head.assumed_prior import (
    check_tau,
    logit_offsets,
    prior_shares,
    target_shares,
)

REPORT = types.SimpleNamespace(prior=[0.2, 0.8], real=[30, 10])


@pytest.mark.parametrize("counts", [[3, 1], {1: 1, 0: 3}, np.array([0.75, 0.25])])
def test_counts_in_any_form_become_shares(counts):
    np.testing.assert_allclose(prior_shares(counts, 2), [0.75, 0.25])


def test_a_report_knows_what_its_outputs_assume_and_what_was_counted():
    np.testing.assert_allclose(prior_shares(REPORT, 2), [0.2, 0.8])
    np.testing.assert_allclose(target_shares("training", REPORT, 2), [0.75, 0.25])


def test_a_target_is_a_name_or_shares():
    assert target_shares(None, [3, 1], 2) is None
    np.testing.assert_allclose(target_shares("uniform", None, 4), np.full(4, 0.25))
    np.testing.assert_allclose(target_shares("training", [3, 1], 2), [0.75, 0.25])
    np.testing.assert_allclose(target_shares([1, 3], None, 2), [0.25, 0.75])


@pytest.mark.parametrize(("target", "counts"), [("train", [3, 1]), ("training", None)])
def test_another_name_or_no_counts_raise(target, counts):
    with pytest.raises(ValueError, match=f"or 'training' with .*received '{target}'"):
        target_shares(target, counts, 2)


def test_offsets_are_tau_times_the_log_prior_and_one_output_has_their_difference():
    log_prior = np.log([0.75, 0.25])
    np.testing.assert_allclose(logit_offsets([3, 1], 0.5, 2), 0.5 * log_prior)
    np.testing.assert_allclose(
        logit_offsets([3, 1], 1, 1), log_prior[1:] - log_prior[0]
    )


@pytest.mark.parametrize("tau", [np.nan, np.inf, "1", None])
def test_tau_is_a_finite_number(tau):
    with pytest.raises(ValueError, match="`tau` must be a finite number, typically 1"):
        check_tau(tau)
    assert check_tau(np.float32(0.5)) == 0.5
