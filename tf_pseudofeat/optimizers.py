"""The optimizer that trains a head."""

import inspect

import keras

__all__ = ["head_optimizer"]


def head_optimizer(steps, optimizer=None, like=None, strategy=None):
    """The optimizer to train a head with; call it in the scope of the strategy.

    By default a new one of the kind that the model was compiled with: same class and
    settings, but the learning rate begins at the class's default, because the model's
    own has usually been decayed to where it no longer moves anything. In the last
    quarter of the steps it falls to zero along a cosine, so that where the head ends
    does not hang on its last batches.

    Args:
        steps: batches to train on.
        optimizer: what to use instead: an optimizer, its name, or a function that makes
            one from the number of steps.
        like: the optimizer of the model; Adam for a model that was not compiled.
        strategy: a `tf.distribute` strategy, or None.

    Returns:
        optimizer: a Keras optimizer that is not the model's.
    """
    if optimizer is None:
        return _like(like or keras.optimizers.Adam(), steps)
    if not isinstance(optimizer, keras.optimizers.Optimizer | str | dict):
        return optimizer(steps)
    optimizer = keras.optimizers.get(optimizer)
    if strategy:  # which an optimizer remembers from where it was made
        optimizer = type(optimizer).from_config(optimizer.get_config())
    return optimizer


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
    return type(optimizer).from_config(config)
