"""Runs programs as `python -m` does, in a process each, forked from one with imports.

To import Keras and its backend takes longer than most of what tests ask of a program.
The backend itself starts in the fork.
"""

import atexit
import functools
import gc
import json
import os
import pathlib
import runpy
import select
import signal
import subprocess
import sys
import tempfile

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
    set in the process; KERAS_BACKEND before the imports, all else after them.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [pathlib.Path(folder) / name for name in ("stdout", "stderr")]
        status = Program(module, *flags, outputs=outputs, **environment).wait()
        printed = [path.read_text() for path in outputs]
    return subprocess.CompletedProcess((module, *map(str, flags)), status, *printed)


class Program:
    """A program that runs; until it has ended no other of its backend is started.

    Args:
        module: as `run` takes it.
        *flags: of the program.
        outputs: paths for stdout and stderr; one for both is written in turn.
        **environment: as `run` takes it.

    Attributes:
        pid: its process id.
    """

    def __init__(self, module, *flags, outputs, **environment):
        import keras  # Here, as the process that forks has a backend of its own.

        backend = environment.pop("KERAS_BACKEND", keras.backend.backend())
        self._name, self._server = module, _server(backend)
        request = [module, *map(str, flags)], environment, list(map(str, outputs))
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self.pid, self._status = int(self._server.stdout.readline()), None

    def poll(self):
        """Its exit status, or None where it still runs."""
        return self._status_within(0)

    def wait(self, timeout=_SECONDS):
        """Its exit status, when it has ended."""
        status = self._status_within(timeout)
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._status_within(60)
            raise TimeoutError(f"{self._name} has not ended in {timeout} s")
        return status

    def send_signal(self, sent):
        """Sends a signal, unless it is known to have ended."""
        if self.poll() is None:
            os.kill(self.pid, sent)

    def _status_within(self, seconds):
        answers = self._server.stdout
        if self._status is None and select.select([answers], [], [], seconds)[0]:
            self._status = int(answers.readline())
        return self._status


@functools.cache
def _server(backend):
    """The process that forks: one of each backend for all tests of this process."""
    chosen = {"KERAS_BACKEND": backend}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.programs"],
        cwd=ROOT,
        env=os.environ | _ENVIRONMENT | chosen,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # else `select` would not see a line that was read with another
    )
    atexit.register(server.communicate)  # it ends with its input
    return server


def _forked():
    """Returns (module, flags) in a fork of this process for each that is asked for."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            (module, *flags), environment, outputs = json.loads(line)
            os.environ.update(environment)
            for number, path in enumerate([os.devnull, outputs[0], outputs[-1]]):
                new = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                mode = os.O_RDWR if path == os.devnull else new
                os.dup2(os.open(path, mode), number)
            sys.stdout.reconfigure(write_through=True)
            return module, flags
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    sys.exit()


if __name__ == "__main__":
    import tf_pseudofeat  # noqa: F401

    gc.freeze()  # else a fork copies most of it as it ends, to look for garbage
    module, sys.argv[1:] = _forked()
    if module == "-c":
        exec(sys.argv.pop(1), {"__name__": "__main__"})
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
