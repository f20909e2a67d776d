"""Kills the main job at many points, starts it again, and counts what was lost.

    python -m tests.kill_the_main_job --kills=50 --seed=0

Every job writes into a folder that has the results of an older one. It is killed at a
random moment of each stage (SIGKILL or SIGINT), or just before a file is moved to its
name (SIGKILL), and started again with the same command until it ends. After each kill
and at the end all that stands under a final name is opened: it must be the old file or
a whole new one. At the end the report is that of a job that nobody killed. Prints a
table, and exits with 1 if anything was lost.
"""

import collections
import dataclasses
import json
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from tests import programs

__all__ = ["Job", "Kill", "run_job"]

FLAGS = flags.FLAGS

_SMALL = ["--depth=8", "--epochs=2", "--num_minority=9", "--imbalance_ratio=50"]
_OLD = b"what an older job wrote"
_FILES = ("trained.keras", "report.json", "report.png")

# What a stage begins with in the output of the job, in order.
STAGES = {
    "start": "",
    "training": "Epoch ",
    "extraction": "Extracting features",
    "retraining": "Training the head on",
    "export": "* minority.",
    "end": "Done.",
}

# The main job in a process that kills itself before a file is moved to its name.
_PROGRAM = """
import os, runpy, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # also in the background
moves_left = int(sys.argv.pop(1))

def mortal(move):
    def moved(source, target):
        global moves_left
        moves_left -= 1
        if moves_left == 0:
            print("\\nKilled before the move to", target, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return move(source, target)
    return moved

os.rename, os.replace = mortal(os.rename), mortal(os.replace)
runpy.run_module("examples.resnet56", run_name="__main__", alter_sys=True)
"""


@dataclasses.dataclass(frozen=True)
class Kill:
    """When to kill a process, and how.

    Attributes:
        stage: one of `STAGES` that must have begun, or None to kill before a move.
        after: seconds after that; or how many moves, from 1.
        sent: the signal, SIGKILL or SIGINT.
    """

    stage: str | None
    after: float
    sent: signal.Signals = signal.SIGKILL


class Job:
    """The main job in a folder with old results, as often as it is started.

    Args:
        folder: empty, for its files.

    Attributes:
        losses: what went wrong, in words.
        kills: the stage of each kill.
    """

    def __init__(self, folder):
        self.folder, self.output = pathlib.Path(folder), ""
        self.losses, self.kills = [], []
        (self.folder / "served" / "1").mkdir(parents=True)
        for name in (*_FILES, "served/1/saved_model.pb"):
            (self.folder / name).write_bytes(_OLD)

    def run(self, kill=None):
        """Starts it; True if it came to its end, False if it was killed."""
        epochs = max(map(_number, self.folder.glob("unfinished-*/epoch-*")), default=0)
        moves = int(kill.after) if kill and kill.stage is None else 0
        log = self.folder / "log.txt"
        log.unlink(missing_ok=True)
        flags = [moves, *_SMALL, f"--output_dir={self.folder}"]
        process = programs.Program("-c", _PROGRAM, *flags, outputs=[log])
        try:
            if kill and kill.stage is not None:
                self._wait_for(STAGES[kill.stage], log, process)
                time.sleep(kill.after)
                process.send_signal(kill.sent)
            status = process.wait(timeout=300)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.output = log.read_text()
        for epoch in re.findall(r"Epoch (\d+)/", self.output):
            if int(epoch) <= epochs:
                self.losses.append(f"epoch {epoch} was trained again")
        if "Done." in self.output and not any(self.folder.glob("finished-*")):
            return True
        if status == 0 or kill is None:
            self.losses.append(f"exit status {status}: {self.output[-2000:]}")
            return True
        self._note(kill)
        return False

    def _wait_for(self, mark, log, process):
        end = time.monotonic() + 300
        while process.poll() is None and (
            not log.exists() or mark not in log.read_text()
        ):
            assert time.monotonic() < end, f"no {mark!r} in {log.read_text()}"
            time.sleep(0.005)

    def _note(self, kill):
        begun = [stage for stage, mark in STAGES.items() if mark in self.output]
        move = re.search(r"Killed before the move to (.*)", self.output)
        if move:
            name = pathlib.Path(move[1]).relative_to(self.folder)
            name = re.sub(r"(?<=finished-)\w{8}|\d+", "*", str(name))
            self.kills.append(f"before the move to {name}")
        else:
            self.kills.append(f"{begun[-1]}, {kill.sent.name}")

    def check(self):
        """Opens all that stands under a final name."""
        for path in [
            *(self.folder / name for name in _FILES),
            *(self.folder / "served").iterdir(),
            *self.folder.glob("unfinished-*/epoch-*.keras"),
            *self.folder.glob("finished-*/*.*"),
        ]:
            try:
                _open(path)
            except Exception as error:
                self.losses.append(f"{path}: {type(error).__name__}: {error}")

    def check_end(self, reference):
        """That all came out, once, as in a job that nobody killed."""
        self.check()
        versions = sorted(os.listdir(self.folder / "served"))
        if versions != ["1", "2", "3"]:
            self.losses.append(f"versions {versions} were served")
        left = sorted({*os.listdir(self.folder)} - {*_FILES, "served", "log.txt"})
        if left:
            self.losses.append(f"left behind: {left}")
        report = self.report()
        if not report or report != (reference or report):
            self.losses.append(f"another report: {report}, not {reference}")

    def report(self):
        """The new report but for the seconds; {} where it is not whole."""
        try:
            report = json.loads((self.folder / "report.json").read_bytes())["report"]
        except ValueError:
            return {}
        del report["seconds"]
        return report


