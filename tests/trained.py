"""Networks that are trained once for many tests; each test gets them as they were."""

import keras
import tensorflow as tf

__all__ = ["Trained", "compiled", "train"]


class Trained:
    """A trained model, and what its variables and its optimizer's were then.

    A test may retrain it: what is traced for it, and the training itself, serve the
    next test, too.

    Args:
        model: compiled and trained Keras model.
    """

    def __init__(self, model):
        self._model, self._optimizer = model, model.optimizer
        self._values = [keras.ops.convert_to_numpy(v) for v in self._variables()]

    def again(self):
        """The model, as it came out of training in every variable."""
        for variable, value in zip(self._variables(), self._values, strict=True):
            variable.assign(value)
        return self._model

    def _variables(self):
        return [*self._model.variables, *self._optimizer.variables]


def compiled(model, optimizer, loss, **settings):
    """The model, with an optimizer that knows its weights: `fit` traces it once.

    Args:
        model: Keras model that is built.
        optimizer: Keras optimizer, or its name.
        loss: as `compile` takes it.
        **settings: as `compile` takes them.
    """
    model.compile(optimizer, loss, **settings)
    model.optimizer.build(model.trainable_variables)
    return model


def train(model, x, y, epochs, batch_size=32, sample_weight=None):
    """Does what `fit` of arrays does, which takes ten times as long for so few rows.

    Args:
        model: compiled Keras model.
        x: inputs [N, ...].
        y: labels [N].
        epochs: number of epochs.
        batch_size: B.
        sample_weight: weights [N], or None.
    """
    data = (x, y) if sample_weight is None else (x, y, sample_weight)
    stream = tf.data.Dataset.from_tensor_slices(data).shuffle(len(y), seed=0)
    model.fit(stream.batch(batch_size), epochs=epochs, shuffle=False, verbose=0)
