"""The client, against the server as a process."""

import itertools
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from examples.predict_clients import client_of
from examples.serving_client import measure, ranked, side_by_side, speed
from tests.paths import ROOT
from tests.server_process import running_server
from tests.tiny_models import SIDE, probabilities, save_classifier

NAMES = ["cat", "dog", "köttur"]
IMAGES = np.random.default_rng(5).integers(0, 256, (2, SIDE, SIDE, 1), dtype=np.uint8)
PNGS = [tf.io.encode_png(image).numpy() for image in IMAGES]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        save_classifier(folder / "named" / str(version), version, NAMES)
    save_classifier(folder / "bare" / "1", num_classes=4)
    save_classifier(folder / "closed" / "1", encoded=False)
    models = {name: folder / name for name in ("named", "bare", "closed")}
    with running_server(folder / "log", models) as server:
        yield server


def addresses(server):
    return f"http://{server.http}", f"grpc://{server.grpc}"


def expected_ranking(image, version, names=NAMES):
    (shares,) = probabilities([image], version, len(names))
    return sorted(zip(names, shares, strict=True), key=lambda pair: -pair[1])


@pytest.mark.parametrize("version", [None, 1])
def test_rest_and_grpc_give_the_models_ranking(server, version):
    for address in addresses(server):
        rows = client_of(address).predict("named", PNGS, version)
        assert len(rows) == len(PNGS)
        for row, image in zip(rows, IMAGES, strict=True):
            names, scores = zip(*ranked(row), strict=True)
            right_names, right = zip(
                *expected_ranking(image, version or 2), strict=True
            )
            assert names == right_names
            np.testing.assert_allclose(scores, right, atol=1e-5)


def test_a_model_without_class_names_is_numbered_or_given_them(server):
    for address in addresses(server):
        (row,) = client_of(address).predict("bare", PNGS[:1])
        numbered = [f"class {k}" for k in range(4)]
        found = [name for name, _ in ranked(row)]
        assert found == [name for name, _ in expected_ranking(IMAGES[0], 0, numbered)]
        given = list("abcd")
        found = [name for name, _ in ranked(row, given)]
        assert found == [name for name, _ in expected_ranking(IMAGES[0], 0, given)]


@pytest.mark.parametrize(
    ("model", "image", "version", "reason"),
    [
        ("x", PNGS[0], None, "No model 'x'"),
        ("named", PNGS[0], 7, "No version 7"),
        ("closed", PNGS[0], None, "No signature 'encoded'"),
        ("named", b"no image", None, "image"),
    ],
)
def test_a_refusal_has_the_servers_reason(server, model, image, version, reason):
    for address in addresses(server):
        client = client_of(address)
        with pytest.raises(RuntimeError, match=reason):
            client.predict(model, [image], version)
        assert client.predict("named", PNGS)  # and the connection goes on


@pytest.mark.parametrize("address", ["localhost:8501", "ftp://localhost", "http://"])
def test_an_address_of_another_kind_raises(address):
    with pytest.raises(ValueError, match=r"--server=.*expected http://HOST:PORT"):
        client_of(address)


def test_a_ranking_is_read_from_whichever_outputs_there_are():
    assert ranked({"logits": [1, 3], "features": [9, 9, 9]}) == [
        ("class 1", 3),
        ("class 0", 1),
    ]
    assert ranked({"probabilities": [0.8, 0.2], "logits": [5, 4]}, ["a", "b"]) == [
        ("a", 0.8),
        ("b", 0.2),
    ]
    for number in ([0.25], 0.25):  # of two classes, the probability of the second
        assert ranked({"": number}, ["a", "b"]) == [("a", 0.75), ("b", 0.25)]
        assert ranked({"": number}) == [("class 0", 0.25)]
    with pytest.raises(RuntimeError, match=r"outputs \['kind', 'size'\]; expected"):
        ranked({"size": [1], "kind": [2]})


def test_versions_stand_beside_each_other_and_a_difference_is_marked():
    rankings = {
        "version 1": [("cat", 0.75), ("dog", 0.25)],
        "version 2": [("dog", 0.5), ("cat", 0.5)],
    }
    text = side_by_side("a.png", rankings, top=5).splitlines()
    assert text[0] == "a.png   <- they differ"
    assert text[1].split() == ["version", "1", "version", "2"]
    assert text[2].split() == ["cat", "0.750", "dog", "0.500"]
    assert len(text) == 4
    agreed = {"version 1": rankings["version 1"], "version 2": rankings["version 1"]}
    assert "differ" not in side_by_side("a.png", agreed, top=1)


def test_every_request_of_a_measurement_is_counted():
    asked, numbers = [], itertools.count(1)

    def ask(client):
        asked.append(client)
        number = next(numbers)
        time.sleep(1e-3)
        if number % 5 == 0:
            raise RuntimeError("one in five")

    seconds, failures, elapsed = measure(object, ask, repeat=100, connections=4)
    assert (len(seconds), len(failures)) == (80, 20)
    assert len(asked) == 101  # and the first, before the clock
    assert len(set(asked)) == 4
    assert "100 requests, 20 failed" in speed(seconds, failures, elapsed)


def test_over_rest_the_program_needs_neither_tensorflow_nor_grpc(server, tmp_path):
    for number, png in enumerate(PNGS):
        (tmp_path / f"{number}.png").write_bytes(png)
    program = "import runpy, sys\n"
    for name in ("tensorflow", "tensorflow_serving", "grpc", "keras", "numpy"):
        program += f"sys.modules[{name!r}] = None\n"
    program += "runpy.run_module('examples.serving_client', run_name='__main__')"
    flags = ["--model=named", "--versions=1,2", f"--server={addresses(server)[0]}"]
    flags += ["--repeat=200", "--connections=8", "0.png", "1.png"]
    done = subprocess.run(
        [sys.executable, "-c", program, *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    best = [[expected_ranking(image, v)[0] for v in (1, 2)] for image in IMAGES]
    lines = done.stdout.splitlines()
    for number, winners in enumerate(best):
        head, titles, first = lines[5 * number : 5 * number + 3]
        assert head.startswith(f"{number}.png")
        assert ("they differ" in head) == (winners[0][0] != winners[1][0])
        assert titles.split() == ["version", "1", "version", "2"]
        shown = [text for name, share in winners for text in (name, f"{share:.3f}")]
        assert first.split() == shown
    assert lines[-1].startswith("200 requests, 0 failed")


def test_no_server_and_no_file_are_said_in_a_line(tmp_path):
    (tmp_path / "a.png").write_bytes(PNGS[0])
    command = [sys.executable, "-m", "examples.serving_client"]
    command += ["--model=x", "--server=http://127.0.0.1:9"]
    for path, words in (("a.png", "refused"), ("none.png", "No such file")):
        done = subprocess.run(
            [*command, str(tmp_path / path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert words in done.stderr and len(done.stderr.splitlines()) == 1
