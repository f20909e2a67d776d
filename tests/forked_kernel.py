"""Kernels of notebooks in forks of a process that has the imports, see `programs`."""

import contextlib
import functools
import os
import time
from unittest import mock

from tests.programs import Program

__all__ = ["forked_kernels"]

_LAUNCH_KERNEL = "jupyter_client.provisioning.local_provisioner.launch_kernel"
# A group of its own, which is what ends with a kernel. Keras has imported Matplotlib,
# so that the backend which ipykernel puts into the environment comes too late.
_KERNEL = """
import os, sys
os.setsid()
os.chdir(sys.argv.pop(1))
if "matplotlib" in sys.modules:
    inline = "module://matplotlib_inline.backend_inline"
    sys.modules["matplotlib"].rcParams["backend"] = inline
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""


class _Process(Program):
    """A `Program` as `subprocess.Popen`, with what a kernel's manager calls."""

    stdin = stdout = stderr = None


def _launch(log, command, *, cwd, **settings):
    """`launch_kernel` of jupyter_client for `python -m ipykernel_launcher FLAGS`."""
    _, _, module, *flags = command
    assert module == "ipykernel_launcher", command
    process = _Process("-c", _KERNEL, cwd, *flags, outputs=[log])
    end = time.monotonic() + 60
    while os.getpgid(process.pid) != process.pid:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, "the kernel has no group of its own"
        time.sleep(0.01)
    return process


@contextlib.contextmanager
def forked_kernels(log):
    """Where a manager launches kernels here, they are forks.

    Args:
        log: `pathlib.Path` for what they print themselves.
    """
    launch = functools.partial(_launch, log)
    with mock.patch(_LAUNCH_KERNEL, launch):
        yield
