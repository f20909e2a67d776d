"""The endpoint `features` of an exported SavedModel, as workers run it."""

import functools
import threading

import tensorflow as tf

__all__ = ["cached_model", "endpoint_specs", "features_of_inputs", "load_model"]

_LOADING = threading.Lock()


def load_model(path):
    """Loads a SavedModel that has the endpoint `features`.

    Args:
        path: folder of the SavedModel, such as `served/1`; `gs://` as well.

    Raises:
        OSError: If there is no SavedModel at `path`.
        ValueError: If it has no endpoint `features`.
    """
    model = tf.saved_model.load(path)
    if "features" not in model.signatures:
        raise ValueError(
            f"{path} has endpoints {sorted(model.signatures)}, but not 'features'. "
            f"Export it with export_classifier(model, path, layer_name=...)."
        )
    return model


def cached_model(path):
    """`load_model`, once per process until the files at `path` are replaced."""
    path = str(path)
    try:
        written = tf.io.gfile.stat(f"{path}/saved_model.pb").mtime_nsec
    except tf.errors.NotFoundError:
        written = None  # `load_model` raises, or finds another format
    with _LOADING:  # threads of one worker share the model
        return _load_once(path, written)


@functools.lru_cache(1)
def _load_once(path, written):
    return load_model(path)


def endpoint_specs(model):
    """Returns {name: `tf.TensorSpec`} of the inputs of the endpoint."""
    return model.signatures["features"].structured_input_signature[1]


def features_of_inputs(model, inputs):
    """Computes the features of a batch.

    Args:
        model: the loaded model.
        inputs: {name: array `[B, ...]`}, see `endpoint_specs`.

    Returns:
        features: array `[B, ...]`.
    """
    tensors = {
        name: tf.constant(inputs[name], spec.dtype)
        for name, spec in endpoint_specs(model).items()
    }
    return model.signatures["features"](**tensors)["features"].numpy()
