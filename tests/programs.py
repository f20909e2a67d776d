"""Runs programs as `python -m` does, in a process each, forked from one with imports.

To import Keras and its backend takes longer than most of what tests ask of a program.
The backend itself starts in the fork.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pathlib
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time

from tests.paths import ROOT

__all__ = ["Program", "run"]

_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # they take longer than a few steps
}
_SECONDS = 600


def run(module, *flags, **environment):
    """What `python -m module *flags` gives, a `subprocess.CompletedProcess` of text.

    A `module` of "-c" is the code in the first flag, as Python has it. `environment` is
    set in the process; KERAS_BACKEND before the imports, all else after them. It may
    have `imports`, too, see `Program`.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [pathlib.Path(folder) / name for name in ("stdout", "stderr")]
        status = Program(module, *flags, outputs=outputs, **environment).wait()
        printed = [path.read_text() for path in outputs]
    return subprocess.CompletedProcess((module, *map(str, flags)), status, *printed)


class Program:
    """A program that runs.

    Args:
        module: as `run` takes it.
        *flags: of the program.
        outputs: paths for stdout and stderr; one for both is written in turn.
        imports: module that the process it is forked from has imported.
        **environment: as `run` takes it.

    Attributes:
        pid: its process id.
        parent: that of the process it is forked from.
    """

    def __init__(self, module, *flags, outputs, imports="tf_pseudofeat", **environment):
        import keras  # Here, as the process that forks has a backend of its own.

        backend = environment.pop("KERAS_BACKEND", keras.backend.backend())
        self._name, self._parent = module, _parent(backend, imports)
        request = [module, *map(str, flags)], environment, list(map(str, outputs))
        self.pid, self.parent = self._parent.forked(request), self._parent.pid

    def poll(self):
        """Its exit status, or None where it still runs."""
        return self._parent.status_within(0, self.pid)

    def wait(self, timeout=_SECONDS):
        """Its exit status, when it has ended."""
        status = self._parent.status_within(timeout, self.pid)
        if status is None:
            self.kill()
            raise TimeoutError(f"{self._name} has not ended in {timeout} s")
        return status

    def send_signal(self, sent):
        """Sends a signal, unless it is known to have ended."""
        if self.poll() is None:
            os.kill(self.pid, sent)

    def kill(self):
        """Ends it, if it has not ended."""
        self.send_signal(signal.SIGKILL)
        self._parent.status_within(60, self.pid)


class _Parent:
    """The process that forks, with a line for each fork and for each end of one."""

    def __init__(self, backend, imports):
        chosen = {"KERAS_BACKEND": backend}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.programs", imports],
            cwd=ROOT,
            env=os.environ | _ENVIRONMENT | chosen,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # else `select` would not see a line that was read with another
        )
        self.pid, self._ends, self._lock = self._process.pid, {}, threading.Lock()
        atexit.register(self._process.communicate)  # it ends with its input

    def forked(self, request):
        """The process id of a program."""
        with self._lock:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            while (word := self._word())[0] != "forked":
                self._note(word)
            return int(word[1])

    def status_within(self, seconds, pid):
        """The exit status of a program, or None if it has not ended by then."""
        until = time.monotonic() + seconds
        while pid not in self._ends:
            left = max(0, until - time.monotonic())
            with self._lock:  # of threads that wait, one reads
                if select.select([self._process.stdout], [], [], min(left, 0.1))[0]:
                    self._note(self._word())
            if pid not in self._ends and not left:
                return None
        return self._ends[pid]

    def _word(self):
        return self._process.stdout.readline().decode().split()

    def _note(self, word):
        _, pid, status = word
        self._ends[int(pid)] = int(status)


_parent = functools.cache(_Parent)  # one of each kind for all tests of this process


def _forked():
    """Returns (module, flags) in a fork of this process for each that is asked for."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        if woken in select.select([0, woken], [], [])[0]:
            os.read(woken, 1)
            _say_who_ended()
            continue
        line = _line()
        if not line:
            sys.exit()
        child = os.fork()
        if not child:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(woken)
            os.close(wake)
            return _begun(*json.loads(line))
        print("forked", child, flush=True)


def _line():
    """A line of stdin, of which no more is read: `select` would not see the rest."""
    line = b""
    while not line.endswith(b"\n") and (read := os.read(0, 1)):
        line += read
    return line


def _say_who_ended():
    with contextlib.suppress(ChildProcessError):
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                break
            print("ended", child, os.waitstatus_to_exitcode(status), flush=True)


def _begun(words, environment, outputs):
    """Returns (module, flags) in the process that shall run it."""
    os.environ.update(environment)
    for number, path in enumerate([os.devnull, outputs[0], outputs[-1]]):
        new = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        mode = os.O_RDWR if path == os.devnull else new
        os.dup2(os.open(path, mode), number)
    sys.stdout.reconfigure(write_through=True)
    module, *flags = words
    return module, flags


if __name__ == "__main__":
    importlib.import_module(sys.argv[1])
    gc.freeze()  # else a fork copies most of it as it ends, to look for garbage
    module, sys.argv[1:] = _forked()
    if module == "-c":
        exec(sys.argv.pop(1), {"__name__": "__main__"})
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
