"""The server as a process: what it answers, refuses, survives and loses (nothing)."""

import asyncio
import base64
import concurrent.futures
import json
import math
import os
import shutil
import time

import aiohttp
import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from examples.serve import parse_models
from tests.server_process import running_server, wait_until
from tests.tiny_models import SIDE, probabilities, save_classifier, save_oddities

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, SIDE, SIDE, 1), dtype=np.uint8)
NAMES = ["cat", "dog", "köttur"]
ODD, DIGITS = "/v1/models/odd:predict", "/v1/models/digits:predict"


def png(image):
    return tf.io.encode_png(image).numpy()


def b64(content):
    return {"b64": base64.b64encode(content).decode()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2, 10):
        save_classifier(folder / "digits" / str(version), seed=version)
    save_classifier(folder / "named" / "1", class_names=NAMES)
    save_oddities(folder / "odd" / "1")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def server(folder):
    models = {name: folder / name for name in ("digits", "named", "odd", "empty")}
    with running_server(folder / "log", models, "--max_request_mib=1") as server:
        yield server


# ---- What is right is answered. ------------------------------------------------------


def test_rows_and_columns_of_every_version_are_the_models(server):
    for version in (None, 1, 2, 10):
        which = "" if version is None else f"/versions/{version}"
        path = f"/v1/models/digits{which}:predict"
        expected = probabilities(IMAGES, seed=version or 10)
        status, answer = server.ask(path, {"instances": IMAGES.tolist()})
        assert status == 200 and list(answer) == ["predictions"]
        np.testing.assert_allclose(answer["predictions"], expected, atol=1e-5)
        rows = [{"image": image} for image in IMAGES.tolist()]
        assert server.ask(path, {"instances": rows}) == (200, answer)
        for inputs in (IMAGES.tolist(), {"image": IMAGES.tolist()}):
            status, columns = server.ask(path, {"inputs": inputs})
            assert (status, columns) == (200, {"outputs": answer["predictions"]})


def test_encoded_images_have_named_classes_and_scores(server):
    request = {"signature_name": "encoded", "instances": [b64(png(x)) for x in IMAGES]}
    status, answer = server.ask("/v1/models/named:predict", request)
    assert status == 200
    expected = probabilities(IMAGES, seed=0, num_classes=3)
    for row, shares in zip(answer["predictions"], expected, strict=True):
        assert row.keys() == {"probabilities", "classes", "scores"}
        np.testing.assert_allclose(row["probabilities"], shares, atol=1e-5)
        order = np.argsort(-shares)
        assert row["classes"] == [NAMES[k] for k in order]
        np.testing.assert_allclose(row["scores"], shares[order], atol=1e-5)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (
            {"instances": [{"left": [1, 2.5], "right": 3}]},
            {"predictions": [{"total": 6.5, "text": "3"}]},
        ),
        (
            {"inputs": {"left": [[1, 2.5], [0, 0]], "right": [3, -4]}},
            {"outputs": {"total": [6.5, -4.0], "text": ["3", "-4"]}},
        ),
        ({"signature_name": "no_rows", "inputs": [1, 2]}, {"outputs": 3.0}),
        (
            {"signature_name": "flags", "instances": [True, False]},
            {"predictions": [False, True]},
        ),
        (
            {"signature_name": "half_precision", "instances": [0.5, -3]},
            {"predictions": [0.5, -3.0]},
        ),
        (
            {"signature_name": "strings", "instances": ["é", b64(b"ab")]},
            {
                "predictions": [
                    {"text": "é", "same_bytes": b64("é".encode())},
                    {"text": "ab", "same_bytes": b64(b"ab")},
                ]
            },
        ),
    ],
)
def test_every_type_has_its_json(server, request_, answer):
    assert server.ask(ODD, request_) == (200, answer)


def test_infinity_and_nan_stand_bare(server):
    body = b'{"signature_name": "reciprocal", "instances": [0, Infinity, NaN, -0.0]}'
    status, answer = server.ask(ODD, body)
    assert status == 200
    first, second, third, fourth = answer["predictions"]
    assert (first, second, fourth) == (math.inf, 0, -math.inf) and math.isnan(third)


