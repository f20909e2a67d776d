"""What more classes cost: seconds to fit, and memory beyond the features."""

import functools
import time

import numpy as np

import tf_pseudofeat as tfpf
from benchmarks.made_up import batches_of, features_of
from benchmarks.race import Contender, measurement, peak_memory

__all__ = ["measure"]

_QUESTION = "fit and sample many classes"
_SETTINGS = [
    (50_000, 512, num_classes, kind, None)
    for num_classes in (10, 100, 1000)
    for kind in ("full", "diag", "tied")
] + [
    (50_000, 2048, 1000, kind, rank)
    for kind, rank in (("diag", None), ("tied", None), ("low_rank", 8))
]
_STREAMED = [
    (10, 2048, num_classes, kind, rank)
    for num_classes in (1000, 5000, 10_000, 20_000)
    for kind, rank in (("diag", None), ("tied", None), ("low_rank", 8))
]


def measure(settings=_SETTINGS, streamed=_STREAMED):
    """Two measurements, of time and of memory, for each of the settings.

    Args:
        settings: list of `(rows, feature size, classes, covariance type, rank)`, the
            features in memory.
        streamed: the same with examples of each class instead of rows, the features
            made by the batch; the time to make them is a measurement, too.
    """
    measured = []
    for num_rows, size, num_classes, kind, rank in settings:
        setting = f"{num_rows:,} x {size}, {num_classes:,} classes, {kind}"
        prepare = functools.partial(_ours, num_rows, size, num_classes, kind, rank)
        measured += _measured(_named(setting, rank), prepare)
    for rows, size, num_classes, kind, rank in streamed:
        setting = f"{rows} x {num_classes:,} classes x {size}, streamed, {kind}"
        prepare = functools.partial(_streaming, rows, size, num_classes, kind, rank)
        making = functools.partial(_only_made, rows, size, num_classes)
        measured += _measured(_named(setting, rank), prepare, making)
    return measured


def _measured(setting, prepare, making=None):
    job = prepare()
    ours = Contender("ours", job, "ours")
    measured = [measurement(_QUESTION, setting, ours, [_seconds(job)])]
    if making is not None:
        made = Contender("of it, making the features", making, "part")
        measured.append(measurement(_QUESTION, setting, made, [_seconds(making)]))
    memory = Contender("memory beyond the features", prepare, "part")
    return measured + peak_memory(_QUESTION, setting, [memory])


def _named(setting, rank):
    return setting if rank is None else f"{setting} of rank {rank}"


def _seconds(job):
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _ours(num_rows, size, num_classes, kind, rank):
    features, labels = features_of(num_rows, size, num_classes)

    def job():
        gaussian = tfpf.ClassConditionalGaussian(num_classes, kind, rank=rank)
        gaussian.adapt(features, labels)
        gaussian.sample(labels[:4096], seed=(1, 2))

    return job


def _streaming(rows, size, num_classes, kind, rank):
    def job():
        gaussian = tfpf.ClassConditionalGaussian(num_classes, kind, rank=rank)
        gaussian.adapt(batches_of(rows, size, num_classes))
        gaussian.sample(np.arange(4096) % num_classes, seed=(1, 2))

    return job


def _only_made(rows, size, num_classes):
    for _ in batches_of(rows, size, num_classes):
        pass
