"""Time and memory of things that do the same job, taken in turns.

Contenders are run one after the other, round after round, so that a machine that slows
down slows all of them. The first round warms up and is thrown away.
"""

import contextlib
import dataclasses
import gc
import multiprocessing
import pathlib
import resource
import statistics
import subprocess
import sys
import time

__all__ = [
    "Contender",
    "Measurement",
    "measurement",
    "one_core_busy",
    "peak_memory",
    "race",
    "run_once",
]

_SPIN = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"

# Seconds before each run, in which the idle threads of the last one go to sleep.
_PAUSE = 0.1


@dataclasses.dataclass(frozen=True)
class Contender:
    """Something that does the job.

    Attributes:
        name: as the table has it.
        run: a function of no arguments; it returns when the work is done.
        role: "ours", "peer", "floor" for the least work that anyone must do, or "part"
            for a share of ours.
    """

    name: str
    run: object
    role: str = "peer"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one contender needed in one setting.

    Attributes:
        question: what was asked, the same for all settings of one benchmark.
        setting: sizes, such as "50,000 x 64".
        name: of the contender.
        role: see `Contender`.
        value: the median of the runs.
        unit: "s" or "MiB".
        low: the smallest of the runs.
        high: the largest of them.
        runs: how many they were.
    """

    question: str
    setting: str
    name: str
    role: str
    value: float
    unit: str
    low: float
    high: float
    runs: int


def race(question, setting, contenders, *, rounds=7, seconds=20.0):
    """Seconds that each contender needs, in turns.

    Args:
        question: see `Measurement`.
        setting: see `Measurement`.
        contenders: list of `Contender`.
        rounds: runs of each, after one to warm up.
        seconds: a contender that has run for as long drops out; one whose first run
            took half of it is not run again, and that run counts.

    Returns:
        measurements: one for each contender, in their order.
    """
    taken = {contender.name: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            runs = taken[contender.name]
            if number > 1 and sum(runs) > seconds:
                continue
            if number == 1 and runs[0] < seconds / 2:
                runs.clear()  # that was to warm up
            elif number == 1:
                continue
            gc.collect()
            time.sleep(_PAUSE)
            start = time.perf_counter()
            contender.run()
            runs.append(time.perf_counter() - start)
    return [
        measurement(question, setting, contender, taken[contender.name])
        for contender in contenders
    ]


@contextlib.contextmanager
def one_core_busy():
    """Another process keeps one core busy, as on a machine that is shared."""
    with subprocess.Popen([sys.executable, "-c", _SPIN]) as process:
        try:
            yield
        finally:
            process.kill()


def peak_memory(question, setting, contenders):
    """Memory at its peak, in MiB, above what was there before the run.

    Each contender runs in a process of its own, since memory that was freed may stay
    with a process.

    Args:
        question: see `Measurement`.
        setting: see `Measurement`.
        contenders: list of `Contender`. Their `run` goes to another process, so it is
            a function of a module (or a `functools.partial` of one). It first prepares
            what is there before, and returns a function that does the job.

    Returns:
        measurements: one for each contender, in their order.
    """
    spawn = multiprocessing.get_context("spawn")
    measured = []
    for contender in contenders:
        with spawn.Pool(1) as pool:
            _, peak = pool.apply(_seconds_and_peak, (contender.run,))
        measured.append(measurement(question, setting, contender, [peak], "MiB"))
    return measured


def run_once(question, setting, prepare, memory):
    """Seconds and peak memory of one and the same run, for what takes minutes.

    Args:
        question: see `Measurement`.
        setting: see `Measurement`.
        prepare: see `peak_memory`.
        memory: what the table calls the peak.

    Returns:
        measurements: two, of "ours" and of a part of it.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, peak = pool.apply(_seconds_and_peak, (prepare,))
    ours, part = Contender("ours", prepare, "ours"), Contender(memory, prepare, "part")
    return [
        measurement(question, setting, ours, [seconds]),
        measurement(question, setting, part, [peak], "MiB"),
    ]


def measurement(question, setting, contender, runs, unit="s"):
    """The `Measurement` of a contender's runs."""
    return Measurement(
        question=question,
        setting=setting,
        name=contender.name,
        role=contender.role,
        value=statistics.median(runs),
        unit=unit,
        low=min(runs),
        high=max(runs),
        runs=len(runs),
    )


def _seconds_and_peak(prepare):
    job = prepare()
    gc.collect()
    _forget_peak()
    before = _memory("VmRSS")
    start = time.perf_counter()
    job()
    return time.perf_counter() - start, _memory("VmHWM") - before


def _forget_peak():
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def _memory(field):
    """MiB, as Linux counts them."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
