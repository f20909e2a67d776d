"""jax and torch do what TensorFlow does, in processes of their own."""

import importlib.util
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pseudofeat as tfpf
from examples.data import load_images
from tests import programs
from tests.backend_process import main_path, write_inputs

pytestmark = pytest.mark.tensorflow(reason="what the others are compared with")


def needs(backend):
    """Skips where a backend is not installed."""
    return pytest.param(
        backend,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(backend) is None,
            reason=f"{backend} is not installed: pip install {backend}",
        ),
    )


# What a main job takes that has one large class, and little to train on.
SMALL = ("--depth=8", "--epochs=1", "--num_minority=9", "--imbalance_ratio=50")


def run(backend, module, *arguments, **environment):
    return programs.run(module, *arguments, KERAS_BACKEND=backend, **environment)


@pytest.fixture(scope="module")
def on_tensorflow(tmp_path_factory):
    """(folder, what came out here)."""
    folder = tmp_path_factory.mktemp("backends")
    write_inputs(folder)
    return folder, main_path(folder)


@pytest.mark.parametrize("backend", [needs("jax"), needs("torch")])
def test_the_main_path_gives_what_it_gives_on_tensorflow(backend, on_tensorflow):
    folder, expected = on_tensorflow
    done = run(backend, "tests.backend_process", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    results = dict(np.load(folder / f"{backend}.npz"))
    for name, value in expected.items():
        if name.startswith("bits/"):  # made on the host
            np.testing.assert_array_equal(results[name], value, err_msg=name)
        elif name != "probabilities":  # of draws that differ
            np.testing.assert_allclose(
                results[name], value, rtol=1e-4, atol=1e-5, err_msg=name
            )

    # What it saved is served from here, whether or not it could be from there.
    # Compiled, its optimizer brings torch along, and TensorFlow was here before.
    model = keras.models.load_model(folder / f"{backend}.keras", compile=False)
    data = np.load(folder / "data.npz")
    version = tfpf.export_classifier(model, folder / f"served-by-way-of-{backend}")
    endpoint = tf.saved_model.load(version).signatures["serving_default"]
    received = endpoint(image=tf.constant(data["x"]))["probabilities"]
    np.testing.assert_allclose(received, results["probabilities"], atol=1e-5)
    if backend == "torch":
        words = str(results["refused"])
        assert "'torch'" in words and "KERAS_BACKEND=tensorflow" in words


@pytest.mark.slow
@pytest.mark.parametrize("backend", [needs("jax")])
def test_devices_that_share_batches_give_what_one_gives(backend, on_tensorflow):
    two_devices = "--xla_force_host_platform_device_count=2"
    folder, _ = on_tensorflow
    done = run(backend, "tests.on_two_jax_devices", folder, XLA_FLAGS=two_devices)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("backend", [needs("torch")])
def test_the_main_job_without_a_savedmodel_says_the_way_to_one(backend, tmp_path):
    done = run(backend, "examples.resnet56", *SMALL, f"--output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "KERAS_BACKEND=tensorflow, export" in done.stdout
    files = ["report.json", "report.png", "retrained.keras", "trained.keras"]
    assert sorted(os.listdir(tmp_path)) == files
    model = keras.models.load_model(tmp_path / "retrained.keras", compile=False)
    assert model.predict(load_images("digits").test_images[:4], verbose=0).shape == (
        4,
        10,
    )


@pytest.mark.slow
@pytest.mark.parametrize("backend", [needs("jax")])
def test_the_main_job_in_mixed_precision_is_served_from_here(backend, tmp_path):
    flags = (*SMALL, "--mixed_precision", f"--output_dir={tmp_path}")
    done = run(backend, "examples.resnet56", *flags)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "a product of float16 matrices" in done.stdout
    images = load_images("digits").test_images[:64]
    model = keras.models.load_model(tmp_path / "trained.keras", compile=False)
    assert model.get_layer("stem_conv").compute_dtype == "float16"
    endpoint = tf.saved_model.load(tmp_path / "served/1").signatures["serving_default"]
    received = endpoint(image=tf.constant(images))["probabilities"].numpy()
    # Sums of float16 in another order; a probability is a few hundred of its steps.
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(received, expected, atol=0.02)


@pytest.mark.parametrize("backend", [needs("jax")])
def test_a_strategy_of_tensorflow_raises_on_another_backend(backend, tmp_path):
    done = run(
        backend, "examples.resnet56", "--strategy=mirrored", f"--output_dir={tmp_path}"
    )
    assert done.returncode != 0
    assert (
        "--strategy is for models on TensorFlow; KERAS_BACKEND is 'jax'" in done.stderr
    )
    assert not os.listdir(tmp_path)
