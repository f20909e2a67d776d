"""The class shares that outputs assume, and the offsets of logit adjustment."""

import math

import numpy as np

from tf_pseudofeat.head.priors import by_class, positive_shares

__all__ = ["check_tau", "logit_offsets", "prior_shares", "target_shares"]


def check_tau(tau):
    """Returns `tau` as a float; raises ValueError if it is not a finite number."""
    try:
        if math.isfinite(tau):
            return float(tau)
    except TypeError:
        pass
    raise ValueError(f"`tau` must be a finite number, typically 1; received {tau!r}.")


def prior_shares(class_counts, classes):
    """Normalizes counts, or the prior of a report, to shares `[C]`."""
    if hasattr(class_counts, "prior"):
        class_counts = class_counts.prior
    numbers = by_class(class_counts, classes, "class_counts")
    return positive_shares(numbers, "class_counts")


def target_shares(target, class_counts, classes):
    """Returns `target_prior` as shares `[C]`, or None."""
    if target is None:
        return None
    if not isinstance(target, str):
        return positive_shares(
            by_class(target, classes, "target_prior"), "target_prior"
        )
    if target == "uniform":
        return np.full(classes, 1 / classes)
    if target != "training" or class_counts is None:
        raise ValueError(
            f"`target_prior` must be 'uniform', one share per class, or 'training' "
            f"with counts or a report; received {target!r}."
        )
    is_report = hasattr(class_counts, "prior")
    return prior_shares(class_counts.real if is_report else class_counts, classes)


def logit_offsets(class_counts, tau, width):
    """The offsets to subtract from the logits, `[C]` or `[1]`."""
    log_prior = np.log(prior_shares(class_counts, max(2, width)))
    if width == 1:
        log_prior = log_prior[1:] - log_prior[:1]
    return check_tau(tau) * log_prior
