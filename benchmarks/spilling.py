"""Features in files: a set several times larger than what memory it may take.

    python -m benchmarks --only=spilling

The process gets a limit on its data, RLIMIT_DATA: what it held before, and some more.
A request for memory beyond that fails, and the run with it. Counted is what nothing but
the process itself can give back: pages of files that it reads, in its maps or in the
system's cache, are taken from it whenever somebody needs the memory.
"""

import concurrent.futures
import contextlib
import functools
import gc
import multiprocessing
import pathlib
import resource
import tempfile
import threading
import time

import keras
import numpy as np
import tensorflow as tf

import tf_pseudofeat as tfpf
from benchmarks.made_up import features_of
from benchmarks.race import Contender, Measurement, measurement, race

__all__ = ["measure"]

_LARGE = "extract, fit and train in bounded memory"
_BESIDE = "read features from files"
_BATCH = 256
_CLASSES = 10


def measure(num_rows=2**21, size=512, bound=768, small_rows=100_000, rounds=5):
    """A large set under a limit, and a small one beside the same in memory.

    Args:
        num_rows: N of the large set.
        size: D of both.
        bound: MiB that the process may take beyond what TensorFlow has at the start.
        small_rows: N of the other.
        rounds: see `race`.
    """
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        large = process.submit(_large, num_rows, size, bound).result()
    return large + _beside(small_rows, size, rounds)


def _large(num_rows, size, bound):
    batches, trunk, head = _task(num_rows, size)
    warm, _, _ = _task(4 * _BATCH, size)
    with tempfile.TemporaryDirectory() as folder:
        _job(warm, trunk, head, folder)  # what TensorFlow takes for itself
    gc.collect()
    with tempfile.TemporaryDirectory() as folder, _bounded(bound) as peak:
        seconds = _job(batches, trunk, head, folder)
    mebibytes = 4 * num_rows * size / 2**20
    setting = f"{num_rows:,} x {size}, {mebibytes:,.0f} MiB, bound {bound:,} MiB"
    values = [("ours", "ours", sum(seconds.values()), "s")]
    values += [(name, "part", value, "s") for name, value in seconds.items()]
    values += [("memory at its peak", "part", peak[0], "MiB")]
    return [
        Measurement(_LARGE, setting, name, role, value, unit, value, value, 1)
        for name, role, value, unit in values
    ]


def _task(num_rows, size):
    """Made-up inputs, a trunk that is little work, and a head."""
    inputs, labels = features_of(max(_BATCH * 64, 2 * _CLASSES), size, _CLASSES)
    rows = tf.constant(inputs), tf.constant(labels)

    def batch(number):
        chosen = tf.random.stateless_uniform(
            [_BATCH], (number, number), 0, len(labels), tf.int32
        )
        return tuple(tf.gather(column, chosen) for column in rows)

    batches = tf.data.Dataset.range(num_rows // _BATCH).map(batch).prefetch(2)
    trunk = keras.Sequential([keras.Input((size,)), keras.layers.ReLU()])
    head = keras.Sequential(
        [keras.Input((size,)), keras.layers.Dense(_CLASSES, "softmax")]
    )
    return batches, trunk, head


def _job(batches, trunk, head, folder):
    """Seconds of each step: from inputs to a head that was trained for an epoch."""
    marks = [time.perf_counter()]
    extracted = tfpf.extract_features(
        trunk, batches, cache_dir=pathlib.Path(folder) / "features", verbose=0
    )
    marks.append(time.perf_counter())
    gaussian = tfpf.ClassConditionalGaussian(_CLASSES)
    gaussian.adapt(*extracted)
    marks.append(time.perf_counter())
    real = extracted.class_counts(_CLASSES)
    counts = tfpf.pseudo_counts(extracted.ids, "auto")
    tfpf.fit_head(
        tfpf.Task(head, _CLASSES, "sparse_categorical_crossentropy"),
        tfpf.Material(extracted, real, gaussian, counts),
        tfpf.HeadRecipe(epochs=1),
        scoring=extracted,
        verbose=0,
    )
    marks.append(time.perf_counter())
    names = "extract and write", "fit Gaussians", "score, train an epoch, score"
    return dict(zip(names, np.diff(marks).tolist(), strict=True))


@contextlib.contextmanager
def _bounded(bound):
    """Yields a list with the peak, in MiB, of private memory beyond the start's."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    start, peak, done = _kept("RssAnon"), [0.0], threading.Event()

    def watch():
        while not done.wait(0.01):
            peak[0] = max(peak[0], _kept("RssAnon") - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    limit = int((_kept("VmData") + bound) * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield peak
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
        done.set()
        watcher.join()


def _kept(field):
    """MiB that nobody but the process can give back, resident or asked for."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"Linux alone tells {field}.")


def _beside(num_rows, size, rounds):
    features, labels = features_of(num_rows, size, _CLASSES)
    gaussian = tfpf.ClassConditionalGaussian(_CLASSES)
    gaussian.adapt(features, labels)
    counts = tfpf.pseudo_counts(labels, "auto")
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with tfpf.ShardWriter(folder) as writer:
            for start in range(0, num_rows, _BATCH):
                rows = slice(start, start + _BATCH)
                writer.add(features[rows], labels[rows])
        tfpf.write_index(folder)
        wrote = Contender("write them", None, "part")
        seconds = time.perf_counter() - began
        on_disk = tfpf.load_features(folder).features
        for what, job in [
            ("fit Gaussians", lambda some: gaussian.adapt(some, labels)),
            (
                "an epoch of the stream",
                lambda some: _read(
                    tfpf.interleave(some, labels, gaussian, counts, _BATCH)
                ),
            ),
        ]:
            setting = f"{num_rows:,} x {size}, {what}"
            contenders = [
                Contender("ours", functools.partial(job, on_disk), "ours"),
                Contender("ours, in memory", functools.partial(job, features)),
            ]
            measured += race(_BESIDE, setting, contenders, rounds=rounds)
            if what == "fit Gaussians":
                measured.append(measurement(_BESIDE, setting, wrote, [seconds]))
    return measured


def _read(dataset):
    dataset.reduce(np.int64(0), lambda n, batch: n + tf.shape(batch[0], tf.int64)[0])
