"""The class shares that outputs assume, and what an adjustment takes off the logits."""

import math

import numpy as np

from tf_pseudofeat.head.priors import by_class, positive_shares

__all__ = ["check_tau", "logit_offsets", "prior_shares", "target_shares"]


def check_tau(tau):
    """`tau` as a float; raises ValueError where it is no finite number."""
    try:
        if math.isfinite(tau):
            return float(tau)
    except TypeError:
        pass
    raise ValueError(f"`tau` is a finite number, by custom 1; received {tau!r}.")


def prior_shares(class_counts, classes):
    """Counts, or the prior of a report, checked, as shares `[C]` of their sum."""
    if hasattr(class_counts, "prior"):
        class_counts = class_counts.prior
    numbers = by_class(class_counts, classes, "class_counts")
    return positive_shares(numbers, "class_counts")


def target_shares(target, class_counts, classes):
    """`target_prior` as shares `[C]`; None where it is None."""
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
            f"`target_prior` is 'uniform', one share per class, or 'training' beside "
            f"the counts or the report of a training; received {target!r}."
        )
    is_report = hasattr(class_counts, "prior")
    return prior_shares(class_counts.real if is_report else class_counts, classes)


def logit_offsets(class_counts, tau, width):
    """What comes off the logits `[C]`, or `[1]`."""
    log_prior = np.log(prior_shares(class_counts, max(2, width)))
    if width == 1:
        log_prior = log_prior[1:] - log_prior[:1]
    return check_tau(tau) * log_prior
