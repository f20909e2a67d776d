"""The distribution of a model: one device, several devices, or several workers."""

import contextlib

import keras
import tensorflow as tf

__all__ = [
    "batch_multiple",
    "check_one_worker",
    "model_strategy",
    "scope_of",
    "spans_workers",
    "undistributed",
]


def scope_of(model):
    """The strategy scope that a Keras model must be built in to train like `model`."""
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow only
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def model_strategy(model):
    """The strategy that the model was created under, or None.

    Keras gives every model on TensorFlow a strategy, usually the default one, which
    counts as None. A MirroredStrategy of one device does not: its variables need its
    scope.
    """
    with scope_of(model):
        return tf.distribute.get_strategy() if tf.distribute.has_strategy() else None


def spans_workers(model):
    """Whether the model was created under a strategy of several processes."""
    strategy = getattr(model, "distribute_strategy", None)
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()  # empty without TF_CONFIG
    return sum(len(jobs.get(job, ())) for job in ("chief", "worker")) > 1


def batch_multiple():
    """The number that batch sizes must be a multiple of.

    On jax, `keras.distribution` splits each batch into equal parts, and fails if it
    cannot (Keras 3.15). 1 without a distribution.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    mesh = distribution.device_mesh
    return int(mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)])


@contextlib.contextmanager
def undistributed():
    """Context manager without `keras.distribution`: any batch size, on one device."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def check_one_worker(model):
    """Raises ValueError, on each worker, if several workers share the model."""
    if spans_workers(model):
        raise ValueError(
            f"{model.name!r} was created under a MultiWorkerMirroredStrategy of "
            f"several workers, under which Keras 3 cannot train "
            f"(keras-team/keras#20585). Retrain a copy that was created outside the "
            f"strategy, copy = keras.models.clone_model(model) with "
            f"copy.set_weights(model.get_weights()), with the same data and seed on "
            f"each worker, and copy the weights back: "
            f"model.set_weights(copy.get_weights())."
        )
