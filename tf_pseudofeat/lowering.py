"""A computation of Keras layers as one of TensorFlow, as SavedModels hold it."""

import keras
import tensorflow as tf

__all__ = ["Lowering", "check_can_lower"]

# Where an export may be served, whatever it was made on.
_PLATFORMS = ("cpu", "cuda")


def check_can_lower():
    """Refuses a Keras backend whose computations TensorFlow cannot do.

    Raises:
        NotImplementedError: With the way to export from there.
    """
    backend = keras.backend.backend()
    if backend not in ("jax", "tensorflow"):
        raise NotImplementedError(
            f"A SavedModel is a graph of TensorFlow, and what Keras computes on "
            f"{backend!r} cannot become one. Save the model, "
            f"model.save('model.keras'); then, in a process with "
            f"KERAS_BACKEND=tensorflow, export what "
            f"keras.models.load_model('model.keras') returns."
        )


class Lowering:
    """Turns functions of Keras layers into functions of TensorFlow tensors.

    On TensorFlow they are such already. On jax each is lowered with
    `jax.experimental.jax2tf`; of a weight that several of them read there is one copy,
    a `tf.Variable`.

    Raises:
        NotImplementedError: The backend is neither.

    Example:

    >>> lowered = Lowering()
    >>> predict = lowered(lambda x: model(x, training=False), [model], signature)
    """

    def __init__(self):
        check_can_lower()
        self._twins = {}  # {id of a Keras variable: (it, its tf.Variable)}

    def __call__(self, function, layers, signature):
        """The function that computes in TensorFlow what `function` does in Keras.

        Args:
            function: of one structure of tensors; in inference mode, it changes no
                weight.
            layers: all Keras layers that it calls.
            signature: `tf.TensorSpec`s of its argument, in its structure, with an open
                batch size.

        Returns:
            lowered: function of TensorFlow tensors, to be called within a
                `tf.function`.
        """
        if keras.backend.backend() == "tensorflow":
            return function
        return self._from_jax(function, layers, signature)

    def _from_jax(self, function, layers, signature):
        from jax.experimental import jax2tf

        variables = [variable for layer in layers for variable in layer.variables]
        twins = [self._twin(variable) for variable in variables]

        def stateless(values, x):
            state = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=state):
                return function(x)

        shapes = keras.tree.map_structure(_named_sizes, signature)
        lowered = jax2tf.convert(
            stateless,
            polymorphic_shapes=[None, shapes],
            with_gradient=False,
            native_serialization_platforms=_PLATFORMS,
        )
        return lambda x: lowered(twins, x)

    def _twin(self, variable):
        if id(variable) not in self._twins:
            value = keras.ops.convert_to_numpy(variable)
            twin = tf.Variable(value, trainable=False)
            self._twins[id(variable)] = variable, twin  # or its id may be used again
        return self._twins[id(variable)][1]


def _named_sizes(spec):
    """The shape of a tensor as jax2tf takes it: "(batch, 8, 8, 1)"."""
    sizes = ["batch", *(_size(i, size) for i, size in enumerate(spec.shape[1:]))]
    return f"({', '.join(sizes)})"


def _size(axis, size):
    return f"size{axis}" if size is None else str(size)
