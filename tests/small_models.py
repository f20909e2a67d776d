"""Models that are made in a millisecond."""

import keras
from keras import layers

__all__ = ["NoGraph", "small_classifier"]


class NoGraph(keras.Model):
    """A subclassed model: what it computes is no graph of layers."""

    def call(self, x):
        return x


def small_classifier(
    units=3,
    activation="softmax",
    loss="sparse_categorical_crossentropy",
    *,
    optimizer="sgd",
    between=(),
    seed=3,
    of_last=None,
    **settings,
):
    """Four numbers, a hidden layer "features", a last layer "end".

    Args:
        units: of the last layer.
        activation: of the last layer.
        loss: as `compile` takes it; None for a model that is not compiled.
        optimizer: as `compile` takes it.
        between: layers between "features" and "end".
        seed: of the weights.
        of_last: dict of arguments of the last layer.
        **settings: as `compile` takes them.
    """
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, activation="relu", name="features"),
            *between,
            layers.Dense(units, activation=activation, name="end", **(of_last or {})),
        ],
        name="network",
    )
    if loss is not None:
        model.compile(optimizer, loss, **settings)
    return model
