"""Rows that workers of a cluster read; one of them is killed half-way."""

import os
import pathlib
import signal
import time

import numpy as np

__all__ = ["NUM_CLASSES", "NUM_PARTS", "read_rows", "rows_of"]

NUM_PARTS, NUM_CLASSES = 8, 4
_PART_ROWS, _KILLED_PART = 40, 3


def rows_of(part):
    """`(images, labels)` of a part."""
    rng = np.random.default_rng(part)
    images = rng.integers(0, 256, (_PART_ROWS, 4, 4, 1), dtype=np.uint8)
    return images, rng.integers(0, NUM_CLASSES, _PART_ROWS)


def read_rows(part, notes, spared):
    """Yields the rows of a part; the first time, one kills the worker that reads it.

    Args:
        part: its number.
        notes: folder that gets a file `PART-PID` for each attempt, where PID is that of
            the worker's first process, and `killed` with the PID that was killed.
        spared: process that started the worker, and lives on.
    """
    processes = _ancestors(spared)
    (pathlib.Path(notes) / f"{part}-{processes[-1]}").touch()
    for number, row in enumerate(zip(*rows_of(part), strict=True)):
        if part == _KILLED_PART and number == _PART_ROWS // 2:
            _kill_once(notes, processes)
        time.sleep(0.005)  # so that no worker is done before the other has begun
        yield row


def _kill_once(notes, processes):
    try:
        with open(pathlib.Path(notes) / "killed", "x", encoding="ascii") as file:
            file.write(str(processes[-1]))
    except FileExistsError:
        return
    for process in reversed(processes):  # the first one could start others anew
        os.kill(process, signal.SIGKILL)


def _ancestors(spared):
    """This process and those above it, up to a spared one; or only this process."""
    processes = [os.getpid()]
    while processes[-1] > 1:
        status = pathlib.Path(f"/proc/{processes[-1]}/stat").read_text("ascii")
        parent = int(status.rpartition(")")[2].split()[1])
        if parent == spared:
            return processes
        processes.append(parent)
    return processes[:1]
