"""Tests for distribution.py: several devices and several processes, really started."""

import contextlib
import json
import socket

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import on_two_devices, on_two_workers, programs
from tf_pseudofeat.core.distribution import (
    check_one_worker,
    model_strategy,
    scope_of,
    spans_workers,
)
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.retraining.classifier import PseudoFeatureClassifier
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.splitting.split_at import split_at

pytestmark = pytest.mark.tensorflow(reason="tf.distribute")


def test_a_model_of_no_strategy():
    model = on_two_workers.build()
    assert model_strategy(model) is None and not spans_workers(model)
    check_one_worker(model)
    with scope_of(model):
        assert not tf.distribute.has_strategy()


def test_a_model_of_several_workers_of_which_there_is_one():
    """As without TF_CONFIG: Keras trains it, and so does a retraining."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = on_two_workers.build()
    assert model_strategy(model) is strategy and not spans_workers(model)
    data = on_two_workers.X, on_two_workers.Y
    model.fit(*data, verbose=0)
    assert retrain_head(model, "features", data, epochs=2, verbose=0).kept


def test_what_a_model_of_a_strategy_trains_on_ends(monkeypatch):
    """TensorFlow 2.21 may crash when it deletes an iterator that still reads ahead."""
    data = on_two_workers.X, on_two_workers.Y
    cardinalities, fit = [], keras.Model.fit

    def noting(model, stream, **settings):
        cardinalities.append(int(stream.cardinality()))
        return fit(model, stream, **settings)

    def build(input_shape, classes):
        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            return on_two_workers.build()

    monkeypatch.setattr(keras.Model, "fit", noting)
    classifier = PseudoFeatureClassifier(build, "features", epochs=2, batch_size=40)
    classifier.set_params(recipe=HeadRecipe(epochs=3, batch_size=40)).fit(*data)
    features = sum(classifier.report_.used) + sum(classifier.report_.pseudo)
    assert cardinalities == [120 // 40, 3 * -(-features // 40)]


# ---- Two devices of one process. -----------------------------------------------------


@pytest.fixture(scope="module")
def devices(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("devices") / "results.npz")
    done = programs.run("tests.on_two_devices", path)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(path) as results:
        return dict(results)


@pytest.mark.slow
@pytest.mark.parametrize("batches", ["even", "odd"])
def test_every_example_is_extracted_once_whatever_the_last_batch(devices, batches):
    """Two devices share a batch; what is left of a last one goes to one of them."""
    counts = np.bincount(on_two_devices.Y)
    for where in ("one", "two"):
        np.testing.assert_array_equal(devices[f"{where}/{batches}/count"], counts)
    features = devices[f"two/{batches}/features"]
    assert features.shape == (on_two_devices.N, 5)
    np.testing.assert_allclose(
        features, devices[f"one/{batches}/features"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("field", ["count", "mean", "scatter"])
@pytest.mark.parametrize("batches", ["even", "odd"])
def test_statistics_of_two_devices_are_those_of_one(devices, batches, field):
    """They are summed in one place, so nothing differs but the rounding of features."""
    received = devices[f"two/{batches}/{field}"]
    expected = devices[f"one/{batches}/{field}"]
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
    features, labels = devices[f"two/{batches}/features"], on_two_devices.Y
    exact = getattr(moments_of(features, labels, 3), field)
    np.testing.assert_array_equal(received, exact)  # of these features, to the bit


@pytest.mark.slow
@pytest.mark.parametrize("where", ["two", "inside"])
def test_head_of_two_devices_is_that_of_one(devices, where):
    """Also where `retrain_head` is called inside the scope of the strategy.

    Not closer than this: of a last batch that the devices share unevenly, Keras takes
    the mean of the devices' means. Under a strategy it begins the stream once more to
    build the model, so the draws of an epoch are others.
    """
    for name in [f"weight{i}" for i in range(6)]:
        pair = devices[f"head/{where}/{name}"], devices[f"head/one/{name}"]
        np.testing.assert_allclose(*pair, atol=0.05)
    losses = devices[f"head/{where}/loss"], devices["head/one/loss"]
    assert len(losses[0]) == len(losses[1]) == 20
    np.testing.assert_allclose(*map(np.mean, losses), rtol=0.01)
    recalls = devices[f"head/{where}/recall"], devices["head/one/recall"]
    np.testing.assert_allclose(*recalls, atol=0.1)


@pytest.mark.slow
def test_callback_under_the_strategy_does_what_it_does_alone(devices):
    for where in ("one", "two"):
        assert devices[f"fit/{where}/kept"] and devices[f"fit/{where}/steps"] == 4
        counts = np.bincount(on_two_devices.Y)
        np.testing.assert_array_equal(devices[f"fit/{where}/count"], counts)
    for name, tolerance in (("mean", 1e-5), ("scatter", 1e-5), ("head", 0.05)):
        received, expected = devices[f"fit/two/{name}"], devices[f"fit/one/{name}"]
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=tolerance)


# ---- Two processes. ------------------------------------------------------------------


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def worker(stack, folder, addresses, rank):
    """One of the two processes; it ends with the stack."""
    task = {"type": "worker", "index": rank}
    config = json.dumps({"cluster": {"worker": addresses}, "task": task})
    process = programs.Program(
        "tests.on_two_workers",
        folder / f"{rank}.npz",
        outputs=[folder / f"{rank}.log"],
        TF_CONFIG=config,
    )
    stack.callback(process.kill)
    return process


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    with contextlib.ExitStack() as stack:
        started = [worker(stack, folder, addresses, rank) for rank in range(2)]
        for rank, process in enumerate(started):
            log = folder / f"{rank}.log"
            assert process.wait(300) == 0, log.read_text()[-3000:]
    results = []
    for rank in range(2):
        with np.load(folder / f"{rank}.npz") as result:
            results.append(dict(result))
    assert [result["workers"] for result in results] == [2, 2]
    return results


@pytest.mark.slow
@pytest.mark.parametrize("what", ["retrain_head", "tune", "callback", "fit_head"])
def test_what_keras_cannot_train_raises_by_each_worker_alone(workers, what):
    error = str(workers[0][f"error/{what}"])
    assert error.startswith("ValueError: 'net")
    assert "keras-team/keras#20585" in error and "clone_model(model)" in error
    assert workers[0]["unchanged"]


@pytest.mark.slow
def test_keras_does_not_come_to_the_first_step(workers):
    """When this fails, Keras trains on several workers: look at `check_one_worker`."""
    for result in workers:
        assert "PerReplica" in str(result["error/keras"])
        assert not result["reached"]  # so no callback is asked either


@pytest.mark.slow
def test_statistics_of_both_workers_are_those_of_one_process(workers):
    model, data = on_two_workers.build(), (on_two_workers.X, on_two_workers.Y)
    trunk = split_at(model, "features").trunk
    features = trunk.predict(data[0], verbose=0)
    for rank, result in enumerate(workers):
        np.testing.assert_allclose(
            result["features"], features[rank::2], rtol=1e-5, atol=1e-6
        )
        expected = moments_of(features, data[1], 3)
        for field in ("count", "mean", "scatter"):
            np.testing.assert_allclose(
                result[field], getattr(expected, field), rtol=1e-5, atol=1e-5
            )
            np.testing.assert_array_equal(result[field], workers[0][field])
        np.testing.assert_array_equal(result["loc"], result["mean"].astype("float32"))


@pytest.mark.slow
def test_head_of_a_copy_is_brought_back_alike_on_both_workers(workers):
    model, data = on_two_workers.build(), (on_two_workers.X, on_two_workers.Y)
    start = model.get_weights()
    report = retrain_head(model, "features", data, epochs=5, verbose=0)
    assert report.kept
    for result in workers:
        assert result["kept"]
        weights = [result[f"weight{i}"] for i in range(4)]
        for weight, other, expected in zip(
            weights,
            [workers[0][f"weight{i}"] for i in range(4)],
            model.get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(weight, other)
            np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-3)
        assert not np.array_equal(weights[2], start[2])
        np.testing.assert_array_equal(weights[0], start[0])
        np.testing.assert_allclose(
            result["outputs"], keras.ops.convert_to_numpy(model(data[0])), atol=1e-3
        )
