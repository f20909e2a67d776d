"""Lowers computations of Keras layers to TensorFlow, for SavedModels."""

import functools

import keras
import tensorflow as tf

__all__ = ["Lowering"]

# Platforms on which exports can be served.
_PLATFORMS = ("cpu", "cuda")


def _check_can_lower():
    """Raises NotImplementedError if the Keras backend cannot be lowered."""
    backend = keras.backend.backend()
    if backend not in ("jax", "tensorflow"):
        raise NotImplementedError(
            f"A SavedModel is a TensorFlow graph, to which Keras on {backend!r} cannot "
            f"be converted. Save the model, model.save('model.keras'); then, in a "
            f"process with KERAS_BACKEND=tensorflow, export what "
            f"keras.models.load_model('model.keras', compile=False) returns: the "
            f"optimizer would need {backend!r}."
        )


class Lowering:
    """Turns functions of Keras layers into functions of TensorFlow tensors.

    On TensorFlow they are returned unchanged. On jax they are lowered with
    `jax.experimental.jax2tf`; weights that several of them share are copied once, to a
    `tf.Variable`.

    Raises:
        NotImplementedError: If the backend is neither.

    Examples:
        >>> lowered = Lowering()
        >>> predict = lowered(lambda x: model(x, training=False), [model], signature)
    """

    def __init__(self):
        _check_can_lower()
        self._twins = {}  # {id of a Keras variable: (it, its tf.Variable)}

    def __call__(self, function, layers, signature):
        """Returns a TensorFlow function that is equivalent to `function`.

        Args:
            function: function of one structure of tensors, in inference mode.
            layers: all Keras layers that it calls.
            signature: structure of `tf.TensorSpec`s of its argument, with variable
                batch size.

        Returns:
            lowered: function of TensorFlow tensors, to be called within a
                `tf.function`.
        """
        if keras.backend.backend() == "tensorflow":
            return function
        return self._from_jax(function, layers, signature)

    def _from_jax(self, function, layers, signature):
        import jax
        from jax import export
        from jax.experimental import jax2tf

        everything = [variable for layer in layers for variable in layer.variables]
        weights = {id(weight) for layer in layers for weight in layer.weights}

        def changed_by(variables, values, x):
            """Returns outputs, and {index: new value} of changed variables."""
            state = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=state) as scope:
                before = [scope.get_current_value(variable) for variable in variables]
                outputs = function(x)
                after = [scope.get_current_value(variable) for variable in variables]
            changed = {
                place: new
                for place, (old, new) in enumerate(zip(before, after, strict=True))
                if new is not old
            }
            return outputs, changed

        # Seeds are variables, too. Unused ones are not exported.
        values = [variable.value for variable in everything]
        sizes = keras.tree.map_structure(_sizes, signature)
        example = keras.tree.map_structure(_example, signature)
        symbolic = export.symbolic_args_specs(example, sizes)
        trial = functools.partial(changed_by, everything)
        _, changed = jax.eval_shape(trial, values, symbolic)
        used = [
            variable
            for place, variable in enumerate(everything)
            if id(variable) in weights or place in changed
        ]
        twins = [self._twin(variable) for variable in used]
        lowered = jax2tf.convert(
            functools.partial(changed_by, used),
            polymorphic_shapes=[None, sizes],
            with_gradient=False,
            native_serialization_platforms=_PLATFORMS,
        )

        def in_tensorflow(x):
            rows = tf.shape(keras.tree.flatten(x)[0])[0]
            x = keras.tree.map_structure(_with_a_row, x, signature)
            outputs, changed = lowered(twins, x)
            for place, value in changed.items():
                twins[place].assign(value)
            return keras.tree.map_structure(lambda output: output[:rows], outputs)

        return in_tensorflow

    def _twin(self, variable):
        if id(variable) not in self._twins:
            value = keras.ops.convert_to_numpy(variable)
            twin = tf.Variable(value, trainable=False)
            self._twins[id(variable)] = (
                variable,
                twin,
            )  # keeps the variable alive, so that its id is unique
        return self._twins[id(variable)][1]


def _sizes(spec):
    """A symbolic shape for jax2tf: "(batch, 8, 8, 1)"."""
    sizes = [
        f"size{axis}" if size is None else str(size)
        for axis, size in enumerate(spec.shape)
    ]
    return f"({', '.join(['batch', *sizes[1:]])})"


def _example(spec):
    shape = [size or 1 for size in spec.shape]
    return keras.ops.zeros(shape, spec.dtype.name)


def _with_a_row(x, spec):
    """Pads an empty batch with a row of zeros, since jax does not support it."""
    missing = tf.cast(tf.equal(tf.shape(x)[0], 0), tf.int32)
    x = tf.pad(x, [[0, missing], *([0, 0] for _ in spec.shape[1:])])
    x.set_shape(spec.shape)  # no operation, as `ensure_shape` is, for LiteRT
    return x
