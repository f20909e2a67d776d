"""What Keras keeps to itself and this package has to know."""

__all__ = ["copy_decay_exclusions", "metric_falls"]

_EXCLUSIONS = "_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"


def metric_falls(metric):
    """Whether a lower value of a Keras metric is the better one."""
    return getattr(metric, "_direction", "up") == "down"


def copy_decay_exclusions(optimizer, like):
    """Has an optimizer decay no weight that another one was told not to.

    `optimizer.exclude_from_weight_decay` is in no config.
    """
    for name in _EXCLUSIONS:
        if hasattr(like, name):
            setattr(optimizer, name, getattr(like, name))
    return optimizer
