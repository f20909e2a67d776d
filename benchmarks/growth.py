"""What more classes cost: seconds to fit, and memory beyond the features."""

import functools
import time

import tf_pseudofeat as tfpf
from benchmarks.made_up import features_of
from benchmarks.race import Contender, measurement, peak_memory

__all__ = ["measure"]

_QUESTION = "fit and sample many classes"
_SETTINGS = [
    (50_000, 512, num_classes, kind)
    for num_classes in (10, 100, 1000)
    for kind in ("full", "diag", "tied")
] + [(50_000, 2048, 1000, kind) for kind in ("diag", "tied")]


def measure(settings=_SETTINGS):
    """Two measurements, of time and of memory, for each of the settings.

    Args:
        settings: list of `(rows, feature size, classes, covariance type)`.
    """
    measured = []
    for num_rows, size, num_classes, kind in settings:
        arguments = num_rows, size, num_classes, kind
        setting = f"{num_rows:,} x {size}, {num_classes:,} classes, {kind}"
        prepare = functools.partial(_ours, *arguments)
        job = prepare()
        start = time.perf_counter()
        job()
        seconds = time.perf_counter() - start
        ours = Contender("ours", job, "ours")
        measured.append(measurement(_QUESTION, setting, ours, [seconds]))
        memory = Contender("memory beyond the features", prepare, "part")
        measured += peak_memory(_QUESTION, setting, [memory])
    return measured


def _ours(num_rows, size, num_classes, kind):
    features, labels = features_of(num_rows, size, num_classes)

    def job():
        gaussian = tfpf.ClassConditionalGaussian(num_classes, kind)
        gaussian.adapt(features, labels)
        gaussian.sample(labels[:4096], seed=(1, 2))

    return job
