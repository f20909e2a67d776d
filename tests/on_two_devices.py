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
# The last batch is of five; of the odd ones it is of one, and a device gets none.
BATCH_SIZES = {"even": 40, "odd": 31}


def build(optimizer="adam"):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, activation="relu"),
            layers.Dense(5, activation="relu", name="features"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def batches(batch_size):
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(batch_size)


def statistics(gaussian):
    moments = gaussian.moments
    return {"count": moments.count, "mean": moments.mean, "scatter": moments.scatter}


def extracted(model, data):
    """Features, and the statistics that follow."""
    trunk = tfpf.split_at(model, "features").trunk
    features, labels = tfpf.extract_features(trunk, data, verbose=0)
    gaussian = tfpf.ClassConditionalGaussian(3)
    gaussian.adapt(features, labels)
    return {"features": features, **statistics(gaussian)}


def retrained(model, data):
    """What training the head comes to, and all weights, by name."""
    report = tfpf.retrain_head(
        model, "features", data, epochs=20, batch_size=80, verbose=0
    )
    weights = {f"weight{i}": w for i, w in enumerate(model.get_weights())}
    return {"loss": report.loss, "recall": report.after["recall"], **weights}


def in_fit(model, data):
    """The same by the callback, after an epoch of training that changes nothing."""
    gaussian = tfpf.ClassConditionalGaussian(3)
    callback = tfpf.PseudoFeatureHeadRetrainer(
        "features",
        data,
        gaussian=gaussian,
        optimizer=keras.optimizers.SGD(0.1),
        epochs=20,
        batch_size=80,
        verbose=0,
    )
    model.fit(data, verbose=0, callbacks=[callback])
    return {
        "kept": callback.report.kept,
        "steps": keras.ops.convert_to_numpy(model.optimizer.iterations),
        "head": model.get_weights()[-1],
        **statistics(gaussian),
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

    def mirrored(*args):
        with strategy.scope():
            return build(*args)

    for name, batch_size in BATCH_SIZES.items():
        note(f"one/{name}", extracted(build(), batches(batch_size)))
        note(f"two/{name}", extracted(mirrored(), batches(batch_size)))
    odd = batches(BATCH_SIZES["odd"])
    note("head/one", retrained(build(), odd))
    note("head/two", retrained(mirrored(), odd))
    model = mirrored()
    with strategy.scope():
        note("head/inside", retrained(model, odd))
    # Keras 3.15 does not begin a `fit` whose first batch the devices share unevenly.
    even = batches(BATCH_SIZES["even"])
    note("fit/one", in_fit(build(keras.optimizers.SGD(0.0)), even))
    with strategy.scope():
        still = keras.optimizers.SGD(0.0)
    note("fit/two", in_fit(mirrored(still), even))
    np.savez(path, **results)


if __name__ == "__main__":
    main(sys.argv[1])
