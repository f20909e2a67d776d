"""What more classes cost: seconds to fit, and memory beyond the features."""

import functools
import time

import numpy as np

import tf_pseudofeat as tfpf
from benchmarks.made_up import batches_of, features_of
from benchmarks.race import Contender, measurement, peak_memory, run_once

__all__ = ["measure"]

_QUESTION = "fit and sample many classes"
_MEMORY = "memory beyond the features"
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
    if kind == "low_rank" or num_classes in (1000, 20_000)
]


def measure(settings=_SETTINGS, streamed=_STREAMED):
    """Two measurements, of time and of memory, for each of the settings.

    Args:
        settings: list of `(rows, feature size, classes, covariance type, rank)`, the
            features in memory.
        streamed: the same with examples of each class instead of rows, the features
            made by the batch, which is part of the time and of the memory.
    """
    measured = []
    for num_rows, size, num_classes, kind, rank in settings:
        prepare = functools.partial(_ours, num_rows, size, num_classes, kind, rank)
        setting = f"{num_rows:,} x {size}, {num_classes:,} classes, {kind}"
        setting = _named(setting, rank)
        job = prepare()
        start = time.perf_counter()
        job()
        seconds = time.perf_counter() - start
        ours = Contender("ours", job, "ours")
        measured.append(measurement(_QUESTION, setting, ours, [seconds]))
        memory = Contender(_MEMORY, prepare, "part")
        measured += peak_memory(_QUESTION, setting, [memory])
    for rows, size, num_classes, kind, rank in streamed:
        prepare = functools.partial(_streaming, rows, size, num_classes, kind, rank)
        setting = f"stream of {rows * num_classes:,} x {size}, {num_classes:,} classes"
        setting = _named(f"{setting}, {kind}", rank)
        measured += run_once(_QUESTION, setting, prepare, _MEMORY)
    return measured


def _named(setting, rank):
    return setting if rank is None else f"{setting} of rank {rank}"


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