def test_status_is_tensorflow_servings_message(server):
    status, answer = server.ask("/v1/models/digits")
    assert status == 200
    response = json_format.ParseDict(
        answer, get_model_status_pb2.GetModelStatusResponse()
    )
    found = [(one.version, one.state) for one in response.model_version_status]
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert found == [(version, available) for version in (10, 2, 1)]
    assert answer["model_version_status"][0] == {
        "version": "10",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }
    status, answer = server.ask("/v1/models/digits/versions/2")
    assert [one["version"] for one in answer["model_version_status"]] == ["2"]
    assert server.ask("/v1/models/empty") == (200, {"model_version_status": []})


@pytest.mark.parametrize("which", ["", "/versions/2"])
def test_metadata_are_the_signatures_of_the_file(server, folder, which):
    status, answer = server.ask(f"/v1/models/digits{which}/metadata")
    assert status == 200
    version = which[-1:] or "10"
    assert answer["model_spec"] == {
        "name": "digits",
        "signature_name": "",
        "version": version,
    }
    signatures = get_model_metadata_pb2.SignatureDefMap()
    json_format.ParseDict(answer["metadata"]["signature_def"], signatures)
    saved = (folder / "digits" / version / "saved_model.pb").read_bytes()
    expected = saved_model_pb2.SavedModel.FromString(saved).meta_graphs[0]
    assert dict(signatures.signature_def) == dict(expected.signature_def)


def test_the_page_and_what_it_asks(server):
    status, page = server.ask("/")
    assert status == 200 and page.startswith("<!doctype html>")
    assert "http://" not in page and "https://" not in page  # nothing from elsewhere
    status, models = server.ask("/models")
    assert status == 200
    assert models["named"] == {"1": NAMES}
    assert models["digits"] == {"1": None, "2": None, "10": None}


# ---- What is wrong is refused, with the reason. --------------------------------------

