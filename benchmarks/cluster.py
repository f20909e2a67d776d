"""What a million rows cost on Beam and on one machine; a cluster, reckoned from it.

    python -m benchmarks.cluster

Seconds are those of the processor, of all threads, so that they add up over workers and
other work on the machine does not count; those of a single batch, which are what it
takes to begin, are taken off. Beam runs here in this process, as one of its workers
would: nothing is sent. The rows are made beforehand and are the same 1,024 again and
again, so that reading them costs nothing.
"""

import dataclasses
import itertools
import tempfile
import time

import apache_beam as beam
import keras
import numpy as np
import tensorflow as tf
from absl import app
from apache_beam.options.pipeline_options import PipelineOptions

import tf_pseudofeat as tfpf
from benchmarks.made_up import features_of
from benchmarks.table import machine
from examples.resnet import resnet
from tf_pseudofeat.engines.beam import (
    CombineClassMoments,
    ExtractFeatures,
    WriteFeatureShards,
)

__all__ = ["Cost", "measure_moments", "measure_trunk", "reckon"]

_BATCH = 1024
_RANK = 8  # of "low_rank"
# Rows, features, classes, kind.
_SETTINGS = (
    (1_000_000, 64, 10, "full"),
    (100_000, 2048, 10, "full"),
    (100_000, 2048, 1000, "diag"),
    (100_000, 2048, 1000, "tied"),
    (100_000, 2048, 1000, "low_rank"),
    (100_000, 2048, 21_841, "diag"),
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What some rows took.

    Attributes:
        setting: sizes, such as "100,000 x 2048, 10 classes, full".
        where: on one machine or on Beam, and what.
        rows: how many.
        seconds: of the processor, without those to begin.
    """

    setting: str
    where: str
    rows: int
    seconds: float

    @property
    def per_million(self):
        """Seconds of the processor for a million rows."""
        return self.seconds / self.rows * 1e6


def measure_moments(settings=_SETTINGS):
    """Yields costs of moments and shards, for `(rows, features, classes, kind)`."""
    for rows, size, num_classes, kind in settings:
        setting = f"{rows:,} x {size}, {num_classes:,} classes, {kind}"
        batches = range(rows // _BATCH)  # Beam would pickle arrays into its plan
        for where, job in _moments_jobs(size, num_classes, kind).items():
            seconds = _seconds(job, batches)
            yield Cost(setting, where, len(batches) * _BATCH, seconds)


def _moments_jobs(size, num_classes, kind):
    features, _ = features_of(_BATCH, size)
    rank = _RANK if kind == "low_rank" else None

    def made(number):
        labels = np.random.default_rng(number).integers(num_classes, size=_BATCH)
        return features, labels

    def one_machine(batches):
        tfpf.moments_of_batches(map(made, batches), num_classes, kind, rank)

    def moments(batches):
        combine = beam.CombineGlobally(CombineClassMoments(num_classes, kind, rank))
        _run(batches, beam.Map(made) | combine)

    def shards(batches):
        with tempfile.TemporaryDirectory() as folder:
            _run(batches, beam.Map(made) | WriteFeatureShards(folder))

    return {"one machine": one_machine, "Beam": moments, "Beam, shards alone": shards}


def measure_trunk(num_images=4096, depth=20, large=256):
    """Yields costs of features, of images of 32 x 32 and, by ResNet-50, 224 x 224."""
    networks = {f"ResNet-{depth}": (resnet(depth, (32, 32, 3), 10), num_images)}
    if large:
        network = keras.applications.ResNet50(weights=None, classes=10)
        networks["ResNet-50"] = (network, large)
    for name, (model, count) in networks.items():
        side = model.input.shape[1]
        setting = f"{name}, {count:,} images of {side} x {side}"
        with tempfile.TemporaryDirectory() as folder:
            batch = min(256, count // 8)
            ranges = [(first, first + batch) for first in range(0, count, batch)]
            for where, job in _trunk_jobs(model, count, batch, folder).items():
                yield Cost(setting, where, count, _seconds(job, ranges))


def _trunk_jobs(model, count, batch, folder):
    layer = model.layers[-2].name
    trunk, _ = tfpf.split_at(model, layer)
    path = tfpf.export_classifier(model, folder, layer_name=layer)
    shape = (count, *model.input.shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    labels = np.arange(count) % 10

    def rows(start, stop):
        return zip(images[start:stop], labels[start:stop].tolist(), strict=True)

    def one_machine(ranges):
        stop = ranges[-1][1]
        data = tf.data.Dataset.from_tensor_slices((images[:stop], labels[:stop]))
        tfpf.extract_features(trunk, data.batch(batch), verbose=0)

    def on_beam(ranges):
        _run(ranges, beam.FlatMapTuple(rows) | ExtractFeatures(path, batch))

    return {"one machine": one_machine, "Beam": on_beam}


def _seconds(job, parts):
    """Of the processor, in proportion to all parts; the first one is the beginning."""
    seconds = []
    for some in (parts[:1], parts[:1], parts):  # once more, with models loaded
        began = time.process_time()
        job(some)
        seconds.append(time.process_time() - began)
    return max(0.0, seconds[2] - seconds[1]) * len(parts) / (len(parts) - 1)


def _run(parts, transform):
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        pipeline | "Ranges" >> beam.Create(parts) | "Job" >> transform


def reckon(name, rows, size, num_classes, moments, trunk, bundles=1000):
    """Lines of what a cluster would need, on paper.

    Args:
        name: of the set.
        rows: N.
        size: D.
        num_classes: C.
        moments: {kind: seconds of the processor for the moments of a million rows}.
        trunk: the same, for their features.
        bundles: of rows, each of which sends one accumulator.
    """
    numbers = {
        "full": num_classes * (1 + size + size**2),
        "tied": num_classes * (1 + size) + size**2,
        "diag": num_classes * (1 + 2 * size),
        "low_rank": num_classes * (1 + 2 * size + _RANK * size),
    }
    millions = rows / 1e6
    lines = [
        f"{name}: {rows:,} rows, D = {size:,}, C = {num_classes:,}",
        f"  trunk             {millions * trunk / 3600:,.0f} CPU hours",
        f"  shards            {_bytes(rows * (4 * size + 8))}",
    ]
    for kind, count in numbers.items():
        hours = "not measured"
        if kind in moments:
            hours = f"{millions * moments[kind] / 3600:,.1f} CPU hours"
        lines.append(
            f"  moments, {kind:<8} {hours}, "
            f"accumulator {_bytes(8 * count)}, {_bytes(8 * count * bundles)} sent by "
            f"{bundles:,} bundles"
        )
    return lines


def _bytes(number):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:,.3g} TiB" if number < 1000 else f"{number:,.0f} TiB"


def main(argv):
    """Measures, prints the table, and reckons."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}; see --help.")
    print(f"{machine()}, Apache Beam {beam.__version__}; seconds for a million rows\n")
    print("| setting | one machine | Beam | Beam, shards alone |\n|---|---|---|---|")
    on_beam = []
    costs = itertools.chain(measure_moments(), measure_trunk())
    for setting, some in itertools.groupby(costs, lambda cost: cost.setting):
        some = list(some)
        cells = [f"{cost.per_million:,.3g}" for cost in some]
        print(f"| {setting} | {' | '.join(cells)} |", flush=True)
        on_beam.append(some[1].per_million)
    _, _, diag, tied, low_rank, many_diag, _, trunk = on_beam
    thousand = {"diag": diag, "tied": tied, "low_rank": low_rank}
    for name, rows, num_classes, moments in (
        ("A billion rows", 10**9, 1000, thousand),
        ("ImageNet-21k", 14_197_122, 21_841, {"diag": many_diag}),
    ):
        lines = reckon(name, rows, 2048, num_classes, moments, trunk)
        print("\n" + "\n".join(lines))


if __name__ == "__main__":
    app.run(main)
