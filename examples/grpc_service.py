"""TensorFlow Serving's gRPC services."""

import asyncio

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from .servables import code_and_reason, find_model

__all__ = ["Grpc"]

GRPC_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class Grpc(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """`Predict`, `GetModelMetadata` and `GetModelStatus`.

    Args:
        models: {name: `ServedModel`}.
        pool: executor for what takes time.
        max_bytes: of one input; a few bytes of protobuf can stand for many.
    """

    def __init__(self, models, pool, max_bytes):
        self._models, self._pool, self._max_bytes = models, pool, max_bytes

    def add_to(self, server):
        """Registers both services with a `grpc.aio` server."""
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            self, server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, server)

    async def Predict(self, request, context):
        """The outputs of a signature."""
        return await self._answer(context, self._predict, request)

    async def GetModelMetadata(self, request, context):
        """The signatures of a version."""
        return await self._answer(context, self._metadata, request)

    async def GetModelStatus(self, request, context):
        """Which versions there are."""
        return await self._answer(context, self._status, request)

    async def _answer(self, context, function, request):
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, function, request)
        except Exception as error:
            code, reason = code_and_reason(error)
        await context.abort(GRPC_STATUS[code], reason)

    def _target(self, spec):
        named = spec.HasField("version")
        return find_model(
            self._models, spec.name
        ), spec.version.value if named else None

    def _metadata(self, request):
        model, version = self._target(request.model_spec)
        if list(request.metadata_field) != ["signature_def"]:
            raise tf.errors.InvalidArgumentError(
                None,
                None,
                f"Received metadata_field {list(request.metadata_field)}; "
                f"expected ['signature_def'].",
            )
        return model.metadata(version)

    def _status(self, request):
        model, version = self._target(request.model_spec)
        return model.status(version)

    def _predict(self, request):
        spec = request.model_spec
        model, version = self._target(spec)
        servable = model.find(version)
        inputs = {
            name: self._array(name, proto) for name, proto in request.inputs.items()
        }
        outputs = servable.predict(inputs, spec.signature_name)
        wanted = list(request.output_filter) or list(outputs)
        if not set(wanted) <= set(outputs):
            raise tf.errors.InvalidArgumentError(
                None,
                None,
                f"Received output_filter {wanted}; the outputs are {sorted(outputs)}.",
            )
        response = predict_pb2.PredictResponse(
            outputs={name: tf.make_tensor_proto(outputs[name]) for name in wanted}
        )
        response.model_spec.name = model.name
        response.model_spec.version.value = servable.version
        response.model_spec.signature_name = spec.signature_name or "serving_default"
        return response

    def _array(self, name, proto):
        try:
            size = tf.TensorShape(proto.tensor_shape).num_elements()
            size *= tf.as_dtype(proto.dtype).size or 1
            if size <= self._max_bytes:
                return tf.make_ndarray(proto)
            reason = f"{size:,} bytes; the most is {self._max_bytes:,}"
        except (TypeError, ValueError) as error:
            reason = error
        raise tf.errors.InvalidArgumentError(
            None, None, f"Input {name!r} is not a tensor to be read: {reason}."
        )