def _number(path):
    return int(re.findall(r"\d+", path.stem)[-1])


def _open(path):
    """Raises an error unless the file, or the version, is the old one or whole."""
    if path.is_dir():
        if (path / "saved_model.pb").read_bytes() == _OLD:
            return
        endpoint = tf.saved_model.load(str(path)).signatures["encoded"]
        image = tf.io.encode_png(np.zeros((8, 8, 1), np.uint8))
        scores = endpoint(image_bytes=image[tf.newaxis])["scores"]
        np.testing.assert_allclose(np.sum(scores), 1, rtol=1e-4)
    elif path.read_bytes() == _OLD:
        return
    elif path.suffix == ".keras":
        keras.models.load_model(path)
    elif path.suffix == ".png":
        tf.io.decode_png(path.read_bytes())
    else:
        report = json.loads(path.read_text())["report"]
        assert len(report["after"]["recall"]) == 10, report


def run_job(folder, kills, reference=None):
    """Starts a job, kills it, and lets it come to its end.

    Args:
        folder: empty, for its files.
        kills: list of `Kill`, one for each start.
        reference: report of a job that nobody killed, or None.

    Returns:
        job: `Job`.
    """
    job, ended = Job(folder), False
    for kill in [*kills, None]:
        ended = job.run(kill)
        job.check()
        if ended:
            break
    job.check_end(reference)
    return job


def plans(seed):
    """Kills of one job after the other: in each stage in turn, or before moves."""
    rng = random.Random(seed)
    signals = [signal.SIGKILL, signal.SIGINT]
    while True:
        moments = [rng.choice([0.0, rng.uniform(0, 3)]) for _ in STAGES]
        yield [
            Kill(stage, moment, rng.choice(signals))
            for stage, moment in zip(STAGES, moments, strict=True)
        ]
        yield [Kill(None, rng.randint(1, 4)) for _ in STAGES]


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    with tempfile.TemporaryDirectory() as folder:
        jobs = [run_job(f"{folder}/0", [])]
        reference, kills = jobs[0].report(), []
        for plan in plans(FLAGS.seed):
            if len(kills) >= FLAGS.kills:
                break
            plan = plan[: FLAGS.kills - len(kills)]
            jobs.append(run_job(f"{folder}/{len(jobs)}", plan, reference))
            kills += jobs[-1].kills
            print(f"job {len(jobs) - 1}: {jobs[-1].kills}", flush=True)
            for loss in jobs[-1].losses:
                print(f"  LOST: {loss}", flush=True)
    losses = [loss for job in jobs for loss in job.losses]
    print(f"\n{'killed in, or before':<52}{'kills':>8}")
    for stage, count in sorted(collections.Counter(kills).items()):
        print(f"{stage:<52}{count:>8}")
    print(f"\n{len(kills)} kills of {len(jobs) - 1} jobs, {len(losses)} losses")
    sys.exit(1 if losses else 0)


if __name__ == "__main__":
    flags.DEFINE_integer("kills", 50, "How many.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the moments.")
    app.run(main)
