"""How likely an input is under every class: the layer's `call`."""

import keras
import tensorflow as tf

from benchmarks.compiled import compiled
from benchmarks.made_up import features_of, fitted
from benchmarks.race import Contender, one_core_busy, race

__all__ = ["measure"]

_QUESTION = "log densities of a batch"


def measure(settings=((1024, 10, 64), (1024, 100, 512)), rounds=15):
    """Measurements for each `(batch, classes, feature size)`, compiled as graphs."""
    measured = []
    for batch, num_classes, size in settings:
        setting = f"{batch:,} x {num_classes} classes x {size}"
        contenders = _contenders(batch, num_classes, size)
        measured += race(_QUESTION, setting, contenders, rounds=rounds)
        with one_core_busy():
            busy = f"{setting}, one core busy"
            measured += race(_QUESTION, busy, contenders, rounds=rounds)
    return measured


def _contenders(batch, num_classes, size):
    gaussian = fitted(size, num_classes)
    features, _ = features_of(max(batch, 2 * num_classes), size, num_classes)
    features = features[:batch]
    inputs = keras.ops.convert_to_tensor(features)
    features = tf.constant(features)
    side_by_side = tf.random.stateless_normal([size, num_classes * size], [1, 2])
    distribution = gaussian.distribution

    call = compiled(gaussian)
    matmul = tf.function(lambda x: tf.matmul(x, side_by_side))
    log_prob = tf.function(lambda x: distribution.log_prob(x[:, tf.newaxis]))
    return [
        Contender("ours", lambda: call(inputs), "ours"),
        Contender("one matmul of that size", lambda: matmul(features), "floor"),
        Contender("TFP `log_prob`", lambda: log_prob(features)),
    ]
