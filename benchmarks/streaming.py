"""Step 5: epochs of real and pseudo-features, shuffled, in batches.

The time to build a dataset counts: a head is trained for a few epochs, not for many.
"""

import functools

import numpy as np
import tensorflow as tf
from imblearn.keras import BalancedBatchGenerator
from imblearn.over_sampling import RandomOverSampler

import tf_pseudofeat as tfpf
from benchmarks.made_up import features_of
from benchmarks.race import Contender, race

__all__ = ["measure"]

_QUESTION = "stream real and pseudo-features"
_EPOCHS = 5
_CHUNK = 16_384


_SETTINGS = [(27_500, 43), (27_500, 256), (27_500, 4096), (137_500, 256)]


def measure(settings=_SETTINGS, size=64, rounds=7):
    """Measurements for each `(real features, batch size)`.

    Half of ten classes are rare, and all are brought to the size of the largest.
    """
    measured = []
    for num_rows, batch_size in settings:
        features, labels = features_of(num_rows, size)
        gaussian = tfpf.ClassConditionalGaussian(num_classes=10)
        gaussian.adapt(features, labels)
        counts = tfpf.pseudo_counts(labels, "auto")
        total = num_rows + sum(counts.values())
        contenders = _contenders(features, labels, gaussian, counts, batch_size)
        setting = f"{_EPOCHS} x {total:,} x {size}, batches of {batch_size:,}"
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
            ("materialized anew and shuffled", _anew, (batch_size,), "peer"),
            ("materialized once and shuffled", _once, (batch_size,), "peer"),
            ("`sample_from_datasets`", _from_datasets, (batch_size,), "peer"),
            (
                "imbalanced-learn's copies",
                _generator,
                (batch_size,),
                "peer",
            ),
        ]
    ]


@tf.function(reduce_retracing=True)
def _count(dataset):
    """Reads to the end as `fit` does with many steps per execution: in the graph."""
    rows = tf.constant(0)
    for batch in dataset:
        rows += tf.shape(batch[0])[0]
    return rows


def _read(dataset, epochs=_EPOCHS):
    for _ in range(epochs):
        _count(dataset)


def _ours(features, labels, gaussian, counts, batch_size):
    _read(tfpf.interleave(features, labels, gaussian, counts, batch_size))


def _pseudo_labels(counts):
    return np.repeat(list(counts), list(counts.values()))


def _floor(features, labels, gaussian, counts):
    """The same rows, neither mixed with each other nor cut into batches."""
    rng = np.random.default_rng(0)
    pseudo = _pseudo_labels(counts)
    for epoch in range(_EPOCHS):
        real = rng.permutation(len(features))
        for start in range(0, len(real), _CHUNK):
            tf.gather(features, real[start : start + _CHUNK])
            tf.gather(labels, real[start : start + _CHUNK])
        for start in range(0, len(pseudo), _CHUNK):
            gaussian.sample(pseudo[start : start + _CHUNK], seed=(epoch, start))


def _materialized(features, labels, gaussian, counts, batch_size, epoch):
    pseudo = _pseudo_labels(counts)
    samples = gaussian.sample(pseudo, seed=(1, epoch))
    rows = tf.concat([features, samples], axis=0), np.concatenate([labels, pseudo])
    dataset = tf.data.Dataset.from_tensor_slices(rows).shuffle(len(rows[1]))
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _anew(*setting):
    """New pseudo-features in every epoch, as ours are."""
    for epoch in range(_EPOCHS):
        _read(_materialized(*setting, epoch), epochs=1)


def _once(*setting):
    _read(_materialized(*setting, epoch=0))


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
    _read(  # as `fit` makes a dataset of it
        tf.data.Dataset.from_generator(
            lambda: (batches[number] for number in range(len(batches))),
            output_signature=(
                tf.TensorSpec([None, features.shape[1]], features.dtype),
                tf.TensorSpec([None], labels.dtype),
            ),
        ).prefetch(tf.data.AUTOTUNE)
    )
