"""Access to private attributes of Keras objects."""

import keras

__all__ = ["copy_decay_exclusions", "kept_with", "mask", "metric_falls"]

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


def mask(tensor):
    """The Keras mask of `tensor`, or None."""
    return getattr(tensor, "_keras_mask", None)


def kept_with(model, name, objects, make, anew=False):
    """Makes something of a model once, and keeps it as an attribute of the model.

    Args:
        model: Keras model.
        name: of the attribute.
        objects: list of what it is made of; it is made again for other objects.
        make: function without arguments that makes it.
        anew: whether to make it again for the same objects.
    """
    known = getattr(model, name, None)
    if anew or known is None or list(map(id, known[0])) != list(map(id, objects)):
        known = objects, make()
        # Bypasses Keras, which would track the layers in it.
        object.__setattr__(model, name, known)
    return known[1]
