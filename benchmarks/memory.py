"""Memory beyond the features: fit the Gaussians and read an epoch of the stream."""

import functools

import numpy as np
import tensorflow as tf

import tf_pseudofeat as tfpf
from benchmarks.made_up import features_of
from benchmarks.race import Contender, peak_memory

__all__ = ["measure"]

_QUESTION = "memory beyond the features"
_BATCH = 256


def measure(rows=(50_000, 200_000, 800_000), sizes=(64, 512), multipliers=(1, 10, 100)):
    """Measurements by the number of features, and by that of pseudo-features.

    The materialized peer is left out where it would hold more than 8 GiB.
    """
    measured = []
    for size in sizes:
        settings = [(n, 1) for n in rows] + [(rows[0], m) for m in multipliers[1:]]
        for num_rows, multiplier in settings:
            counts = _counts(num_rows, multiplier)
            total = num_rows + sum(counts.values())
            contenders = [
                Contender(
                    "ours",
                    functools.partial(_ours, num_rows, size, multiplier),
                    "ours",
                )
            ]
            if 4 * total * size < 2**32:
                materialized = functools.partial(
                    _materialized, num_rows, size, multiplier
                )
                contenders.append(Contender("materialized", materialized))
            setting = f"{num_rows:,} x {size}, minority x {multiplier}"
            measured += peak_memory(_QUESTION, setting, contenders)
    return measured


def _counts(num_rows, multiplier):
    """The minority, an eleventh of the rows, so many times."""
    return {c: multiplier * (num_rows // 55) for c in range(5, 10)}


def _fitted(num_rows, size):
    features, labels = features_of(num_rows, size)
    # What TensorFlow takes for itself at its first step is not of the method.
    _read(tfpf.interleave(features[:512], labels[:512], batch_size=_BATCH))
    return features, labels


def _read(dataset):
    dataset.reduce(np.int64(0), lambda n, batch: n + tf.shape(batch[0], tf.int64)[0])


def _ours(num_rows, size, multiplier):
    features, labels = _fitted(num_rows, size)

    def job():
        gaussian = tfpf.ClassConditionalGaussian(10)
        gaussian.adapt(features, labels)
        counts = _counts(num_rows, multiplier)
        _read(tfpf.interleave(features, labels, gaussian, counts, _BATCH))

    return job


def _materialized(num_rows, size, multiplier):
    features, labels = _fitted(num_rows, size)

    def job():
        gaussian = tfpf.ClassConditionalGaussian(10)
        gaussian.adapt(features, labels)
        counts = _counts(num_rows, multiplier)
        pseudo = np.repeat(list(counts), list(counts.values()))
        samples = gaussian.sample(pseudo, seed=(1, 2))
        rows = tf.concat([features, samples], axis=0), np.append(labels, pseudo)
        dataset = tf.data.Dataset.from_tensor_slices(rows).shuffle(len(rows[1]))
        _read(dataset.batch(_BATCH))

    return job
