"""Networks that are trained once for many tests; each test gets them as they were."""

import keras

__all__ = ["Trained", "compiled"]


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
