"""Access to private attributes of Keras objects."""

import keras

__all__ = ["copy_decay_exclusions", "metric_falls"]

_EXCLUSIONS = "_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"


def metric_falls(metric):
    """Whether lower values of a Keras metric are better."""
    # Keras 3.15 gives these two no direction.
    errors = keras.metrics.FalseNegatives | keras.metrics.FalsePositives
    return isinstance(metric, errors) or getattr(metric, "_direction", "up") == "down"


def copy_decay_exclusions(optimizer, like):
    """Copies the weights that `like` excludes from weight decay; returns `optimizer`.

    `optimizer.exclude_from_weight_decay` is not part of the config.
    """
    for name in _EXCLUSIONS:
        if hasattr(like, name):
            setattr(optimizer, name, getattr(like, name))
    return optimizer
