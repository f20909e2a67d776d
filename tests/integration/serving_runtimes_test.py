"""One export, read by five runtimes in processes that have neither Keras nor this code.

The C API and OpenVINO read it without the tensorflow package, `saved_model_cli` with
it, LiteRT and ONNX Runtime after another process has converted it.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from examples.resnet import resnet
from tests.paths import ROOT
from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.serving.export import export_classifier
from tf_pseudofeat.splitting.split_at import split_at

pytestmark = pytest.mark.slow

NAMES = [f"digit {number}" for number in range(10)]
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """What was exported, where, and what the model itself answers."""
    keras.utils.set_random_seed(0)
    images = RNG.integers(0, 256, (64, 8, 8, 3)).astype("uint8")
    labels = np.arange(64) % 10
    model = resnet(8, (8, 8, 3), 10)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=8, verbose=0)  # means and variances of its own
    trunk, _ = split_at(model, "features")
    gaussian = ClassConditionalGaussian(10, covariance_type="tied")
    gaussian.adapt(extract_features(trunk, (images, labels)).features, labels)

    folder = tmp_path_factory.mktemp("runtimes")
    path = export_classifier(
        model,
        folder / "resnet",
        class_names=NAMES,
        encoded_images=True,
        layer_name="features",
        gaussian=gaussian,
    )
    images = images[:7]
    np.save(folder / "images.npy", images)
    features = trunk.predict(images, verbose=0)
    return types.SimpleNamespace(
        folder=folder,
        path=path,
        images=images,
        probabilities=model.predict(images, verbose=0),
        features=features,
        log_density=gaussian.distribution.log_prob(features[:, None]),
    )


@pytest.fixture(scope="module")
def barred(tmp_path_factory):
    """A folder for PYTHONPATH in which Keras and this package do not import."""
    folder = tmp_path_factory.mktemp("barred")
    for name in ("keras", "tf_keras", "tf_pseudofeat", "tensorflow_probability"):
        (folder / f"{name}.py").write_text(f"raise ImportError('no {name} here')\n")
    return folder


@pytest.fixture(scope="module")
def run(served, barred):
    def run(*command):
        environment = os.environ | {
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(barred),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        done = subprocess.run(
            list(map(str, command)),
            cwd=served.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"

    return run


@pytest.fixture(scope="module")
def python(run):
    """Runs code, and has it say that it did without some packages."""

    def python(code, *arguments, without=("tensorflow",)):
        without = {"keras", "tf_keras", "tf_pseudofeat", *without}
        check = f"assert not {without} & sys.modules.keys(), sorted(sys.modules)"
        run(sys.executable, "-c", f"{textwrap.dedent(code)}\n{check}", *arguments)

    return python


def check_answer(answer, served, rows=7):
    """Holds the outputs of a process against the model's own."""
    expected = served.probabilities[:rows]
    np.testing.assert_allclose(answer["probabilities"], expected, rtol=0, atol=1e-5)
    ordered = -np.sort(-expected, axis=1)
    np.testing.assert_allclose(answer["scores"], ordered, rtol=0, atol=1e-5)
    if "classes" in answer:
        best = [NAMES[number] for number in expected.argmax(axis=1)]
        assert answer["classes"][:, 0].tolist() == best


# ---- TensorFlow's C API, whose loader is that of TensorFlow Serving. -----------------


