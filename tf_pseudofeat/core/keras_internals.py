"""Access to private attributes of Keras objects."""

__all__ = ["copy_decay_exclusions", "metric_falls"]

_EXCLUSIONS = "_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"


def metric_falls(metric):
    """Whether lower values of a Keras metric are better."""
    return getattr(metric, "_direction", "up") == "down"


def copy_decay_exclusions(optimizer, like):
    """Copies the weights that `like` excludes from weight decay; returns `optimizer`.

    `optimizer.exclude_from_weight_decay` is not part of the config.
    """
    for name in _EXCLUSIONS:
        if hasattr(like, name):
            setattr(optimizer, name, getattr(like, name))
    return optimizer
