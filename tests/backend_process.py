"""The main path of the package, from one set of weights, on whichever backend.

    KERAS_BACKEND=jax python -m tests.backend_process FOLDER

reads `model.keras` and `data.npz` in the folder and writes `<backend>.npz`, what came
of it, and `<backend>.keras`, the model, for a process of another backend to compare.
"""

import pathlib
import sys
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

import tf_pseudofeat as tfpf
from tests import heads
from tf_pseudofeat.gaussians.covariance import COVARIANCE_TYPES

__all__ = ["main_path", "write_inputs"]

COUNTS = {1: 30, 2: 40}


def write_inputs(folder):
    """A small convolutional network, images of three classes, and features of them."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [60, 30, 20])
    x = rng.normal(size=(110, 6, 6, 1)) + y[:, None, None, None]
    features = rng.normal(size=(110, 4)) + y[:, None]
    np.savez(folder / "data.npz", x=x.astype("f"), y=y, features=features.astype("f"))
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((6, 6, 1), name="image"),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.GlobalAveragePooling2D(name="features"),
        keras.layers.Dense(8, activation="tanh"),
        keras.layers.Dense(3, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    model.save(folder / "model.keras")


def main_path(folder):
    """Splits, extracts, fits, samples, trains, retrains, adjusts, saves and exports.

    Returns:
        results: {name: array}.
    """
    keras.utils.set_random_seed(0)  # TensorFlow's streams follow from its seed, too
    data = np.load(folder / "data.npz")
    x, y, features = data["x"], data["y"], data["features"]
    model = keras.models.load_model(folder / "model.keras")
    results = _steps(model, x, y, features)
    _undone(model, x, y)
    results |= _in_one_call(model, x, y)
    return results | _written(model, x, folder)


def _steps(model, x, y, features):
    """What the steps give one by one; the statistics are those of given features."""
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    trunk, head = tfpf.split_at(model, "features")
    extracted, labels = tfpf.extract_features(trunk, stream, verbose=0)
    np.testing.assert_array_equal(labels, y)
    gaussian = tfpf.ClassConditionalGaussian(3)
    gaussian.adapt(features, y)
    mixed = tfpf.interleave(features, y, gaussian, COUNTS, batch_size=16)
    density = keras.Sequential([keras.Input((4,)), gaussian])
    densities = {}
    for kind in COVARIANCE_TYPES:
        other = tfpf.ClassConditionalGaussian(3, covariance_type=kind)
        other.adapt(features, y)
        densities[f"density/{kind}"] = keras.ops.convert_to_numpy(other(features))
    before = head.get_weights()
    fit = heads.fit(
        head,
        tfpf.LabeledFeatures(features, y),
        tfpf.LabeledFeatures(features, y),
        num_classes=3,
        gaussian=gaussian,
        counts=COUNTS,
        optimizer=keras.optimizers.SGD(0.1),
        epochs=3,
        fresh_each_epoch=False,  # `fit` opens a stream once more on jax and torch
    )
    trained = head.get_weights()
    head.set_weights(before)
    return {
        "bits/mean": gaussian.moments.mean,
        "bits/scatter": gaussian.moments.scatter,
        "bits/scale": keras.ops.convert_to_numpy(gaussian.scale),
        "bits/pseudo-features": gaussian.sample([2, 1, 2], seed=(1, 2)).numpy(),
        "bits/stream": np.concatenate([batch.numpy() for batch, _ in mixed]),
        "extracted": extracted,
        "density": density.predict(features, verbose=0),
        "loss": np.array(fit.loss),
        **densities,
        **{f"head/{i}": weight for i, weight in enumerate(trained)},
    }


class _Interrupted(keras.optimizers.SGD):
    """Ends in its first step, for which jax has taken the weights out of the model."""

    def apply(self, grads, trainable_variables=None):
        raise KeyboardInterrupt


def _undone(model, x, y):
    """An interrupt, in a step or between two, leaves the head as it was to the bit."""
    before = [weight.tobytes() for weight in model.get_weights()]

    def interrupt(callback, batch, logs=None):
        raise KeyboardInterrupt

    for optimizer in (keras.optimizers.SGD(0.1), _Interrupted(0.1)):
        try:
            with mock.patch("keras.callbacks.TerminateOnNaN.on_batch_end", interrupt):
                tfpf.retrain_head(
                    model, "features", (x, y), optimizer=optimizer, epochs=2, verbose=0
                )
        except KeyboardInterrupt:
            assert [weight.tobytes() for weight in model.get_weights()] == before
        else:
            raise AssertionError("It was not interrupted.")


def _in_one_call(model, x, y):
    """The callback in `fit`, a metric, random layers that augment, and a search."""
    settings = {"verbose": 0, "epochs": 2, "seed": (3, 4), "fresh_each_epoch": False}
    shifts = keras.layers.RandomTranslation(0.2, 0.2)
    stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(55)  # two alike
    model.compile(
        keras.optimizers.SGD(0.1),
        "sparse_categorical_crossentropy",
        metrics=[tfpf.GeometricMean(3)],
    )
    retrainer = tfpf.PseudoFeatureHeadRetrainer(
        "features", stream, validation_data=(x, y), monitor=None, **settings
    )
    model.fit(stream, epochs=2, shuffle=False, verbose=0, callbacks=[retrainer])
    score = model.evaluate(x, y, verbose=0, return_dict=True)["geometric_mean"]
    np.testing.assert_allclose(
        score, retrainer.report.after["geometric_mean"], atol=1e-5
    )
    trunk = tfpf.split_at(model, "features").trunk
    views = [
        tfpf.extract_features(
            trunk, stream, augment=shifts, views=2, seed=(5, 6), verbose=0
        ).features
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*views)
    assert not np.array_equal(views[0][: len(y)], views[0][len(y) :])
    report = tfpf.retrain_head(
        model,
        "features",
        (x, y),
        augment=shifts,
        views=1,
        blend=0.5,
        tau=0.5,
        **settings,
    )
    assert report.kept and report.used == report.real == [60, 30, 20]
    tuning = tfpf.tune(model, "features", (x, y), (x, y), epochs=1, verbose=0)
    assert tuning.trials
    adjusted = tfpf.adjust_logits(model, report).predict(x, verbose=0)
    np.testing.assert_allclose(adjusted.sum(axis=1), 1, rtol=1e-5)
    return {"callback": np.array(retrainer.report.loss)}


def _written(model, x, folder):
    """The model in a file, and as a SavedModel where the backend has any."""
    backend = keras.backend.backend()
    model.save(folder / f"{backend}.keras")
    expected = model.predict(x, verbose=0)
    served = folder / f"served-{backend}"
    try:
        version = tfpf.export_classifier(model, served, layer_name="features")
    except NotImplementedError as error:
        assert not served.exists()
        return {"probabilities": expected, "refused": np.array(str(error))}
    endpoint = tf.saved_model.load(version).signatures["serving_default"]
    received = endpoint(image=tf.constant(x))["probabilities"]
    np.testing.assert_allclose(received, expected, atol=1e-5)
    return {"probabilities": expected}


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    np.savez(folder / f"{keras.backend.backend()}.npz", **main_path(folder))