def tensors_of(path):
    """{endpoint: (name of the tensor to feed, {output: name of its tensor})}."""
    content = pathlib.Path(path, "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    found = {}
    for endpoint, signature in graph.signature_def.items():
        if signature.method_name == "tensorflow/serving/predict":
            (feed,) = signature.inputs.values()
            outputs = {key: value.name for key, value in signature.outputs.items()}
            found[endpoint] = feed.name, outputs
    return found


@pytest.fixture(scope="module")
def c_api(served, run):
    """{endpoint/output/rows: array}."""
    folder, names = pathlib.Path(tf.sysconfig.get_lib()), ("framework", "cc")
    libraries = [folder / f"libtensorflow_{name}.so.2" for name in names]
    if not all(library.exists() for library in libraries):
        pytest.skip(f"TensorFlow has none of the libraries {libraries}")
    endpoints = tensors_of(served.path)
    feeds = dict.fromkeys(endpoints, served.images)
    files = [tf.io.encode_png(image).numpy() for image in served.images]
    feeds["encoded"] = np.array(files)  # no PNG ends in the zeros that NumPy drops
    np.savez(served.folder / "feeds.npz", **feeds)
    job = {
        "libraries": list(map(str, libraries)),
        "path": served.path,
        "endpoints": endpoints,
    }
    (served.folder / "job.json").write_text(json.dumps(job))
    script = ROOT / "tests/saved_model_c_api.py"
    run(sys.executable, script, "job.json", "feeds.npz", "answers.npz")
    return dict(np.load(served.folder / "answers.npz"))


def test_c_api_is_this_tensorflow_without_its_package(c_api):
    assert c_api["version"] == tf.__version__
    assert c_api["imported"].tolist() == []


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("endpoint", ["serving_default", "encoded"])
def test_c_api_classifies_arrays_and_files(served, c_api, endpoint, rows):
    names = ("probabilities", "classes", "scores")
    answer = {name: c_api[f"{endpoint}/{name}/{rows}"] for name in names}
    answer["classes"] = np.char.decode(answer["classes"], "utf-8")
    check_answer(answer, served, rows)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("endpoint", ["features", "log_density"])
def test_c_api_gives_features_and_densities(served, c_api, endpoint, rows):
    expected = getattr(served, endpoint)[:rows]
    answer = c_api[f"{endpoint}/{endpoint}/{rows}"]
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)


# ---- TensorFlow's own command. -------------------------------------------------------


def test_saved_model_cli(served, run):
    command = shutil.which("saved_model_cli", path=pathlib.Path(sys.executable).parent)
    if command is None:
        pytest.skip("there is no saved_model_cli beside this Python")
    where = ["--dir", served.path, "--tag_set", "serve"]
    what = ["--signature_def", "serving_default", "--inputs", "image=images.npy"]
    run(command, "run", *where, *what, "--outdir", "cli")
    names = ("probabilities", "scores")
    found = {name: np.load(served.folder / "cli" / f"{name}.npy") for name in names}
    check_answer(found, served)


# ---- Runtimes without TensorFlow. ----------------------------------------------------

# What jax2tf makes is one operation, XlaCallModule. OpenVINO has no rule for it, and
# LiteRT's converter could not translate this network.
in_operations = pytest.mark.tensorflow(reason="an export of TensorFlow's operations")

OPENVINO = """
    import sys
    import numpy as np
    import openvino

    model = openvino.Core().read_model(sys.argv[1])
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"image": np.load("images.npy")})
    answers = {port.get_any_name(): found[port] for port in compiled.outputs}
    np.savez("openvino.npz", **answers | {"classes": answers["classes"].astype("S")})
"""

CONVERT = """
    import importlib.util, pathlib, runpy, sys
    import tensorflow as tf

    path, backend = sys.argv[1:]
    converter = tf.lite.TFLiteConverter.from_saved_model(
        path, signature_keys=["serving_default"]
    )
    pathlib.Path("model.tflite").write_bytes(converter.convert())
    if backend == "tensorflow" and importlib.util.find_spec("tf2onnx") is not None:
        sys.argv[1:] = ["--saved-model", path, "--output", "model.onnx"]
        sys.argv += ["--signature_def", "serving_default"]
        runpy.run_module("tf2onnx.convert", run_name="__main__")
"""

LITERT = """
    import sys
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter("model.tflite").get_signature_runner("serving_default")
    answers = runner(image=np.load("images.npy"))
    np.savez("litert.npz", **answers | {"classes": answers["classes"].astype("S")})
"""

ONNX = """
    import sys
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(
        "model.onnx", providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {"image": np.load("images.npy")})
    answers = dict(zip(names, found, strict=True))
    np.savez("onnx.npz", **answers | {"classes": answers["classes"].astype("S")})
"""


@pytest.fixture(scope="module")
def converted(served, python):
    python(CONVERT, served.path, keras.backend.backend(), without=())


def answers_in(file):
    answers = dict(np.load(file))
    return answers | {"classes": np.char.decode(answers["classes"], "utf-8")}


@in_operations
def test_openvino(served, python):
    pytest.importorskip("openvino")
    python(OPENVINO, served.path)
    check_answer(answers_in(served.folder / "openvino.npz"), served)


@in_operations
def test_litert(served, python, converted):
    pytest.importorskip("ai_edge_litert")
    python(LITERT)
    check_answer(answers_in(served.folder / "litert.npz"), served)


@in_operations
def test_onnx_runtime(served, python, converted):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    python(ONNX)
    check_answer(answers_in(served.folder / "onnx.npz"), served)
