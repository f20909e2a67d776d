"""The weights of a head: copies, averages, freezing, and rollback."""

import contextlib
import hashlib
import threading

import keras
import numpy as np

from tf_pseudofeat.splitting.graph import layers_inside

__all__ = [
    "blend_weights",
    "check_trainable",
    "fingerprint",
    "frozen_batch_norm",
    "product_layers",
    "record_prior",
    "recorded_prior",
    "rollback_unless_committed",
    "weights_of",
]

_PRIOR = "_pseudofeat_prior"

# {id of a variable: the thread that trains it}
_TRAINED = {}
_LOCK = threading.Lock()


def weights_of(head):
    """Copies the variables of a head to NumPy arrays."""
    return [keras.ops.convert_to_numpy(variable).copy() for variable in head.variables]


def blend_weights(head, old, new, blend):
    """Assigns `blend * old + (1 - blend) * new` to the trainable weights of a head."""
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
def rollback_unless_committed(head):
    """Restores every variable of the head on exit, unless `commit` was called.

    Yields the function `commit`. The prior of `record_prior` is restored, too. Can be
    nested; the outermost one decides.

    Raises:
        RuntimeError: If another thread is training the head, or one that shares
            weights.
    """
    with _sole_training(head):
        saved, prior = weights_of(head), getattr(head, _PRIOR, None)
        committed = []
        try:
            yield lambda: committed.append(True)
        finally:
            if not committed:
                for variable, value in zip(head.variables, saved, strict=True):
                    variable.assign(value)
                object.__setattr__(head, _PRIOR, prior)


@contextlib.contextmanager
def _sole_training(head):
    thread, own = threading.get_ident(), []
    # Frozen weights may be shared, since they do not change.
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


def check_trainable(head, freeze_batch_norm=True):
    """Raises ValueError if no weight of the head can be trained."""
    with frozen_batch_norm(head, freeze_batch_norm):
        pass


@contextlib.contextmanager
def frozen_batch_norm(head, freeze=True):
    """Context manager that freezes BatchNormalization layers if `freeze` is True.

    Raises:
        ValueError: If the head has no trainable weights left.
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
                f"The head has no trainable weights (layers: {names}; "
                f"{len(frozen)} BatchNormalization frozen). Split at an earlier layer, "
                f"set `trainable` on its layers, or pass freeze_batch_norm=False."
            )
        yield
    finally:
        for layer, trained in frozen:
            layer.trainable = True  # also sets the flags of all its variables
            for variable in layer.trainable_variables:
                variable.trainable = id(variable) in trained


def record_prior(head, prior):
    """Records on a retrained head the class shares `[C]` that its outputs assume."""
    # Bypasses Keras, which would track a list.
    object.__setattr__(
        head, _PRIOR, (fingerprint(head.trainable_variables), list(prior))
    )


def recorded_prior(head):
    """The prior of `record_prior` if the weights have not changed since; else None."""
    noted = getattr(head, _PRIOR, None)
    if noted is None or noted[0] != fingerprint(head.trainable_variables):
        return None
    return noted[1]


def fingerprint(variables):
    """A hash of the values of variables."""
    digest = hashlib.blake2b()
    for variable in variables:
        digest.update(keras.ops.convert_to_numpy(variable).tobytes())
    return digest.digest()
