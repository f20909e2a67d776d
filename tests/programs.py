"""Runs programs as `python -m` does, in a process each, forked from one with imports.

To import Keras and TensorFlow takes longer than most of what tests ask of a program.
TensorFlow itself starts in the fork.
"""

import atexit
import functools
import gc
import json
import os
import pathlib
import runpy
import select
import subprocess
import sys
import tempfile

__all__ = ["run"]

_ROOT = pathlib.Path(__file__).parent.parent
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
_SECONDS = 600


def run(module, *flags):
    """What `python -m module *flags` gives, a `subprocess.CompletedProcess` of text.

    A `module` of "-c" is the code in the first flag, as Python has it.
    """
    with tempfile.TemporaryDirectory() as folder:
        outputs = [pathlib.Path(folder) / name for name in ("stdout", "stderr")]
        request = module, *map(str, flags), *map(str, outputs)
        server = _server()
        print(json.dumps(request), file=server.stdin, flush=True)
        ended, _, _ = select.select([server.stdout], [], [], _SECONDS)
        if not ended:
            server.kill()
            _server.cache_clear()
            raise TimeoutError(f"{module} has not ended in {_SECONDS} s")
        status = int(server.stdout.readline())
        printed = [path.read_text() for path in outputs]
    return subprocess.CompletedProcess(request[:-2], status, *printed)


@functools.cache
def _server():
    """The process that forks: one for all tests of this process."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.programs"],
        cwd=_ROOT,
        env=os.environ | _ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)  # it ends with its input
    return server


def _forked():
    """Returns (module, flags) in a fork of this process for each that is asked for."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            module, *flags, stdout, stderr = json.loads(line)
            for number, path in enumerate([os.devnull, stdout, stderr]):
                mode = os.O_RDWR if path == os.devnull else os.O_WRONLY | os.O_CREAT
                os.dup2(os.open(path, mode), number)
            return module, flags
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