X = IMAGES.tolist()
STRINGS = {"signature_name": "strings"}
BAD = {
    "not JSON": (DIGITS, b"[1, 2", 400, "not JSON"),
    "not text": (DIGITS, b"\xff\xfe\x00\xd8{", 400, "not JSON"),
    "empty": (DIGITS, b"", 400, "not JSON"),
    "not an object": (DIGITS, [X], 400, "expected an object"),
    "deep": (DIGITS, b'{"inputs":' + b"[" * 100_000, 400, "nested too deeply"),
    "deep array": (
        DIGITS,
        b'{"inputs":' + b"[" * 99 + b"]" * 99 + b"}",
        400,
        "nested too deeply",
    ),
    "too large": (DIGITS, b" " * (2**20 + 1), 413, "size"),
    "no input": (DIGITS, {"x": X}, 400, 'either "instances" (rows) or "inputs"'),
    "both formats": (DIGITS, {"instances": X, "inputs": X}, 400, "expected either"),
    "no rows": (DIGITS, {"instances": []}, 400, "a list of one or more rows"),
    "no list": (DIGITS, {"instances": 5}, 400, '"instances" is 5; expected a list'),
    "wrong shape": (
        DIGITS,
        {"instances": [[1, 2, 3]]},
        400,
        "received uint8 of shape [1, 3]; expected uint8 of shape [any, 8, 8, 1]",
    ),
    "no batch": (DIGITS, {"inputs": 5}, 400, "of shape []"),
    "ragged": (DIGITS, {"instances": [[1], [2, 3]]}, 400, "not a regular array"),
    "mixed depth": (DIGITS, {"instances": [[[1]], [2]]}, 400, "not a regular array"),
    "text for numbers": (DIGITS, {"instances": ["x"]}, 400, 'uint8; received "x"'),
    "null": (DIGITS, {"instances": [None]}, 400, "uint8; received null"),
    "true": (DIGITS, {"instances": [True]}, 400, "uint8; received true"),
    "fraction": (DIGITS, {"instances": [0.5]}, 400, "uint8; received 0.5"),
    "out of range": (DIGITS, {"instances": [256]}, 400, "a number is not in uint8"),
    "huge number": (DIGITS, b'{"inputs": [1' + b"0" * 9999 + b"]}", 400, "not JSON"),
    "unknown input": (
        DIGITS,
        {"inputs": {"picture": X}},
        400,
        "the inputs ['picture']; expected ['image']",
    ),
    "unnamed inputs": (ODD, {"instances": [[1, 2]]}, 400, "Name them"),
    "half a row": (ODD, {"instances": [{"left": [1, 2]}]}, 400, "['left', 'right']"),
    "uneven rows": (
        ODD,
        {"instances": [{"left": [1, 2], "right": 1}, {"left": [1, 2]}]},
        400,
        "Row 1 of the instances",
    ),
    "rows of a whole": (
        ODD,
        {"signature_name": "no_rows", "instances": [1]},
        400,
        'ask for columns, with "inputs"',
    ),
    "bad base64": (ODD, {**STRINGS, "instances": [{"b64": "?"}]}, 400, "not base64"),
    "b64 of no text": (ODD, {**STRINGS, "instances": [{"b64": 5}]}, 400, "bytes are"),
    "number for text": (ODD, {**STRINGS, "instances": [5]}, 400, "string; received 5"),
    "no JSON type": (
        ODD,
        {"signature_name": "complex_numbers", "instances": [1]},
        400,
        "complex64, which JSON cannot hold",
    ),
    "not an image": (
        DIGITS,
        {"signature_name": "encoded", "instances": [b64(b"no image")]},
        400,
        "image",
    ),
    "unknown signature": (
        DIGITS,
        {"signature_name": "x", "instances": X},
        400,
        "No signature 'x' in version 10; there are: encoded, serving_default",
    ),
    "signature 5": (DIGITS, {"signature_name": 5, "instances": X}, 400, "not a string"),
    "broken model": (
        ODD,
        {"signature_name": "broken", "instances": ["/no/such/file"]},
        500,
        "Version 1 failed",
    ),
    "unknown model": ("/v1/models/x:predict", {"instances": X}, 404, "No model 'x'"),
    "unknown version": (
        "/v1/models/digits/versions/3:predict",
        {"instances": X},
        404,
        "No version 3 of 'digits' is in service; there are: [1, 2, 10]",
    ),
    "no version yet": (
        "/v1/models/empty:predict",
        {"instances": X},
        404,
        "there are: none",
    ),
    "version x": ("/v1/models/digits/versions/x:predict", {}, 400, "not a number"),
    "other verb": ("/v1/models/digits:classify", {}, 400, "expected :predict"),
    "other path": ("/v2/models", None, 404, "GET /v2/models"),
    "status of nothing": ("/v1/models/x", None, 404, "No model 'x'"),
    "status of no version": ("/v1/models/digits/versions/3", None, 404, "No version 3"),
    "metadata of nothing": ("/v1/models/x/metadata", None, 404, "No model 'x'"),
    "GET of a prediction": (DIGITS, None, 405, "Not Allowed"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_the_reason_and_harms_nobody(server, case):
    path, body, status, reason = BAD[case]
    received, answer = server.ask(path, body)
    assert (received, list(answer)) == (status, ["error"]), answer
    assert reason in answer["error"]
    status, answer = server.ask(DIGITS, {"instances": X})
    assert status == 200
    np.testing.assert_allclose(
        answer["predictions"], probabilities(IMAGES, seed=10), atol=1e-5
    )


@pytest.mark.parametrize(
    "flag", ["digits", "=DIR", "a/b=DIR", "digits=DIR/none", "digits=DIR/log"]
)
def test_a_model_that_cannot_be_is_said_at_once(tmp_path, flag):
    (tmp_path / "log").touch()
    with pytest.raises(ValueError, match="expected NAME=FOLDER, and a folder that"):
        parse_models([flag.replace("DIR", str(tmp_path))], 1)
    with pytest.raises(ValueError, match="'a' is taken"):
        parse_models([f"a={tmp_path}", f"a={tmp_path}"], 1)
    advice = {"1": f"Pass --model=a={tmp_path}.", "a": "Move its files to .*/a/1."}
    for name in advice:
        (tmp_path / name).mkdir()
        (tmp_path / name / "saved_model.pb").touch()
        with pytest.raises(ValueError, match=f"is one version, .*{advice[name]}"):
            parse_models([f"a={tmp_path}/{name}"], 1)


# ---- gRPC. ---------------------------------------------------------------------------


def predict_request(model="digits", signature="", version=None, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    if version is not None:
        request.model_spec.version.value = version
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.mark.parametrize("version", [None, 1])
def test_grpc_gives_the_same_answers(channel, version):
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = service.Predict(predict_request(version=version, image=IMAGES))
    assert response.model_spec.version.value == (version or 10)
    assert response.model_spec.signature_name == "serving_default"
    np.testing.assert_allclose(
        tf.make_ndarray(response.outputs["probabilities"]),
        probabilities(IMAGES, seed=version or 10),
        atol=1e-5,
    )
    pngs = [png(image) for image in IMAGES]
    request = predict_request("named", "encoded", image_bytes=pngs)
    request.output_filter.append("classes")
    response = service.Predict(request)
    (classes,) = response.outputs.values()
    best = probabilities(IMAGES, seed=0, num_classes=3).argmax(axis=1)
    found = [name.decode() for name in tf.make_ndarray(classes)[:, 0]]
    assert found == [NAMES[k] for k in best]


def test_grpc_tells_status_and_signatures(channel):
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "digits"
    response = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status)
    assert [one.version for one in response.model_version_status] == [10, 2, 1]
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        metadata_field=["signature_def"]
    )
    request.model_spec.name = "odd"
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    response = service.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    inputs = signatures.signature_def["serving_default"].inputs
    assert {name: info.dtype for name, info in inputs.items()} == {
        "left": tf.float32.as_datatype_enum,
        "right": tf.int32.as_datatype_enum,
    }


def bomb():
    """A few bytes that stand for a tensor of a terabyte."""
    request = predict_request(image=np.uint8(1))
    request.inputs["image"].tensor_shape.dim.add(size=2**40)
    return request


def filtered():
    request = predict_request(image=IMAGES)
    request.output_filter.append("x")
    return request


BAD_GRPC = {
    "unknown model": (predict_request("x"), "NOT_FOUND", "No model 'x'"),
    "unknown version": (
        predict_request(version=3, image=IMAGES),
        "NOT_FOUND",
        "No version 3",
    ),
    "unknown signature": (
        predict_request(signature="x"),
        "INVALID_ARGUMENT",
        "No signature 'x'",
    ),
    "endless signature": (
        predict_request(signature="x" * 100_000),
        "INVALID_ARGUMENT",
        "No signature 'xxx",
    ),
    "no input": (predict_request(), "INVALID_ARGUMENT", "expected ['image']"),
    "wrong type": (
        predict_request(image=IMAGES / 2),
        "INVALID_ARGUMENT",
        "received float64",
    ),
    "wrong shape": (
        predict_request(image=IMAGES[0]),
        "INVALID_ARGUMENT",
        "of shape [8, 8, 1]; expected uint8 of shape [any, 8, 8, 1]",
    ),
    "bomb": (bomb(), "INVALID_ARGUMENT", "has 1099511627776 elements and 1 were sent"),
    "unknown output": (filtered(), "INVALID_ARGUMENT", "output_filter ['x']"),
    "not an image": (
        predict_request(signature="encoded", image_bytes=[b"no image"]),
        "INVALID_ARGUMENT",
        "image",
    ),
    "broken model": (
        predict_request("odd", "broken", x=["/no/such/file"]),
        "INTERNAL",
        "Version 1 failed",
    ),
}


@pytest.mark.parametrize("case", BAD_GRPC)
def test_grpc_refuses_with_the_code_and_the_reason(channel, case):
    request, code, reason = BAD_GRPC[case]
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        service.Predict(request, timeout=30)
    assert caught.value.code().name == code, caught.value.details()
    assert reason in caught.value.details()
    assert service.Predict(predict_request(image=IMAGES), timeout=30).outputs


# ---- Versions come and go under load, and so does the server. ------------------------


@pytest.fixture
def changing(tmp_path):
    """(server, folder of its model): version 1 is in service, 2 lies beside."""
    save_classifier(tmp_path / "digits" / "1", seed=1)
    save_classifier(tmp_path / "ready" / "2", seed=2)
    save_oddities(tmp_path / "odd" / "1")
    models = {"digits": tmp_path / "digits", "odd": tmp_path / "odd"}
    flags = ("--poll_seconds=0.1", "--threads=2")
    with running_server(tmp_path / "log", models, *flags) as server:
        yield server, tmp_path / "digits"


def test_a_load_loses_nothing_while_a_version_comes(changing):
    server, folder = changing
    at_least, at_most, connections = 1_000, 40_000, 32
    bodies = [json.dumps({"instances": [image]}) for image in X]
    expected = {seed: probabilities(IMAGES, seed) for seed in (1, 2)}
    count = {"sent": 0, 1: 0, 2: 0}

    async def work(session):
        while count["sent"] < at_least or (not count[2] and count["sent"] < at_most):
            number = count["sent"] % len(X)
            count["sent"] += 1
            url = f"http://{server.http}{DIGITS}"
            async with session.post(url, data=bodies[number]) as response:
                assert response.status == 200, await response.text()
                (row,) = (await response.json())["predictions"]
            (version,) = (
                seed
                for seed, rows in expected.items()
                if np.allclose(row, rows[number], atol=1e-5)
            )
            count[version] += 1
            if count["sent"] == at_least // 4:
                os.rename(folder.parent / "ready" / "2", folder / "2")

    async def load():
        connector = aiohttp.TCPConnector(limit=connections)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(work(session) for _ in range(connections)))

    began = time.perf_counter()
    asyncio.run(load())
    seconds = time.perf_counter() - began
    print(f"\n{count['sent']} requests, {connections} connections: {seconds:.1f} s, ")
    print(f"{count['sent'] / seconds:.0f} a second; by version 1 and 2: {count}")
    assert count["sent"] >= at_least
    assert count[1] + count[2] == count["sent"]
    assert count[1] and count[2]


