"""TensorFlow Serving's gRPC services."""

import functools

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from .admission import one_at_a_time
from .servables import code_and_reason, find_model

__all__ = ["Grpc"]

GRPC_STATUS = {code.value[0]: code for code in grpc.StatusCode}
RETRY_MILLISECONDS = 1000


class Grpc:
    """`Predict`, `GetModelMetadata` and `GetModelStatus`.

    Messages come here as bytes: gRPC would parse them on the event loop.

    Args:
        models: {name: `ServedModel`}.
        admission: `Admission`, whose threads do what takes time.
    """

    def __init__(self, models, admission):
        self._models, self._admission = models, admission

    def handlers(self):
        """What a `grpc.aio` server takes."""
        prediction = {"Predict": self._predict, "GetModelMetadata": self._metadata}
        services = {
            "PredictionService": prediction,
            "ModelService": {"GetModelStatus": self._status},
        }
        return [
            grpc.method_handlers_generic_handler(
                f"tensorflow.serving.{service}",
                {
                    name: grpc.unary_unary_rpc_method_handler(
                        functools.partial(self._answer, function)
                    )
                    for name, function in functions.items()
                },
            )
            for service, functions in services.items()
        ]

    async def _answer(self, function, message, context):
        try:
            with self._admission.admitted(len(message)):
                answer = await self._admission.run(function, message)
            return answer
        except Exception as error:
            code, reason = code_and_reason(error)
        metadata = ()
        if code == tf.errors.RESOURCE_EXHAUSTED:
            metadata = (("grpc-retry-pushback-ms", str(RETRY_MILLISECONDS)),)
        await context.abort(GRPC_STATUS[code], reason, metadata)

    def _target(self, spec):
        if spec.version_label:
            raise _invalid(
                f"Received version_label {spec.version_label[:80]!r}; versions have no "
                f"labels here. Leave it out, or name a `version`."
            )
        named = spec.HasField("version")
        return find_model(
            self._models, spec.name
        ), spec.version.value if named else None

    def _metadata(self, message):
        """The signatures of a version."""
        request = _parsed(get_model_metadata_pb2.GetModelMetadataRequest, message)
        model, version = self._target(request.model_spec)
        if list(request.metadata_field) != ["signature_def"]:
            raise _invalid(
                f"Received metadata_field {list(request.metadata_field[:9])}; "
                f"expected ['signature_def']."
            )
        return model.metadata(version).SerializeToString()

    def _status(self, message):
        """Which versions there are."""
        request = _parsed(get_model_status_pb2.GetModelStatusRequest, message)
        model, version = self._target(request.model_spec)
        return model.status(version).SerializeToString()

    def _predict(self, message):
        """The outputs of a signature."""
        model, version, signature_name, inputs, wanted = self._read(message)
        servable = model.find(version)
        outputs = servable.predict(inputs, signature_name)
        if not wanted <= outputs.keys():
            raise _invalid(
                f"Received output_filter {sorted(wanted)}; "
                f"the outputs are {sorted(outputs)}."
            )
        response = predict_pb2.PredictResponse(
            outputs={
                name: tf.make_tensor_proto(output)
                for name, output in outputs.items()
                if name in wanted or not wanted
            }
        )
        response.model_spec.name = model.name
        response.model_spec.version.value = servable.version
        response.model_spec.signature_name = signature_name or "serving_default"
        return response.SerializeToString()

    @one_at_a_time
    def _read(self, message):
        """What is needed of a request; the rest of it is let go."""
        request = _parsed(predict_pb2.PredictRequest, message)
        model, version = self._target(request.model_spec)
        inputs = {name: _array(name, proto) for name, proto in request.inputs.items()}
        signature_name = request.model_spec.signature_name
        return model, version, signature_name, inputs, set(request.output_filter)


@one_at_a_time
def _parsed(kind, message):
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise _invalid(f"The message is not a {kind.__name__}: {error}.") from None


def _array(name, proto):
    """The array of a `TensorProto` whose elements are all there.

    TensorFlow repeats the last one to the shape that is claimed, be it a terabyte.
    """
    try:
        shape, dtype = tf.TensorShape(proto.tensor_shape), tf.as_dtype(proto.dtype)
        elements, sent = shape.num_elements(), _count_values(proto, dtype)
        if sent == elements:
            return tf.make_ndarray(proto)
        reason = f"its shape {shape} has {elements} elements and {sent} were sent"
    except (KeyError, TypeError, ValueError) as error:
        reason = error
    raise _invalid(f"Input {name!r} is not a tensor to be read: {reason}.")


def _count_values(proto, dtype):
    if proto.tensor_content:
        if not dtype.size:
            raise TypeError(f"{dtype.name} has no tensor_content")
        return len(proto.tensor_content) // dtype.size
    values = [value for field, value in proto.ListFields() if field.name[-4:] == "_val"]
    return sum(map(len, values)) // (2 if dtype.is_complex else 1)


def _invalid(message):
    return tf.errors.InvalidArgumentError(None, None, message)
