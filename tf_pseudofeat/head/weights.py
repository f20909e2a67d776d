"""The weights of a head: copied, averaged, frozen for a while, and put back."""

import contextlib
import hashlib
import threading

import keras
import numpy as np

from tf_pseudofeat.splitting.graph import layers_inside

__all__ = [
    "blend_weights",
    "fingerprint",
    "frozen_batch_norm",
    "leave_prior",
    "left_prior",
    "product_layers",
    "restored_unless_kept",
    "weights_of",
]

_NOTE = "_pseudofeat_prior"

# {id of a variable: the thread that trains it}
_TRAINED = {}
_LOCK = threading.Lock()


def weights_of(head):
    """A copy of every variable of a head, as numpy arrays."""
    return [keras.ops.convert_to_numpy(variable).copy() for variable in head.variables]


def blend_weights(head, old, new, blend):
    """Gives a head `blend * old + (1 - blend) * new`, where weights are trained."""
    trained = {id(variable) for variable in head.trainable_variables}
    for variable, before, after in zip(head.variables, old, new, strict=True):
        if id(variable) in trained:
            mean = blend * before.astype(np.float64) + (1 - blend) * after
            variable.assign(mean.astype(before.dtype))
            if getattr(variable, "constraint", None) is not None:
                variable.assign(variable.constraint(variable.value))


def product_layers(head):
    """Names of layers that multiply weights with each other (LoRA).

    The mean of two products is not the product of the means.
    """
    return [
        layer.name
        for layer in layers_inside(head)
        if getattr(layer, "lora_enabled", False)
    ]


@contextlib.contextmanager
def restored_unless_kept(head):
    """Puts back every variable of the head unless the yielded function was called.

    What `leave_prior` noted comes back, too. One inside another is fine; the outer one
    has the last word.

    Raises:
        RuntimeError: Another thread is training the head, or a head that shares
            weights with it.
    """
    with _sole_training(head):
        saved, noted = weights_of(head), getattr(head, _NOTE, None)
        kept = []
        try:
            yield lambda: kept.append(True)
        finally:
            if not kept:
                for variable, value in zip(head.variables, saved, strict=True):
                    variable.assign(value)
                object.__setattr__(head, _NOTE, noted)


@contextlib.contextmanager
def _sole_training(head):
    thread, own = threading.get_ident(), []
    # Those that are frozen may be shared: nobody changes them.
    variables = {id(variable): variable for variable in head.trainable_variables}
    try:
        with _LOCK:
            taken = [
                v for i, v in variables.items() if _TRAINED.get(i, thread) != thread
            ]
            if taken:
                raise RuntimeError(
                    f"The head {head.name!r} is being retrained by another thread "
                    f"(weight {taken[0].path!r} and {len(taken) - 1} others): each "
                    f"would score and restore the weights of the other. Wait for it, "
                    f"or retrain a copy: copy = keras.models.clone_model(model), "
                    f"copy.set_weights(model.get_weights())."
                )
            own = [i for i in variables if i not in _TRAINED]
            _TRAINED.update(dict.fromkeys(own, thread))
        yield
    finally:
        with _LOCK:
            for i in own:
                del _TRAINED[i]


@contextlib.contextmanager
def frozen_batch_norm(head, freeze=True):
    """Freezes BatchNormalization layers for a while, if `freeze` says so.

    Raises:
        ValueError: No weight of the head is left to train.
    """
    frozen = []
    try:
        for layer in layers_inside(head) if freeze else ():
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
                frozen.append((layer, set(map(id, layer.trainable_variables))))
                layer.trainable = False
        if not head.trainable_variables:
            names = [layer.name for layer in layers_inside(head)]
            raise ValueError(
                f"The head has no weight that can be trained (layers: {names}; "
                f"{len(frozen)} BatchNormalization frozen). Split at an earlier layer, "
                f"set `trainable` on its layers, or pass freeze_batch_norm=False."
            )
        yield
    finally:
        for layer, trained in frozen:
            layer.trainable = True  # which sets the flags of all its variables, too
            for variable in layer.trainable_variables:
                variable.trainable = id(variable) in trained


def leave_prior(head, prior):
    """Notes on a retrained head the class shares `[C]` that its outputs assume."""
    # Past Keras, which would track a list.
    object.__setattr__(
        head, _NOTE, (fingerprint(head.trainable_variables), list(prior))
    )


def left_prior(head):
    """What `leave_prior` noted, while the head's weights are those; else None."""
    noted = getattr(head, _NOTE, None)
    if noted is None or noted[0] != fingerprint(head.trainable_variables):
        return None
    return noted[1]


def fingerprint(variables):
    """Tells whether variables have changed since."""
    digest = hashlib.blake2b()
    for variable in variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.digest()
