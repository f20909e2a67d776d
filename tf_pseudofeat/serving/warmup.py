"""Warmup requests, which TensorFlow Serving runs before it serves a new version."""

import keras
import numpy as np
import tensorflow as tf

__all__ = ["warmup_records"]


def warmup_records(functions, x, model_name):
    """Creates one request per endpoint, for `tf_serving_warmup_requests`.

    `x` is a batch of inputs, which is sent to the endpoint "encoded" as PNG files.

    Returns:
        records: list of serialized `PredictionLog`, to write as TFRecords.
    """
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError as error:
        raise ImportError(
            "`warmup` needs the package tensorflow-serving-api: "
            "pip install 'tf-pseudofeat[serving]'."
        ) from error
    arrays = _arrays(functions["serving_default"], x)
    records = []
    for endpoint in functions:
        log = prediction_log_pb2.PredictionLog()
        request = log.predict_log.request
        request.model_spec.name = model_name
        request.model_spec.signature_name = endpoint
        inputs = _encoded(arrays) if endpoint == "encoded" else arrays
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        records.append(log.SerializeToString())
    return records


def _arrays(function, x):
    """Returns {name: array} of a batch, in the dtypes of the endpoint."""
    (signature,), _ = function.get_concrete_function().structured_input_signature
    specs, values = keras.tree.flatten(signature), keras.tree.flatten(x)
    shapes = [np.shape(value) for value in values]
    if len(specs) != len(values) or not all(
        spec.shape.is_compatible_with(shape)
        for spec, shape in zip(specs, shapes, strict=True)
    ):
        raise ValueError(
            f"`warmup` must be one batch of the model's inputs, "
            f"{ {spec.name: tuple(spec.shape) for spec in specs} }; received shapes "
            f"{shapes}."
        )
    return {
        spec.name: np.asarray(value, spec.dtype.as_numpy_dtype)
        for spec, value in zip(specs, values, strict=True)
    }


def _encoded(arrays):
    (images,) = arrays.values()
    images = np.clip(np.round(images), 0, 255).astype(np.uint8)
    return {"image_bytes": [tf.io.encode_png(image).numpy() for image in images]}
