"""Clients of TensorFlow Serving's protocols, for image files and rows of a table.

Over REST they need nothing but Python; over gRPC the extra `serving`.
"""

import base64
import http.client
import json
import urllib.parse

from .table_rows import Input

__all__ = ["GrpcClient", "RestClient", "client_of"]

TIMEOUT = 60.0  # seconds for one request


class RestClient:
    """One connection to a REST server.

    Args:
        server: "http://host:port", or https.
    """

    def __init__(self, server):
        address = urllib.parse.urlsplit(server)
        kinds = {
            "http": http.client.HTTPConnection,
            "https": http.client.HTTPSConnection,
        }
        self._prefix = address.path.rstrip("/")
        self._connection = kinds[address.scheme](address.netloc, timeout=TIMEOUT)

    def predict(self, model, images, version=None, signature="encoded"):
        """What the model says of each image.

        Args:
            model: its name.
            images: list of bytes, JPEG or PNG.
            version: a number; by default the latest.
            signature: that takes encoded images.

        Returns:
            rows: for each image a dict of outputs; a single one has no name, "".

        Raises:
            RuntimeError: The server refused, with its reason.
        """
        instances = [{"b64": base64.b64encode(image).decode()} for image in images]
        return self._predict(model, instances, version, signature)

    def predict_rows(self, model, rows, version=None, signature="serving_default"):
        """What the model says of each row of a table.

        Args:
            model: its name.
            rows: as `check_rows` gives them.
            version: a number; by default the latest.
            signature: that takes them.

        Returns:
            rows: as those of `predict`.

        Raises:
            RuntimeError: The server refused, with its reason.
        """
        single = all(isinstance(row, dict) and len(row) == 1 for row in rows)
        instances = (
            [value for row in rows for value in row.values()] if single else rows
        )
        return self._predict(model, instances, version, signature)

    def inputs(self, model, version=None, signature="serving_default"):
        """What a signature takes.

        Returns:
            inputs: {name: `Input`}; None where the server does not tell, as KServe.

        Raises:
            RuntimeError: There is no such signature, or the server refused.
        """
        try:
            answer = self._ask("GET", f"{_path(model, version)}/metadata")
        except RuntimeError as error:
            if str(error).startswith("404"):  # a model that is not there says so later
                return None
            raise
        signatures = answer["metadata"]["signature_def"]["signature_def"]
        return {
            name: Input(_dtype(info), _sizes(info))
            for name, info in _signature(signatures, signature)["inputs"].items()
        }

    def _predict(self, model, instances, version, signature):
        request = {"signature_name": signature, "instances": instances}
        rows = self._ask("POST", f"{_path(model, version)}:predict", request)
        return [
            row if isinstance(row, dict) else {"": row} for row in rows["predictions"]
        ]

    def _ask(self, method, path, body=None):
        """The JSON of an answer."""
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        self._connection.request(method, self._prefix + path, content, headers)
        response = self._connection.getresponse()
        text = response.read().decode()
        if response.status != 200:
            raise RuntimeError(f"{response.status} {response.reason}: {text.strip()}")
        return json.loads(text)


class GrpcClient:
    """One channel to a gRPC server.

    Args:
        server: "grpc://host:port".
    """

    def __init__(self, server):
        import grpc  # here, as REST does without
        from tensorflow_serving.apis import prediction_service_pb2_grpc as services

        channel = grpc.insecure_channel(urllib.parse.urlsplit(server).netloc)
        self._service = services.PredictionServiceStub(channel)
        self._inputs = {}

    def predict(self, model, images, version=None, signature="encoded"):
        """As `RestClient.predict`; outputs have their names."""
        inputs = self.inputs(model, version, signature)
        if len(inputs) != 1:
            raise RuntimeError(
                f"{signature!r} takes {sorted(inputs)}; expected one input."
            )
        (name,) = inputs
        return self._predict(model, {name: images}, version, signature)

    def predict_rows(self, model, rows, version=None, signature="serving_default"):
        """As `RestClient.predict_rows`; outputs have their names."""
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return self._predict(model, columns, version, signature)

    def inputs(self, model, version=None, signature="serving_default"):
        """As `RestClient.inputs`, asked once of each version; never None."""
        import tensorflow as tf
        from tensorflow_serving.apis import get_model_metadata_pb2 as metadata

        key = (model, version, signature)
        if key not in self._inputs:
            request = metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
            _set_spec(request.model_spec, model, version)
            response = self._call(self._service.GetModelMetadata, request)
            signatures = metadata.SignatureDefMap()
            response.metadata["signature_def"].Unpack(signatures)
            found = _signature(signatures.signature_def, signature).inputs
            shapes = {name: tf.TensorShape(x.tensor_shape) for name, x in found.items()}
            self._inputs[key] = {
                name: Input(
                    tf.as_dtype(info.dtype).name,
                    None if shapes[name].rank is None else tuple(shapes[name])[1:],
                )
                for name, info in found.items()
            }
        return self._inputs[key]

    def _predict(self, model, columns, version, signature):
        """The rows of an answer to {input: list of one value for each row}."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        _set_spec(request.model_spec, model, version)
        request.model_spec.signature_name = signature
        for name, one in self.inputs(model, version, signature).items():
            tensor = tf.make_tensor_proto(columns[name], tf.as_dtype(one.dtype))
            request.inputs[name].CopyFrom(tensor)
        response = self._call(self._service.Predict, request)
        outputs = {
            name: tf.make_ndarray(proto) for name, proto in response.outputs.items()
        }
        return [
            {name: _plain(values[number]) for name, values in outputs.items()}
            for number in range(len(next(iter(columns.values()))))
        ]

    def _call(self, method, request):
        import grpc

        try:
            return method(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            raise RuntimeError(f"{error.code().name}: {error.details()}") from None


def client_of(server):
    """The client for an address, by its scheme."""
    kinds = {"http": RestClient, "https": RestClient, "grpc": GrpcClient}
    address = urllib.parse.urlsplit(server)
    if address.scheme not in kinds or not address.netloc:
        raise ValueError(f"--server={server}: expected http://HOST:PORT or grpc://...")
    return kinds[address.scheme](server)


def _path(model, version):
    which = "" if version is None else f"/versions/{version}"
    return f"/v1/models/{urllib.parse.quote(model)}{which}"


def _dtype(info):
    """The type in a `TensorInfo` of JSON, by TensorFlow's other name for it."""
    name = info["dtype"].removeprefix("DT_").lower()
    return {"float": "float32", "double": "float64", "half": "float16"}.get(name, name)


def _sizes(info):
    """The shape in a `TensorInfo` of JSON, without the batch."""
    shape = info["tensor_shape"]
    if shape.get("unknown_rank"):
        return None
    sizes = [int(dim["size"]) for dim in shape.get("dim", [])]
    return tuple(None if size < 0 else size for size in sizes[1:])


def _set_spec(spec, model, version):
    spec.name = model
    if version is not None:
        spec.version.value = int(version)


def _signature(signatures, name):
    """One of {name: signature}."""
    if name not in signatures:
        raise RuntimeError(
            f"No signature {name!r}; there are: {', '.join(sorted(signatures))}."
        )
    return signatures[name]


def _plain(value):
    """A numpy value as JSON would give it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    value = value.tolist()
    return [_text(x) for x in value] if isinstance(value, list) else value


def _text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
