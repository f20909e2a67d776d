"""Measurements as a markdown table and as JSON, with the machine that made them."""

import dataclasses
import importlib.metadata
import itertools
import json
import os
import pathlib
import platform

from benchmarks.race import Measurement
from tf_pseudofeat.core.files import whole_file

__all__ = ["machine", "markdown", "read_json", "write_json"]

_PACKAGES = ("tensorflow", "keras", "tensorflow-probability", "numpy", "scikit-learn")


def machine():
    """The processor, how many of its cores may be used, and the versions, in a line."""
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else ())
        if line.startswith("model name")
    ]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES]
    return (
        f"{cores or os.cpu_count()} cores of {(names or [platform.processor()])[0]}, "
        f"Python {platform.python_version()}, {', '.join(versions)}"
    )


def markdown(measurements):
    """One row for each question and setting.

    Ours is the median; the others stand beside it as multiples of ours, so that a peer
    of "3.0 x" took three times as long. Ours by the floor is the other way round.

    Args:
        measurements: list of `Measurement`.

    Returns:
        table: markdown.
    """
    lines = [
        "| question | setting | ours | ours / floor | peers, as multiples of ours |",
        "|---|---|---|---|---|",
    ]

    def row_of(measurement):
        return measurement.question, measurement.setting

    for (question, setting), group in itertools.groupby(measurements, row_of):
        group = list(group)
        ours, floors, peers, parts = (
            [m for m in group if m.role == role]
            for role in ("ours", "floor", "peer", "part")
        )
        others = [f"{m.name} {_ratio(m.value / ours[0].value)}" for m in peers]
        others += [f"{m.name} {_amount(m)}" for m in parts]
        floor = [f"{_ratio(ours[0].value / m.value)} ({m.name})" for m in floors]
        cells = question, setting, _amount(ours[0]), ", ".join(floor), "; ".join(others)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_json(path, measured):
    """Writes the machine, and the measurements of each benchmark by its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        name: list(map(dataclasses.asdict, many)) for name, many in measured.items()
    }
    text = json.dumps({"machine": machine(), "benchmarks": rows}, indent=1)
    with whole_file(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def read_json(path):
    """What was written of this machine and these versions: {name: measurements}."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if content.get("machine") != machine():
        return {}
    return {
        name: [Measurement(**row) for row in rows]
        for name, rows in content["benchmarks"].items()
    }


def _ratio(number):
    return f"{number:.3g} x" if number < 100 else f"{number:,.0f} x"


def _amount(measurement):
    value, unit = measurement.value, measurement.unit
    if unit == "s" and value < 1:
        value, unit = 1000 * value, "ms"
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
