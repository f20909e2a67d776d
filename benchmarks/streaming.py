"""Step 5: an epoch of real and pseudo-features, shuffled, in batches."""

import functools

import numpy as np
import tensorflow as tf
from imblearn.keras import BalancedBatchGenerator
from imblearn.over_sampling import RandomOverSampler

import tf_pseudofeat as tfpf
from benchmarks.made_up import features_of
from benchmarks.race import Contender, race

__all__ = ["measure"]

_QUESTION = "an epoch of the stream"
_CHUNK = 4096


def measure(num_rows=27_500, size=64, batch_sizes=(43, 256, 4096), rounds=7):
    """Measurements for each batch size; half of ten classes are rare, and balanced."""
    features, labels = features_of(num_rows, size)
    gaussian = tfpf.ClassConditionalGaussian(num_classes=10)
    gaussian.adapt(features, labels)
    counts = tfpf.pseudo_counts(labels, "auto")
    total = num_rows + sum(counts.values())
    measured = []
    for batch_size in batch_sizes:
        contenders = _contenders(features, labels, gaussian, counts, batch_size)
        setting = f"{total:,} x {size}, batches of {batch_size:,}"
        measured += race(_QUESTION, setting, contenders, rounds=rounds)
    return measured


def _contenders(features, labels, gaussian, counts, batch_size):
    return [
        Contender(
            name, functools.partial(do, features, labels, gaussian, counts, *more), role
        )
        for name, do, more, role in [
            ("ours", _ours, (batch_size,), "ours"),
            ("gather and `sample` in large chunks", _floor, (), "floor"),
            ("materialise, `shuffle`, `batch`", _materialised, (batch_size,), "peer"),
            ("`sample_from_datasets`", _from_datasets, (batch_size,), "peer"),
            ("imbalanced-learn's generator", _generator, (batch_size,), "peer"),
        ]
    ]


def _read(dataset):
    """Reads to the end as `fit` does with many steps per execution: in the graph."""
    return int(dataset.reduce(np.int64(0), lambda n, batch: n + _rows_of(batch)))


def _rows_of(batch):
    return tf.shape(batch[0], tf.int64)[0]


def _ours(features, labels, gaussian, counts, batch_size):
    _read(tfpf.interleave(features, labels, gaussian, counts, batch_size))


def _pseudo_labels(counts):
    return np.repeat(list(counts), list(counts.values()))


def _floor(features, labels, gaussian, counts):
    """The same rows, neither mixed with each other nor cut into batches."""
    rng = np.random.default_rng(0)
    real = rng.permutation(len(features))
    pseudo = rng.permutation(_pseudo_labels(counts))
    for start in range(0, len(real), _CHUNK):
        tf.gather(features, real[start : start + _CHUNK])
        tf.gather(labels, real[start : start + _CHUNK])
    for start in range(0, len(pseudo), _CHUNK):
        gaussian.sample(pseudo[start : start + _CHUNK], seed=(1, start))


def _materialised(features, labels, gaussian, counts, batch_size):
    pseudo = _pseudo_labels(counts)
    samples = gaussian.sample(pseudo, seed=(1, 2))
    rows = tf.concat([features, samples], axis=0), np.concatenate([labels, pseudo])
    dataset = tf.data.Dataset.from_tensor_slices(rows)
    _read(dataset.shuffle(len(rows[1])).batch(batch_size).prefetch(tf.data.AUTOTUNE))


def _from_datasets(features, labels, gaussian, counts, batch_size):
    """Real and pseudo-features as a dataset each, mixed at random by their shares."""
    pseudo = np.random.default_rng(0).permutation(_pseudo_labels(counts))
    distribution = gaussian.distribution
    loc, scale = distribution.loc, distribution.scale_tril

    def one(number, label):
        noise = tf.random.stateless_normal([loc.shape[1]], [1, number])
        return loc[label] + tf.linalg.matvec(scale[label], noise), label

    numbers = np.arange(len(pseudo), dtype=np.int32)
    drawn = tf.data.Dataset.from_tensor_slices((numbers, pseudo))
    drawn = drawn.map(one, num_parallel_calls=tf.data.AUTOTUNE)
    real = tf.data.Dataset.from_tensor_slices((features, labels)).shuffle(len(labels))
    share = len(labels) / (len(labels) + len(pseudo))
    mixed = tf.data.Dataset.sample_from_datasets([real, drawn], [share, 1 - share])
    _read(mixed.batch(batch_size).prefetch(tf.data.AUTOTUNE))


def _generator(features, labels, gaussian, counts, batch_size):
    """Copies of real features, for it takes no sampler that makes new ones."""
    del gaussian
    have = np.bincount(labels)
    wanted = {c: int(have[c]) + count for c, count in counts.items()}
    sampler = RandomOverSampler(sampling_strategy=wanted, random_state=0)
    batches = BalancedBatchGenerator(
        features, labels, sampler=sampler, batch_size=batch_size, random_state=0
    )
    for number in range(len(batches)):
        batches[number]
