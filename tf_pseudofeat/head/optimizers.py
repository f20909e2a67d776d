"""The optimizer that trains a head."""

import inspect

import keras

from tf_pseudofeat.core.keras_internals import copy_decay_exclusions

__all__ = ["fresh_copy", "head_optimizer"]


def head_optimizer(steps, optimizer=None, like=None, strategy=None):
    """Creates the optimizer of a head; call it in the scope of the strategy.

    By default a new optimizer like the one that the model was compiled with, `like`:
    the same class and settings, but with the default learning rate of the class,
    because that of the model has usually decayed. In the last quarter of the steps the
    learning rate falls to zero along a cosine, so the result does not depend on the
    last batches. Adam, if the model was not compiled.
    """
    if optimizer is None:
        return _like(like or keras.optimizers.Adam(), steps)
    if not isinstance(optimizer, keras.optimizers.Optimizer | str | dict):
        return optimizer(steps)
    optimizer = keras.optimizers.get(optimizer)
    # An optimizer keeps the strategy that it was created in.
    return fresh_copy(optimizer) if strategy else optimizer


def fresh_copy(optimizer):
    """Returns a new optimizer with the same config; anything else unchanged."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return optimizer
    again = type(optimizer).from_config(optimizer.get_config())
    return copy_decay_exclusions(again, optimizer)


def _like(optimizer, steps):
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = _fresh(optimizer.inner_optimizer, steps)
        return keras.optimizers.LossScaleOptimizer(inner)
    return _fresh(optimizer, steps)


def _fresh(optimizer, steps):
    kinds = map(inspect.signature, type(optimizer).__mro__[:-1])
    rates = [
        kind.parameters["learning_rate"].default
        for kind in kinds
        if "learning_rate" in kind.parameters
    ]
    rates = [rate for rate in rates if isinstance(rate, float)]
    rate = rates[0] if rates else 0.001
    falling = max(1, steps // 4)
    decay = keras.optimizers.schedules.CosineDecay(
        rate, falling, warmup_target=rate, warmup_steps=steps - falling
    )
    config = optimizer.get_config()
    config.update(
        learning_rate=keras.saving.serialize_keras_object(decay),
        use_ema=False,
        # Meant for large networks; it would reduce the number of steps.
        gradient_accumulation_steps=None,
    )
    return copy_decay_exclusions(type(optimizer).from_config(config), optimizer)
