"""Step 2: the features of the training data, read from a `tf.data` set."""

import keras
import numpy as np
import tensorflow as tf

import tf_pseudofeat as tfpf
from benchmarks.compiled import compiled
from benchmarks.race import Contender, race
from examples.resnet import resnet

__all__ = ["measure"]

_QUESTION = "extract features"


def measure(num_images=4096, depth=20, batch_size=256, rounds=5):
    """Measurements for one residual network of He et al. on 32 x 32 images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, num_images)
    model = resnet(depth, (32, 32, 3), num_classes=10)
    trunk, _ = tfpf.split_at(model, "features")
    dataset = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    forward = compiled(lambda x: trunk(x, training=False))

    def floor():
        for start in range(0, num_images, batch_size):
            forward(keras.ops.convert_to_tensor(images[start : start + batch_size]))

    contenders = [
        Contender(
            "ours",
            lambda: tfpf.extract_features(trunk, dataset, verbose=0),
            "ours",
        ),
        Contender("forward passes", floor, "floor"),
        Contender(
            "`trunk.predict` on arrays",
            lambda: trunk.predict(images, batch_size=batch_size, verbose=0),
        ),
    ]
    setting = f"ResNet-{depth}, {num_images:,} images of 32 x 32"
    return race(_QUESTION, setting, contenders, rounds=rounds)
