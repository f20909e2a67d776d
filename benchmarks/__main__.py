"""Runs the benchmarks, prints a markdown table and writes it as JSON.

python -m benchmarks
python -m benchmarks --only=fitting --only=sampling
"""

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
    streaming,
)
from benchmarks.table import machine, markdown, write_json

BENCHMARKS = {
    "fitting": fitting.measure,
    "sampling": sampling.measure,
    "densities": densities.measure,
    "streaming": streaming.measure,
    "extraction": extraction.measure,
    "retraining": retraining.measure,
    "memory": memory.measure,
    "growth": growth.measure,
}

_ONLY = flags.DEFINE_multi_enum(
    "only", None, list(BENCHMARKS), "Which to run, once for each; all by default."
)
_OUTPUT = flags.DEFINE_string(
    "output", "outputs/benchmarks/results.json", "The file to write."
)


def main(argv):
    """Runs what the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}; see --help.")
    measurements = []
    for name in _ONLY.value or BENCHMARKS:
        print(f"{name} ...", flush=True)
        measurements += BENCHMARKS[name]()
        write_json(pathlib.Path(_OUTPUT.value), measurements)  # what is there so far
    print(f"\n{machine()}\n\n{markdown(measurements)}\n\n{_OUTPUT.value}")


if __name__ == "__main__":
    app.run(main)
