"""Runs the benchmarks, prints a markdown table and writes it as JSON.

    python -m benchmarks
    python -m benchmarks --only=fitting --only=sampling

What the file has of other benchmarks, from the same machine and versions, stays in it.
"""

import concurrent.futures
import multiprocessing
import pathlib

from absl import app, flags

from benchmarks import (
    densities,
    extraction,
    fitting,
    growth,
    memory,
    retraining,
    sampling,
    spilling,
    streaming,
    tuning,
)
from benchmarks.table import machine, markdown, read_json, write_json

BENCHMARKS = {
    "fitting": fitting.measure,
    "sampling": sampling.measure,
    "densities": densities.measure,
    "streaming": streaming.measure,
    "extraction": extraction.measure,
    "retraining": retraining.measure,
    "tuning": tuning.measure,
    "memory": memory.measure,
    "growth": growth.measure,
    "spilling": spilling.measure,
}

_ONLY = flags.DEFINE_multi_enum(
    "only", None, list(BENCHMARKS), "Which to run, once for each; all by default."
)
_OUTPUT = flags.DEFINE_string(
    "output", "outputs/benchmarks/results.json", "The file to write."
)


def in_a_new_process(measure):
    """What it returns; one benchmark may leave the next another way with memory."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        return process.submit(measure).result()


def main(argv):
    """Runs what the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}; see --help.")
    path = pathlib.Path(_OUTPUT.value)
    measured = read_json(path)
    for name in _ONLY.value or BENCHMARKS:
        print(f"{name} ...", flush=True)
        measured[name] = in_a_new_process(BENCHMARKS[name])
        measured = {name: measured[name] for name in BENCHMARKS if name in measured}
        write_json(path, measured)
    table = markdown([row for rows in measured.values() for row in rows])
    print(f"\n{machine()}\n\n{table}\n\n{_OUTPUT.value}")


if __name__ == "__main__":
    app.run(main)
