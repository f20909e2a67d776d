"""Where a model's variables live: on one device, on several, or on several machines."""

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
    """The scope that a Keras model has to be made in, to train like `model`."""
    strategy = getattr(model, "distribute_strategy", None)  # None but on TensorFlow.
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def model_strategy(model):
    """The strategy that the model was made under; None where that was in none.

    Keras gives every model on TensorFlow a strategy, mostly TensorFlow's default one.
    A MirroredStrategy of one device is none of these: its variables need its scope.
    """
    with scope_of(model):
        return tf.distribute.get_strategy() if tf.distribute.has_strategy() else None


def spans_workers(model):
    """Whether the model was made under a strategy of several processes."""
    strategy = getattr(model, "distribute_strategy", None)
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    jobs = strategy.cluster_resolver.cluster_spec().as_dict()  # empty without TF_CONFIG
    return sum(len(jobs.get(job, ())) for job in ("chief", "worker")) > 1


def batch_multiple():
    """What the rows of a batch must be a multiple of, for devices to share them.

    `keras.distribution` of Keras on jax cuts each batch into equal parts, and fails
    where it cannot (Keras 3.15). 1 without a distribution.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    mesh = distribution.device_mesh
    return int(mesh.shape[mesh.axis_names.index(distribution.batch_dim_name)])


@contextlib.contextmanager
def undistributed():
    """Batches of any size, on one device, for what is too small to share."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def check_one_worker(model):
    """Raises, on each worker by itself, for a model that several workers share."""
    if spans_workers(model):
        raise ValueError(
            f"{model.name!r} was made under a MultiWorkerMirroredStrategy of several "
            f"workers, under which Keras 3 trains no model (keras-team/keras#20585), "
            f"its head neither. Retrain a copy that was made outside the strategy, "
            f"copy = keras.models.clone_model(model) with "
            f"copy.set_weights(model.get_weights()), with the same data and seed on "
            f"each worker, and bring it back: model.set_weights(copy.get_weights())."
        )
