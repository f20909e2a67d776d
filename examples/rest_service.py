"""TensorFlow Serving's REST paths, and the page, as handlers of aiohttp."""

import asyncio
import json
import pathlib
import re

import tensorflow as tf
from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from . import tensor_json
from .admission import one_at_a_time
from .servables import code_and_reason, find_model

__all__ = ["Rest", "errors_as_json"]

READ_SECONDS = 30.0  # that a client has to send a body
RETRY_SECONDS = 1

PAGE = pathlib.Path(__file__).with_name("serve_page.html")

# TensorFlow's errors carry gRPC's codes; what is not here is the server's fault.
HTTP_STATUS = {
    tf.errors.INVALID_ARGUMENT: 400,
    tf.errors.OUT_OF_RANGE: 400,
    tf.errors.NOT_FOUND: 404,
    tf.errors.RESOURCE_EXHAUSTED: 503,
    tf.errors.UNIMPLEMENTED: 501,
    tf.errors.UNAVAILABLE: 503,
}


class Rest:
    """The handlers of TensorFlow Serving's REST paths, and of the page.

    Args:
        models: {name: `ServedModel`}.
        admission: `Admission`, whose threads do what takes time.
    """

    def __init__(self, models, admission):
        self._models, self._admission = models, admission

    def routes(self):
        """What `Application.add_routes` takes."""
        one, version = "/v1/models/{model:[^/:]+}", "/versions/{version:[^/:]+}"
        routes = [web.get("/", self.page), web.get("/models", self.models)]
        for path in (one, one + version):
            routes += [
                web.get(path, self.status),
                web.get(path + "/metadata", self.metadata),
                web.post(path + ":{verb}", self.call),
            ]
        return routes

    async def page(self, request):
        """Where a person drops an image."""
        return web.FileResponse(PAGE)

    async def models(self, request):
        """For the page: {model: {version: class names or null}}."""
        return web.json_response(
            {
                name: {
                    str(version): servable.class_names
                    for version, servable in sorted(model.versions.items())
                }
                for name, model in self._models.items()
            }
        )

    async def status(self, request):
        """Which versions there are, and how they do."""
        model, version = self._target(request)
        return _proto_response(_plain_dict(model.status(version)))

    async def metadata(self, request):
        """The signatures of a version."""
        model, version = self._target(request)
        response = model.metadata(version)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        spec = {"signature_name": "", **_plain_dict(response.model_spec)}
        metadata = {"signature_def": _plain_dict(signatures)}
        return _proto_response({"model_spec": spec, "metadata": metadata})

    async def call(self, request):
        """A prediction."""
        if request.match_info["verb"] != "predict":
            raise tf.errors.InvalidArgumentError(
                None,
                None,
                f"Received :{request.match_info['verb']}; expected :predict.",
            )
        model, version = self._target(request)
        size, most = request.content_length, request.client_max_size
        if size is None:  # it comes in chunks
            size = most
        if size > most:
            raise web.HTTPRequestEntityTooLarge(most, size)
        with self._admission.admitted(size):
            try:
                async with asyncio.timeout(READ_SECONDS):
                    body = await request.read()
            except TimeoutError:
                raise web.HTTPRequestTimeout(
                    text=f"The body did not come within {READ_SECONDS} seconds."
                ) from None
            answer = await self._admission.run(predict_json, model, version, body)
        return web.Response(body=answer, content_type="application/json")

    def _target(self, request):
        """(ServedModel, version or None) of a path."""
        version = request.match_info.get("version")
        if version is not None and not re.fullmatch("[0-9]{1,18}", version):
            raise tf.errors.InvalidArgumentError(
                None, None, f"Version {version[:20]!r} is not a number."
            )
        model = find_model(self._models, request.match_info["model"])
        return model, None if version is None else int(version)


def predict_json(model, version, body):
    """From the body of a request to the body of its answer."""
    servable, name, inputs, by_rows = _read(model, version, body)
    return tensor_json.answer(servable.predict(inputs, name), by_rows)


@one_at_a_time
def _read(model, version, body):
    """What is needed of a request; the rest of it is let go."""
    request = tensor_json.parse(body)
    servable, name = model.find(version), request.get("signature_name", "")
    inputs = tensor_json.inputs_of(request, servable.signature(name))
    return servable, name, inputs, "instances" in request


@web.middleware
async def errors_as_json(request, handler):
    """Every failure is answered with {"error": reason}."""
    headers = {}
    try:
        return await handler(request)
    except web.HTTPException as error:
        status, reason = error.status, f"{request.method} {request.path}: {error.text}"
    except Exception as error:
        code, reason = code_and_reason(error)
        status = HTTP_STATUS.get(code, 500)
        if code == tf.errors.RESOURCE_EXHAUSTED:
            headers = {"Retry-After": str(RETRY_SECONDS)}
    return web.json_response({"error": reason}, status=status, headers=headers)


def _plain_dict(message):
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


def _proto_response(content):
    return web.json_response(content, dumps=lambda x: json.dumps(x, indent=1) + "\n")
