"""A retraining on two devices of jax, which share batches of odd sizes, beside one.

    KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=2 \\
        python -m tests.on_two_jax_devices FOLDER

reads `model.keras` and `data.npz` in the folder. Ends with an error if the devices do
not give what one gives, or the model is no longer on both of them afterwards.
"""

import pathlib
import sys

import jax
import keras
import numpy as np
import tensorflow as tf

import tf_pseudofeat as tfpf


def retrained(folder):
    """Trained by `fit`, retrained by the callback, and trained on."""
    keras.utils.set_random_seed(0)
    data = np.load(folder / "data.npz")
    x, y = data["x"][1:], data["y"][1:]  # 109 rows
    model = keras.models.load_model(folder / "model.keras")
    model.jit_compile = True  # as a model is that was compiled on jax
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    even = rows.batch(36, drop_remainder=True)  # as Keras itself needs it
    retrainer = tfpf.PseudoFeatureHeadRetrainer(
        "features",
        rows.batch(27),  # and a single row
        validation_data=(x, y),
        monitor=None,
        augment=keras.layers.Rescaling(1.1),
        views=2,
        batch_size=33,
        epochs=2,
        seed=(3, 4),
        verbose=0,
    )
    model.fit(even, epochs=2, shuffle=False, verbose=0, callbacks=[retrainer])
    assert retrainer.report.kept
    trained = model.get_weights()
    model.fit(even, epochs=1, shuffle=False, verbose=0)
    return model, trained


def main(folder):
    """Compares both."""
    assert len(jax.devices()) == 2
    _, expected = retrained(folder)
    shared = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(shared)
    model, received = retrained(folder)
    assert keras.distribution.distribution() is shared
    for variable in model.variables:
        assert len(variable.value.sharding.device_set) == 2, variable.path
    for one, two in zip(expected, received, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