def test_only_whole_versions_come_and_they_may_go(changing):
    server, folder = changing

    def states():
        _, answer = server.ask("/v1/models/digits")
        return {one["version"]: one["state"] for one in answer["model_version_status"]}

    (folder / "2").mkdir()  # no saved_model.pb yet
    (folder / ".3.aside").mkdir()
    shutil.copy(folder / "1" / "saved_model.pb", folder / ".3.aside")
    shutil.copytree(folder / "1", folder / "latest")  # not a number
    (folder / "4").mkdir()
    whole = (folder / "1" / "saved_model.pb").read_bytes()
    (folder / "4" / "saved_model.pb").write_bytes(whole[: len(whole) // 2])
    wait_until(lambda: "4" in states(), 30)
    assert states() == {"1": "AVAILABLE", "4": "END"}
    status, answer = server.ask(
        "/v1/models/digits/versions/4:predict", {"instances": X}
    )
    assert (status, "Version 4 of 'digits' does not load" in answer["error"]) == (
        503,
        True,
    )
    status, answer = server.ask(DIGITS, {"instances": X})  # the latest that loads
    np.testing.assert_allclose(answer["predictions"], probabilities(IMAGES, 1), 1e-4)

    shutil.copytree(folder.parent / "ready" / "2", folder / "4", dirs_exist_ok=True)
    wait_until(lambda: states().get("4") == "AVAILABLE", 30)
    status, answer = server.ask(DIGITS, {"instances": X})
    np.testing.assert_allclose(answer["predictions"], probabilities(IMAGES, 2), 1e-4)

    os.rename(folder / "4", folder.parent / "gone")
    wait_until(lambda: states() == {"1": "AVAILABLE"}, 30)
    assert server.ask("/v1/models/digits/versions/4")[0] == 404


def test_requests_in_flight_are_finished_before_the_end(changing):
    server, _ = changing
    body = {"signature_name": "slow", "instances": [30_000]}
    with (
        concurrent.futures.ThreadPoolExecutor(9) as pool,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        service.Predict(predict_request(image=IMAGES))  # the channel is open
        waiting = [pool.submit(server.ask, ODD, body) for _ in range(8)]
        request = predict_request("odd", "slow", x=np.int32([30_000]))
        over_grpc = pool.submit(service.Predict, request, timeout=60)
        concurrent.futures.wait(waiting, return_when="FIRST_COMPLETED")
        unfinished = sum(not answer.done() for answer in waiting)
        assert server.stop() == 0, server.log()
        assert unfinished
        assert [answer.result() for answer in waiting] == [
            (200, {"predictions": [0]})
        ] * 8
        assert tf.make_ndarray(over_grpc.result().outputs["y"]).tolist() == [0]
    with pytest.raises(ConnectionRefusedError):
        server.ask("/v1/models/digits")
