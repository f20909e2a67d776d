"""Asks a server what some images show: `examples.serve`, or TensorFlow Serving itself.

    python -m examples.serving_client --model=digits three.png four.png
    python -m examples.serving_client --model=digits --versions=1,2 three.png
    python -m examples.serving_client --server=grpc://HOST:8500 --model=digits four.png
    python -m examples.serving_client --model=digits --repeat=2000 four.png

The images go as they are, JPEG or PNG, to the signature `encoded`. Over REST neither
TensorFlow nor anything else but absl is needed here.
"""

import base64
import concurrent.futures
import http.client
import json
import pathlib
import sys
import time
import urllib.parse

from absl import app, flags

FLAGS = flags.FLAGS

TIMEOUT = 60.0  # seconds for one request


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string(
        "server", "http://127.0.0.1:8501", "http:// or grpc:// address."
    )
    flags.DEFINE_string("model", None, "Name of the model.")
    flags.DEFINE_list("versions", [], "Beside each other, as in 1,2; or the latest.")
    flags.DEFINE_string("signature", "encoded", "That takes encoded images.")
    flags.DEFINE_string("class_names", None, "File of them, where the model has none.")
    flags.DEFINE_integer("top", 3, "Classes to show of each image.")
    flags.DEFINE_integer("repeat", None, "Ask so often, and print the speed.")
    flags.DEFINE_integer("connections", 1, "At once, with --repeat.")
    flags.mark_flag_as_required("model")
    flags.register_validator(
        "versions",
        lambda versions: all(version.isdecimal() for version in versions),
        "--versions are numbers with commas between.",
    )
    for name in ("top", "repeat", "connections"):
        flags.register_validator(
            name, lambda n: n is None or n > 0, f"--{name} is above 0."
        )


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
        which = "" if version is None else f"/versions/{version}"
        instances = [{"b64": base64.b64encode(image).decode()} for image in images]
        self._connection.request(
            "POST",
            f"{self._prefix}/v1/models/{urllib.parse.quote(model)}{which}:predict",
            json.dumps({"signature_name": signature, "instances": instances}),
            {"Content-Type": "application/json"},
        )
        response = self._connection.getresponse()
        text = response.read().decode()
        if response.status != 200:
            raise RuntimeError(f"{response.status} {response.reason}: {text.strip()}")
        rows = json.loads(text)["predictions"]
        return [row if isinstance(row, dict) else {"": row} for row in rows]


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
        self._input_names = {}

    def predict(self, model, images, version=None, signature="encoded"):
        """As `RestClient.predict`; outputs have their names."""
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        if version is not None:
            request.model_spec.version.value = int(version)
        try:
            name = self._input_name(request.model_spec, signature)
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(images, tf.string))
            response = self._service.Predict(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            raise RuntimeError(f"{error.code().name}: {error.details()}") from None
        columns = {
            name: tf.make_ndarray(proto) for name, proto in response.outputs.items()
        }
        return [
            {name: _plain(values[number]) for name, values in columns.items()}
            for number in range(len(images))
        ]

    def _input_name(self, spec, signature):
        """The one input of the signature, asked once of each version."""
        from tensorflow_serving.apis import get_model_metadata_pb2 as metadata

        key = (spec.name, spec.version.value, signature)
        if key not in self._input_names:
            request = metadata.GetModelMetadataRequest(
                model_spec=spec, metadata_field=["signature_def"]
            )
            response = self._service.GetModelMetadata(request, timeout=TIMEOUT)
            signatures = metadata.SignatureDefMap()
            response.metadata["signature_def"].Unpack(signatures)
            if signature not in signatures.signature_def:
                raise RuntimeError(
                    f"No signature {signature!r}; "
                    f"there are: {', '.join(sorted(signatures.signature_def))}."
                )
            names = sorted(signatures.signature_def[signature].inputs)
            if len(names) != 1:
                raise RuntimeError(f"{signature!r} takes {names}; expected one input.")
            (self._input_names[key],) = names
        return self._input_names[key]


def client_of(server):
    """The client for an address, by its scheme."""
    kinds = {"http": RestClient, "https": RestClient, "grpc": GrpcClient}
    address = urllib.parse.urlsplit(server)
    if address.scheme not in kinds or not address.netloc:
        raise ValueError(f"--server={server}: expected http://HOST:PORT or grpc://...")
    return kinds[address.scheme](server)


def ranked(row, class_names=None):
    """The classes of one image, the likeliest first.

    Args:
        row: outputs, as `predict` gives them: `classes` and `scores`, or else
            `probabilities`, `logits`, or the only output.
        class_names: for a model that gives no `classes`.

    Returns:
        pairs: list of (class name, score).

    Raises:
        RuntimeError: Which output has the classes cannot be told.
    """
    if "classes" in row and "scores" in row:
        names, scores = row["classes"], row["scores"]
    else:
        known = [name for name in ("probabilities", "logits", "") if name in row]
        known = known[:1] or list(row)
        if len(known) != 1:
            raise RuntimeError(
                f"Received the outputs {sorted(row)}; expected `classes` and `scores`, "
                f"`probabilities`, `logits`, or one output alone."
            )
        scores = row[known[0]]
        names = class_names or [f"class {number}" for number in range(len(scores))]
    return sorted(zip(names, scores, strict=True), key=lambda pair: -pair[1])


def side_by_side(image, rankings, top):
    """A table: one column for each version.

    Args:
        image: its name.
        rankings: {title: pairs from `ranked`}.
        top: rows.

    Returns:
        text: with a mark where the versions do not agree.
    """
    winners = {pairs[0][0] for pairs in rankings.values()}
    lines = [image + ("   <- they differ" if len(winners) > 1 else "")]
    lines.append("".join(f"  {title:<24}" for title in rankings))
    for place in range(min(top, *map(len, rankings.values()), top)):
        best = [pairs[place] for pairs in rankings.values()]
        lines.append("".join(f"  {name:<14}{score:>8.3f}  " for name, score in best))
    return "\n".join(line.rstrip() for line in lines)


def measure(new_client, ask, repeat, connections):
    """Asks again and again, from several threads with a connection each.

    Args:
        new_client: function that makes a client.
        ask: function of a client that sends a request and waits for the answer.
        repeat: requests in all.
        connections: at once.

    Returns:
        seconds: for each request that was answered, sorted.
        failures: list of exceptions.
        elapsed: seconds for all.
    """
    numbers = iter(range(repeat))  # shared: `next` of a range iterator is atomic
    seconds, failures = [], []

    def work(client):
        for _ in numbers:
            began = time.perf_counter()
            try:
                ask(client)
                seconds.append(time.perf_counter() - began)
            except (RuntimeError, OSError, http.client.HTTPException) as error:
                failures.append(error)

    clients = [new_client() for _ in range(connections)]
    ask(clients[0])  # the first call of a signature is slow
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        list(pool.map(work, clients))
    return sorted(seconds), failures, time.perf_counter() - began


def speed(seconds, failures, elapsed):
    """What `measure` found, in a line."""
    if not seconds:
        return f"No request of {len(failures)} was answered: {failures[0]}"
    half, most = (1e3 * seconds[int(len(seconds) * q)] for q in (0.5, 0.99))
    return (
        f"{len(seconds) + len(failures)} requests, {len(failures)} failed, "
        f"{len(seconds) / elapsed:.0f} a second; "
        f"half within {half:.1f} ms, 99 % within {most:.1f} ms"
    )


def _plain(value):
    """A numpy value as JSON would give it."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    value = value.tolist()
    return [_text(x) for x in value] if isinstance(value, list) else value


def _text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def main(argv):
    """Reads the flags; everything else takes arguments."""
    program, *paths = argv
    if not paths:
        raise app.UsageError("Name one or more images.")
    try:
        images = [pathlib.Path(path).read_bytes() for path in paths]
        names = FLAGS.class_names and (
            pathlib.Path(FLAGS.class_names).read_text("utf-8").splitlines()
        )
        client = client_of(FLAGS.server)
        answers = {
            f"version {version}" if version else "latest version": client.predict(
                FLAGS.model, images, version, FLAGS.signature
            )
            for version in FLAGS.versions or [None]
        }
        for number, path in enumerate(paths):
            rankings = {
                title: ranked(rows[number], names) for title, rows in answers.items()
            }
            print(side_by_side(path, rankings, FLAGS.top))
        if FLAGS.repeat:
            version = FLAGS.versions[-1] if FLAGS.versions else None
            found = measure(
                lambda: client_of(FLAGS.server),
                lambda one: one.predict(FLAGS.model, images, version, FLAGS.signature),
                FLAGS.repeat,
                FLAGS.connections,
            )
            print(speed(*found))
    except (RuntimeError, ValueError, OSError, http.client.HTTPException) as error:
        sys.exit(f"{pathlib.Path(program).name}: {error}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
