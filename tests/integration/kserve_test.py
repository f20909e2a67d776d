"""An export in KServe, a server that others run and that pip installs.

    python -m venv .venv_kserve && .venv_kserve/bin/pip install kserve tensorflow
    export KSERVE_PYTHON=.venv_kserve/bin/python
    python -m pytest -m slow tests/integration/kserve_test.py

KServe is in no extra, as it brings a client of Kubernetes and much else: these tests
skip where neither `KSERVE_PYTHON` nor this Python imports it.
"""

import contextlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.predict_clients import client_of
from examples.resnet import resnet
from examples.serving_client import ranked
from examples.table_rows import check_rows, read_rows
from tests.paths import ROOT
from tests.server_process import wait_until
from tests.tabular_models import NAMES as CANCERS
from tests.tabular_models import ROWS, columns, export_columns, export_matrix
from tf_pseudofeat.serving.export import export_classifier

# A server of one export, for an interpreter that has kserve and TensorFlow; it does
# without Keras and this package. The V1 protocol of KServe is TensorFlow Serving's, and
# leaves to the model what a row is.
PROGRAM = """
import base64
import json
import sys

import kserve
import tensorflow as tf

class SavedModel(kserve.Model):
    def __init__(self, name, folder):
        super().__init__(name)
        self.folder = folder

    def load(self):
        self.loaded = tf.saved_model.load(self.folder)
        self.ready = True
        return self.ready

    def predict(self, payload, headers=None, response_headers=None):
        call = self.loaded.signatures[payload.get("signature_name", "serving_default")]
        (_, specs), rows = call.structured_input_signature, payload["instances"]
        if not isinstance(rows[0], dict) or "b64" in rows[0]:  # a single input, unnamed
            (only,) = specs
            rows = [{only: row} for row in rows]
        outputs = call(
            **{
                name: tf.constant([plain(row[name]) for row in rows], spec.dtype)
                for name, spec in specs.items()
            }
        )
        columns = {key: value.numpy().tolist() for key, value in outputs.items()}
        answers = [
            dict(zip(columns, row, strict=True))
            for row in zip(*columns.values(), strict=True)
        ]
        # The names of classes are bytes, which JSON does not have.
        return json.loads(json.dumps({"predictions": answers}, default=bytes.decode))

def plain(value):
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value

folder, port = sys.argv[1:]
model = SavedModel("model", folder)
model.load()
kserve.ModelServer(http_port=int(port), enable_grpc=False).start([model])
"""
NAMES = [f"digit {number}" for number in range(10)]
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3)).astype("uint8")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.tensorflow(reason="an export of TensorFlow's operations"),
]


@pytest.fixture(scope="module")
def interpreter():
    """A Python that imports kserve and TensorFlow."""
    python = os.environ.get("KSERVE_PYTHON", sys.executable)
    done = subprocess.run(
        [python, "-c", "import kserve, tensorflow"],
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        if "KSERVE_PYTHON" in os.environ:
            pytest.fail(f"KSERVE_PYTHON={python}: {reason}")
        pytest.skip(f"{reason}. KSERVE_PYTHON names a Python that has it.")
    return python


@contextlib.contextmanager
def running(interpreter, path, log):
    """The address of a KServe server of an export, ended with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    with open(log, "w") as file:
        process = subprocess.Popen(
            [interpreter, "-c", PROGRAM, path, str(port)],
            env=environment,
            stdout=file,
            stderr=file,
        )
    try:
        wait_until(lambda: process.poll() is not None or is_ready(port), 120)
        assert process.poll() is None, pathlib.Path(log).read_text()[-3000:]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def is_ready(port):
    with contextlib.suppress(ConnectionError):
        return ask(f"http://127.0.0.1:{port}", "/v1/models/model")["ready"]


def ask(address, path, body=None):
    """The JSON of an answer."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    with contextlib.closing(connection):
        content = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, content, headers)
        response = connection.getresponse()
        answer = response.read().decode()
        assert response.status == 200, answer
        return json.loads(answer)


def largest_difference(rows, expected):
    """Between the answers of a server and `model.predict`; printed, for `-s`."""
    found = np.array([row["probabilities"] for row in rows])
    difference = np.abs(found - expected).max()
    print(f"KServe and model.predict differ by at most {difference:.3g}")
    return difference


@pytest.fixture(scope="module")
def images(interpreter, tmp_path_factory):
    """A network on images in a server, and what it says itself."""
    keras.utils.set_random_seed(0)
    model = resnet(8, (8, 8, 3), 10)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(IMAGES, np.arange(7), verbose=0)  # means and variances of its own
    folder = tmp_path_factory.mktemp("images")
    path = export_classifier(
        model, folder / "served", class_names=NAMES, encoded_images=True
    )
    with running(interpreter, path, folder / "log") as address:
        expected = model.predict(IMAGES, verbose=0)
        yield types.SimpleNamespace(address=address, expected=expected)


def test_arrays(images):
    body = {"instances": IMAGES.tolist()}
    rows = ask(images.address, "/v1/models/model:predict", body)["predictions"]
    assert largest_difference(rows, images.expected) < 1e-5
    best = [NAMES[number] for number in images.expected.argmax(axis=1)]
    assert [row["classes"][0] for row in rows] == best


def test_the_client_of_the_examples_sends_it_image_files(images):
    files = [tf.io.encode_png(image).numpy() for image in IMAGES]
    rows = client_of(images.address).predict("model", files)
    assert largest_difference(rows, images.expected) < 1e-5
    best = [NAMES[number] for number in images.expected.argmax(axis=1)]
    assert [ranked(row)[0][0] for row in rows] == best


@pytest.mark.parametrize("kind", ["numbers", "names"])
def test_the_client_of_the_examples_sends_it_a_table(interpreter, tmp_path, kind):
    if kind == "numbers":
        (model,) = export_matrix(tmp_path / "served")
        x, file = ROWS[:9], tmp_path / "rows.csv"
        np.savetxt(file, x, delimiter=",", fmt="%.9g")
    else:
        model, x = export_columns(tmp_path / "served"), columns(slice(9))
        file = tmp_path / "rows.json"
        rows = [dict(zip(x, row, strict=True)) for row in zip(*x.values(), strict=True)]
        file.write_text(json.dumps(rows, default=np.ndarray.tolist))
    rows = check_rows(read_rows(file), None, file)
    with running(interpreter, tmp_path / "served" / "1", tmp_path / "log") as address:
        client = client_of(address)
        assert client.inputs("model") is None  # KServe does not tell
        answers = client.predict_rows("model", rows)
        command = [sys.executable, "-m", "examples.serving_client", "--model=model"]
        done = subprocess.run(
            [*command, f"--server={address}", file],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    expected = model.predict(x, verbose=0)
    assert largest_difference(answers, expected) < 1e-5
    assert done.returncode == 0, done.stderr
    best = [CANCERS[number] for number in expected.argmax(axis=1)]
    assert [line.split()[0] for line in done.stdout.splitlines()[2::4]] == best
