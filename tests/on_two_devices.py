"""Heads retrained on two devices of one process, for strategies_test.py.

    python -m tests.on_two_devices RESULTS.npz

TensorFlow makes its devices once in a process, so this is a process of its own.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import tf_pseudofeat as tfpf

N = 125
RNG = np.random.default_rng(0)
Y = RNG.permutation(np.repeat([0, 1, 2], [85, 30, 10]))
X = (RNG.normal(size=(N, 4)) + 2 * np.eye(4)[Y]).astype("float32")
# The last batch is of five; of the odd ones, of one: there is none for a device.
BATCH_SIZES = {"even": 40, "odd": 31}


def build():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="relu"),
            layers.Dense(5, activation="relu", name="features"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def batches(batch_size):
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(batch_size)


def retrained(model, data):
    """The report's numbers, the statistics and all weights, by name."""
    gaussian = tfpf.ClassConditionalGaussian(3)
    report = tfpf.retrain_head(
        model, "features", data, gaussian=gaussian, epochs=20, batch_size=80, verbose=0
    )
    weights = {f"weight{i}": w for i, w in enumerate(model.get_weights())}
    features = tfpf.extract_features(
        tfpf.split_at(model, "features").trunk, data, verbose=0
    ).features
    return {
        "features": features,
        "count": gaussian.moments.count,
        "mean": gaussian.moments.mean,
        "scatter": gaussian.moments.scatter,
        "loss": report.loss,
        "recall": report.after["recall"],
        **weights,
    }


def in_fit(model, data):
    """The same by the callback, after an epoch of training that changes nothing."""
    gaussian = tfpf.ClassConditionalGaussian(3)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    cure = tfpf.PseudoFeatureHeadRetrainer(
        "features",
        data,
        gaussian=gaussian,
        optimizer=keras.optimizers.SGD(0.1),
        epochs=20,
        batch_size=80,
        verbose=0,
    )
    model.fit(data, verbose=0, callbacks=[cure])
    optimizer = [value for value in model.optimizer.variables if value.ndim == 0]
    return {
        "count": gaussian.moments.count,
        "mean": gaussian.moments.mean,
        "scatter": gaussian.moments.scatter,
        "kept": cure.report.kept,
        "steps": int(optimizer[0]),
        "head": model.get_weights()[-1],
    }


def main(path):
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    results = {}

    def note(name, values):
        results.update({f"{name}/{key}": value for key, value in values.items()})

    def mirrored():
        with strategy.scope():
            return build()

    for name, batch_size in BATCH_SIZES.items():
        data = batches(batch_size)
        note(f"one/{name}", retrained(build(), data))
        note(f"two/{name}", retrained(mirrored(), data))
    model = mirrored()
    with strategy.scope():
        note("inside/odd", retrained(model, batches(BATCH_SIZES["odd"])))
        model = mirrored()
        note("fit two/odd", in_fit(model, batches(BATCH_SIZES["odd"])))
    note("fit one/odd", in_fit(build(), batches(BATCH_SIZES["odd"])))
    np.savez(path, **results)


if __name__ == "__main__":
    main(sys.argv[1])
