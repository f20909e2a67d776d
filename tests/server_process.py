"""Starts `examples.serve` as a process of its own, for the tests that ask it.

The process has TensorFlow, and neither Keras nor tf_pseudofeat.
"""

import contextlib
import http.client
import json
import pathlib
import re
import signal
import time

from tests import programs

__all__ = ["Server", "running_server", "wait_until"]


class Server:
    """A server that runs.

    Args:
        process: `tests.programs.Program` of it.
        log: file of all that it printed.
    """

    def __init__(self, process, log):
        self.process, self._log = process, log
        wait_until(lambda: "REST and page at" in self.log() or process.poll(), 120)
        assert process.poll() is None, self.log()
        self.http = re.search(r"at http://(\S+)", self.log())[1]
        self.grpc = re.search(r"gRPC at (\S+)", self.log())[1]

    def log(self):
        return self._log.read_text()

    def ask(self, path, body=None, method=None):
        """(status, answer) to a request, on a connection of its own."""
        connection = http.client.HTTPConnection(self.http, timeout=60)
        with contextlib.closing(connection):
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
            method = method or ("GET" if body is None else "POST")
            connection.request(method, path, body)
            response = connection.getresponse()
            content = response.read().decode()
            if "json" in response.headers["Content-Type"]:
                content = json.loads(content)
            return response.status, content

    def stop(self):
        """Its exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextlib.contextmanager
def running_server(log, models, *flags):
    """A `Server` on free ports, ended with the block.

    Args:
        log: path of a file for what it prints.
        models: {name: folder}.
        *flags: more of them.
    """
    command = ["--port=0", "--grpc_port=0"]
    command += [f"--model={name}={folder}" for name, folder in models.items()]
    pathlib.Path(log).write_bytes(b"")
    process = programs.Program(
        "examples.serve",
        *(*command, *flags),
        outputs=[log],
        imports="tests.serving_imports",
    )
    try:
        yield Server(process, pathlib.Path(log))
    finally:
        process.kill()


def wait_until(condition, seconds):
    """Looks until the condition holds, and fails if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.05)
