"""The server under attack: it stays small, answers others, and ends when it is told.

SECURITY.md ("The example server") says what it is protected from.
"""

import asyncio
import concurrent.futures
import contextlib
import gzip
import http.client
import itertools
import json
import pathlib
import socket
import struct
import time
import types
import zlib

import aiohttp
import grpc
import numpy as np
import pytest
import tensorflow as tf
from aiohttp import test_utils, web
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from examples import rest_service
from examples.admission import Admission
from examples.serve import WAITING
from tests.server_process import running_server, wait_until
from tests.tiny_models import SIDE, save_classifier, save_oddities

MIB = 2**20
MOST = 4 * MIB  # of a request
THREADS = 2
ODD, DIGITS = "/v1/models/odd:predict", "/v1/models/digits:predict"
IMAGE = np.zeros((1, SIDE, SIDE, 1), np.uint8)
ROW = {"instances": IMAGE.tolist()}
SLOW = {"signature_name": "slow", "instances": [200_000]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_classifier(folder / "digits" / "1")
    save_oddities(folder / "odd" / "1")
    return folder


def start(folder, *flags):
    models = {name: folder / name for name in ("digits", "odd")}
    flags = (f"--max_request_mib={MOST // MIB}", f"--threads={THREADS}", *flags)
    return running_server(folder / "log", models, *flags)


@pytest.fixture(scope="module")
def server(folder):
    with start(folder, "--allowed_hosts=box.example") as server:
        assert server.ask(DIGITS, ROW)[0] == 200
        yield server


@pytest.fixture(scope="module")
def service(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@contextlib.contextmanager
def growing_less_than(server, mib):
    """Holds the most memory of the server's process in the block against a bound."""
    folder = pathlib.Path(f"/proc/{server.process.pid}")
    if not (folder / "clear_refs").exists():
        pytest.skip("the most memory of a process is told by Linux alone")

    def most():
        (line,) = (
            line
            for line in (folder / "status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        return int(line.split()[1]) // 1024

    (folder / "clear_refs").write_text("5")  # from here on
    before = most()
    yield
    assert most() - before < mib


def request(server, body, headers=(), path=DIGITS, method="POST"):
    """(status, answer, headers) on a connection of its own."""
    connection = http.client.HTTPConnection(server.http, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read().decode(), response.headers


def predict_request(model="digits", signature="", **inputs):
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        message.inputs[name].CopyFrom(value)
    return message


def refused(service, message, **options):
    """(code, details) of a call that is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        service.Predict(message, timeout=30, **options)
    return caught.value.code().name, caught.value.details()


# ---- A few bytes that stand for many. ------------------------------------------------


def repeated(value, *shape):
    """A `TensorProto` of one value and a shape that claims more."""
    proto = tf.make_tensor_proto(value)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize("count", [2**20, 30 * 2**20, 2**62])
@pytest.mark.parametrize("value", ["x" * 100, 1, 1.5, 1 + 1j, True])
def test_a_value_is_not_repeated_to_the_shape(server, service, value, count):
    message = predict_request("odd", "strings", x=repeated(value, count))
    with growing_less_than(server, 32):
        code, details = refused(service, message)
    assert code == "INVALID_ARGUMENT"
    assert f"has {count} elements and 1 were sent" in details


def test_many_small_claims_do_not_add_up(server, service):
    one = repeated(1, 2**15, SIDE, SIDE)
    message = predict_request(**{f"input {number}": one for number in range(300)})
    assert message.ByteSize() < 20_000
    with growing_less_than(server, 32):
        assert refused(service, message)[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("value", [b"ab", 3, 2.5, True, 1 - 2j, [1, 2], [b"", b"c"]])
def test_a_tensor_that_is_whole_is_read(service, value):
    _, details = refused(service, predict_request("odd", "strings", y=repeated(value)))
    assert details == "Received the inputs ['y']; expected ['x']."


# Types of references, of no size, and of nothing that is known.
@pytest.mark.parametrize(
    ("dtype", "field"),
    [(7, "tensor_content")]
    + [
        (n, field)
        for n in (20, 21, 107, 999)
        for field in ("tensor_content", "string_val")
    ],
)
def test_a_tensor_of_an_odd_type_is_the_clients_fault(service, dtype, field):
    proto = tf.make_tensor_proto([1])
    proto.ClearField("tensor_content")
    proto.ClearField("int_val")
    proto.dtype = dtype
    if field == "tensor_content":
        proto.tensor_content = b"a" * 8
    else:
        proto.string_val.append(b"a")
    code, _ = refused(service, predict_request("odd", "strings", x=proto))
    assert code == "INVALID_ARGUMENT"


def test_a_label_of_a_version_is_not_overlooked(service):
    message = predict_request(image=tf.make_tensor_proto(IMAGE))
    message.model_spec.version_label = "stable"
    code, details = refused(service, message)
    assert code == "INVALID_ARGUMENT"
    assert "Received version_label 'stable'" in details


def test_an_output_is_written_once_however_often_it_is_asked_for(service):
    message = predict_request(image=tf.make_tensor_proto(IMAGE))
    message.output_filter.extend(["probabilities"] * 200_000)
    began = time.monotonic()
    assert list(service.Predict(message, timeout=30).outputs) == ["probabilities"]
    assert time.monotonic() - began < 3


ENCODED = {
    "gzip": gzip.compress(bytes(64 * MIB)),
    "deflate": zlib.compress(bytes(64 * MIB)),
    "DEFLATE": b"garbage" * 99,
    "identity, gzip": gzip.compress(json.dumps(ROW).encode()),
    "br": b"garbage",
}


@pytest.mark.parametrize("encoding", ENCODED)
def test_a_compressed_body_is_not_inflated(server, encoding):
    headers = {"Content-Encoding": encoding}
    with growing_less_than(server, 32):
        status, answer, _ = request(server, ENCODED[encoding], headers)
    assert status == 415 and f"Received Content-Encoding {encoding!r}" in answer
    status, *_ = request(server, json.dumps(ROW), {"Content-Encoding": "identity"})
    assert status == 200


def test_a_compressed_message_is_not_inflated(server, service):
    image = tf.make_tensor_proto(np.zeros((MIB, SIDE, SIDE, 1), np.uint8))
    message = predict_request(image=image)
    with growing_less_than(server, 32):
        code, _ = refused(service, message, compression=grpc.Compression.Gzip)
    assert code == "UNIMPLEMENTED"


def test_one_body_at_a_time_becomes_objects(server):
    unit = b'{"":0},'
    body = b'{"instances":[' + unit * (MOST // len(unit) - 9) + unit[:-1] + b"]}"
    with (
        growing_less_than(server, 200),
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        answers = [pool.submit(request, server, body) for _ in range(4)]
        assert [answer.result()[0] for answer in answers] == [400] * 4


@pytest.mark.parametrize("depth", [*range(960, 1000), 5000])
def test_no_depth_of_nesting_is_the_servers_fault(server, depth):
    body = b'{"instances":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    assert request(server, body)[0] == 400


def png_of(width, height):
    """A PNG of some size, in which there is nothing but its header."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + header + checksum


def jpeg_of(width, height):
    """A JPEG that claims a size, made from a small one."""
    content = tf.io.encode_jpeg(IMAGE[0]).numpy()
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


TOO_LARGE = {
    "PNG": ([png_of(20_000, 20_000)], "images of 400,000,000 pixels"),
    "long PNG": ([png_of(1, 2**31 - 1)], "images of 2,147,483,647 pixels"),
    "JPEG": ([jpeg_of(20_000, 20_000)], "images of 400,000,000 pixels"),
    "many": ([jpeg_of(2000, 2000)] * 13, "images of 52,000,000 pixels"),
    "cut PNG": ([png_of(1, 1)[:20]], "a PNG"),
    "GIF": ([b"GIF89a" + b"\xff" * 99], "a GIF"),
    "WebP": ([b"RIFF\0\0\0\0WEBPVP8L" + b"\xff" * 99], "a WebP"),
    "JPEG XL": ([b"\xff\x0a" + b"\xff" * 99], "a JPEG XL"),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_an_image_that_is_too_large_is_not_decoded(server, service, kind):
    files, reason = TOO_LARGE[kind]
    proto = tf.make_tensor_proto(files, tf.string)
    with growing_less_than(server, 32):
        code, details = refused(
            service, predict_request(signature="encoded", image_bytes=proto)
        )
    assert code == "INVALID_ARGUMENT" and reason in details


# ---- More work than there are threads. -----------------------------------------------


@pytest.mark.parametrize("over", ["REST", "gRPC"])
def test_clients_that_left_keep_no_place(server, service, over):
    began = time.monotonic()
    assert server.ask(ODD, SLOW)[0] == 200
    seconds = time.monotonic() - began
    if over == "REST":
        for _ in range(60):
            connection = http.client.HTTPConnection(server.http)
            connection.request("POST", ODD, json.dumps(SLOW))
            connection.close()
    else:
        x = tf.make_tensor_proto(np.int32(SLOW["instances"]))
        message = predict_request("odd", "slow", x=x)
        calls = [service.Predict.future(message, timeout=0.2) for _ in range(60)]
        assert {call.code().name for call in calls} == {"DEADLINE_EXCEEDED"}
    began = time.monotonic()
    assert server.ask(DIGITS, ROW)[0] == 200
    assert time.monotonic() - began < 60 / THREADS * seconds / 3


def test_what_is_beyond_the_queue_is_refused_at_once(server, service):
    beyond = 20
    body = {**SLOW, "instances": [400_000]}

    async def ask(session):
        url = f"http://{server.http}{ODD}"
        async with session.post(url, json=body) as response:
            return response.status, response.headers.get("Retry-After")

    async def ask_all():
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            count = THREADS + WAITING + beyond
            asking = [asyncio.create_task(ask(session)) for _ in range(count)]
            refused = [
                await task
                for task in itertools.islice(asyncio.as_completed(asking), beyond)
            ]
            message = predict_request("odd", "slow", x=tf.make_tensor_proto([1]))
            # A place or two may have become free meanwhile: not all of these get one.
            calls = [service.Predict.future(message, timeout=30) for _ in range(8)]
            ended = [asyncio.create_task(asyncio.to_thread(c.code)) for c in calls]
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            first = next(c for c, end in zip(calls, ended, strict=True) if end.done())
            for task in [*asking, *calls]:
                task.cancel()  # nobody waits for the rest
            await asyncio.wait(ended)
            return refused, first.code().name, first.trailing_metadata()

    refused, code, metadata = asyncio.run(ask_all())
    assert refused == [(503, "1")] * beyond
    assert code == "RESOURCE_EXHAUSTED"
    assert ("grpc-retry-pushback-ms", "1000") in map(tuple, metadata)
    assert server.ask(DIGITS, ROW)[0] == 200


def test_bodies_that_do_not_come_are_bounded_together(server):
    host, port = server.http.rsplit(":", 1)
    head = f"POST {DIGITS} HTTP/1.1\r\nHost: {host}\r\n"
    lengths = itertools.cycle([f"Content-Length: {MOST}", "Transfer-Encoding: chunked"])
    body = json.dumps(ROW).ljust(MOST)
    with contextlib.ExitStack() as stack:

        def full_with_one_more():
            waiting = stack.enter_context(socket.create_connection((host, int(port))))
            waiting.sendall(f"{head}{next(lengths)}\r\n\r\n".encode())
            time.sleep(0.1)
            status, answer, headers = request(server, body)
            if status == 503:
                assert headers["Retry-After"] == "1" and "busy" in answer
            return status == 503

        wait_until(full_with_one_more, 20)
        assert server.ask("/v1/models/digits")[0] == 200
    wait_until(lambda: request(server, body)[0] == 200, 20)


def test_a_body_that_does_not_come_is_given_up(monkeypatch):
    monkeypatch.setattr(rest_service, "READ_SECONDS", 0.1)
    model = types.SimpleNamespace(name="m")

    async def ask():
        service = rest_service.Rest({"m": model}, Admission(1, 1, 99))
        application = web.Application(middlewares=[rest_service.errors_as_json])
        application.add_routes(service.routes())
        async with test_utils.TestServer(application) as running:
            reader, writer = await asyncio.open_connection(running.host, running.port)
            head = "POST /v1/models/m:predict HTTP/1.1\r\nHost: m\r\n"
            writer.write(f"{head}Content-Length: 9\r\n\r\n".encode())
            answer = await reader.readline()
            writer.close()
            return answer

    assert b" 408 " in asyncio.run(ask())


def test_sigterm_ends_what_is_busy_within_the_grace(folder):
    with start(folder, "--grace_seconds=1") as server:
        body = json.dumps({**SLOW, "instances": [2_000_000_000]})
        waiting = []
        for _ in range(4):
            connection = http.client.HTTPConnection(server.http)
            connection.request("POST", ODD, body)
            waiting.append(connection)
        time.sleep(0.5)
        began = time.monotonic()
        assert server.stop() == 1
        assert time.monotonic() - began < 3
        assert "Requests still ran after 1 s" in server.log()
        for connection in waiting:
            connection.close()


# ---- Pages of other sites. -----------------------------------------------------------

OWN = "HTTP://THIS"  # stands for the server's own address
HEADERS = [
    ({}, 200),
    ({"Host": "localhost:1"}, 200),
    ({"Host": "[::1]:8501"}, 200),
    ({"Host": "192.168.0.7"}, 200),
    ({"Host": "BOX.example:8501"}, 200),
    ({"Host": "evil.example"}, 403),
    ({"Host": "127.0.0.1.evil.example:8501"}, 403),
    ({"Host": "localhost.evil.example"}, 403),
    ({"Host": "[evil.example"}, 403),
    ({"Host": "box.example@evil.example"}, 403),
    ({"Origin": OWN}, 200),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://["}, 403),
    ({"Origin": "http://127.0.0.1:1"}, 403),  # another server of this machine
    ({"Sec-Fetch-Site": "same-origin", "Origin": OWN}, 200),
    ({"Sec-Fetch-Site": "none"}, 200),
    ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, 403),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
]


@pytest.mark.parametrize(("headers", "status"), HEADERS)
def test_another_sites_page_is_refused(server, headers, status):
    own = {
        name: value.replace(OWN, f"http://{server.http}")
        for name, value in headers.items()
    }
    received, answer, _ = request(server, json.dumps(ROW), own)
    assert received == status, answer


def test_a_rebound_name_reads_nothing_and_a_link_is_followed(server):
    for path in ("/", "/models", "/v1/models/digits", "/v1/models/digits/metadata"):
        status, answer, _ = request(server, None, {"Host": "evil.example"}, path, "GET")
        assert status == 403 and "--allowed_hosts" in answer
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        assert request(server, None, link, path, "GET")[0] == 200
