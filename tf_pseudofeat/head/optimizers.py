"""The optimizer that trains a head."""

import inspect

import keras

from tf_pseudofeat.core.keras_internals import copy_decay_exclusions

__all__ = ["head_optimizer", "unused"]


def head_optimizer(steps, optimizer=None, like=None, strategy=None):
    """The optimizer to train a head with; call it in the scope of the strategy.

    By default a new one of the kind that the model was compiled with, `like`: same
    class and settings, but the learning rate begins at the class's default, because the
    model's own has usually been decayed to where it no longer moves anything. In the
    last quarter of the steps it falls to zero along a cosine, so that where the head
    ends does not hang on its last batches. Of a model that was not compiled: Adam.
    """
    if optimizer is None:
        return _like(like or keras.optimizers.Adam(), steps)
    if not isinstance(optimizer, keras.optimizers.Optimizer | str | dict):
        return optimizer(steps)
    optimizer = keras.optimizers.get(optimizer)
    # An optimizer remembers the strategy that it was made in.
    return unused(optimizer) if strategy else optimizer


def unused(optimizer):
    """A new optimizer like one that has steps behind it; anything else as it is."""
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
        # For the memory of a large network. It would count, and end, fewer steps.
        gradient_accumulation_steps=None,
    )
    return copy_decay_exclusions(type(optimizer).from_config(config), optimizer)
