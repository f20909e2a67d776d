"""What a million rows cost on Beam, beside one machine; and a cluster, reckoned from it.

    python -m benchmarks.cluster

Seconds are those of the processor, of all threads, so that they add up over workers and
other work on the machine does not count. Beam runs here in this process, as one of its
workers would: nothing is sent. The rows are made beforehand and are the same 1,024
again and again, so that reading them costs nothing.
"""

import dataclasses
import tempfile
import time

import apache_beam as beam
import keras
import numpy as np
from absl import app
from apache_beam.options.pipeline_options import PipelineOptions

import tf_pseudofeat as tfpf
from benchmarks.made_up import features_of
from examples.resnet import resnet
from tf_pseudofeat.beam import (
    CombineClassMoments,
    ExtractFeatures,
    WriteFeatureShards,
)

__all__ = ["Cost", "measure_moments", "measure_trunk", "reckon"]

_BATCH = 1024
# Rows, features, classes, kind.
_SETTINGS = (
    (1_000_000, 64, 10, "full"),
    (100_000, 2048, 10, "full"),
    (100_000, 2048, 1000, "tied"),
    (100_000, 2048, 1000, "diag"),
    (100_000, 2048, 21_841, "diag"),
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What some rows took.

    Attributes:
        setting: sizes, such as "100,000 x 2048, 10 classes, full".
        name: what was done.
        rows: how many.
        seconds: of the processor.
    """

    setting: str
    name: str
    rows: int
    seconds: float

    @property
    def per_million(self):
        """Seconds of the processor for a million rows."""
        return self.seconds / self.rows * 1e6


def measure_moments(settings=_SETTINGS):
    """Costs of moments and of shards, for each `(rows, features, classes, kind)`."""
    costs = []
    for rows, size, num_classes, kind in settings:
        setting = f"{rows:,} x {size}, {num_classes:,} classes, {kind}"
        batch, _ = features_of(_BATCH, size)
        labels = np.random.default_rng(0).integers(num_classes, size=rows)
        labels = [labels[i : i + _BATCH] for i in range(0, rows, _BATCH)]
        batches = [(batch[: len(some)], some) for some in labels]
        combine = beam.CombineGlobally(CombineClassMoments(num_classes, kind))
        jobs = {
            "one machine": lambda batches=batches, num_classes=num_classes, kind=kind: (
                tfpf.moments_of_batches(iter(batches), num_classes, kind)
            ),
            "Beam": lambda labels=labels, batch=batch, combine=combine: _run(
                labels, lambda some: (batch[: len(some)], some), combine
            ),
            "Beam, shards alone": lambda labels=labels, batch=batch: _write(
                labels, lambda some: (batch[: len(some)], some)
            ),
        }
        for name, job in jobs.items():
            costs.append(Cost(setting, name, rows, _seconds(job)))
    return costs


def measure_trunk(num_images=4096, depth=20, large=64):
    """Costs of features, from images of 32 x 32 and, by ResNet-50, of 224 x 224."""
    costs = []
    networks = [(f"ResNet-{depth}", resnet(depth, (32, 32, 3), 10), num_images)]
    if large:
        network = keras.applications.ResNet50(weights=None, classes=10)
        networks.append(("ResNet-50", network, large))
    for name, model, count in networks:
        layer = model.layers[-2].name
        shape = (count, *model.input.shape[1:])
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        labels = np.arange(count) % 10
        setting = f"{name}, images of {shape[1]} x {shape[2]}"
        trunk, _ = tfpf.split_at(model, layer)
        with tempfile.TemporaryDirectory() as folder:
            path = tfpf.export_classifier(model, folder, layer_name=layer)
            rows = list(zip(images, labels.tolist(), strict=True))
            jobs = {
                "one machine": lambda trunk=trunk, data=(images, labels): (
                    tfpf.extract_features(trunk, data, verbose=0)
                ),
                "Beam": lambda path=path, rows=rows: _run(
                    [rows[i : i + 256] for i in range(0, len(rows), 256)],
                    lambda some: some,
                    beam.FlatMap(lambda some: some) | ExtractFeatures(path),
                ),
            }
            for name, job in jobs.items():
                costs.append(Cost(setting, name, count, _seconds(job)))
    return costs


def _seconds(job):
    job()  # the first time, threads are started, graphs built and models loaded
    began = time.process_time()
    job()
    return time.process_time() - began


def _run(parts, made, transform):
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        ranges = pipeline | "Ranges" >> beam.Create(parts)
        ranges | "Made" >> beam.Map(made) | "Job" >> transform


def _write(parts, made):
    with tempfile.TemporaryDirectory() as folder:
        _run(parts, made, WriteFeatureShards(folder))


def reckon(name, rows, size, num_classes, moments, trunk, bundles=1000):
    """Lines of what a cluster would need, on paper.

    Args:
        name: of the set.
        rows: N.
        size: D.
        num_classes: C.
        moments: seconds of the processor for the moments of a million rows.
        trunk: the same, for their features.
        bundles: of rows, each of which sends one accumulator.
    """
    numbers = {
        "full": num_classes * (1 + size + size**2),
        "tied": num_classes * (1 + size) + size**2,
        "diag": num_classes * (1 + 2 * size),
    }
    sent = ", ".join(
        f"{kind} {_bytes(8 * count)} ({_bytes(8 * count * bundles)})"
        for kind, count in numbers.items()
    )
    return [
        f"{name}: {rows:,} rows, D = {size:,}, C = {num_classes:,}",
        f"  moments      {rows / 1e6 * moments / 3600:,.1f} CPU hours",
        f"  trunk        {rows / 1e6 * trunk / 3600:,.0f} CPU hours",
        f"  shards       {_bytes(rows * (4 * size + 8))}",
        f"  accumulator  {sent}, of {bundles:,} bundles",
    ]


def _bytes(number):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.3g} {unit}"
        number /= 1024
    return f"{number:,.3g} TiB" if number < 1000 else f"{number:,.0f} TiB"


def _table(costs):
    lines = ["| setting | where | CPU seconds for a million rows |", "|---|---|---|"]
    return lines + [f"| {c.setting} | {c.name} | {c.per_million:,.3g} |" for c in costs]


def main(argv):
    """Measures, prints the table, and reckons."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}; see --help.")
    moments, trunk = measure_moments(), measure_trunk()
    print("\n".join(_table(moments + trunk)), "\n")
    (trunk,) = (c for c in trunk if c.name == "Beam" and "ResNet-50" in c.setting)
    on_beam = [cost for cost in moments if cost.name == "Beam"]
    for name, rows, classes, cost in (
        ("A billion rows", 10**9, 1000, on_beam[3]),
        ("ImageNet-21k", 14_197_122, 21_841, on_beam[4]),
    ):
        lines = reckon(name, rows, 2048, classes, cost.per_million, trunk.per_million)
        print("\n".join(lines))


if __name__ == "__main__":
    app.run(main)
