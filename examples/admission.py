"""How much work a server takes on at a time; what is beyond is refused at once."""

import asyncio
import concurrent.futures
import contextlib
import functools
import threading
import traceback

import tensorflow as tf

__all__ = ["Admission", "one_at_a_time"]

_READING = threading.RLock()


def one_at_a_time(read):
    """Decorates what makes objects of a request, which take up to 90 times its size.

    An error's frames would keep them for as long as there is the error.
    """

    @functools.wraps(read)
    def alone(*arguments):
        with _READING:
            try:
                return read(*arguments)
            except Exception as error:
                below = error
                while below is not None:
                    traceback.clear_frames(below.__traceback__)
                    below = below.__context__
                raise

    return alone


class Admission:
    """Threads that run models, and bounds on the requests that are in the server.

    A request whose client has left is dropped while it waits. While it runs it keeps
    its thread and its share of the bounds, as nothing can end a model's run.

    Args:
        threads: that run models.
        max_requests: running and waiting.
        max_bytes: of all their bodies.
    """

    def __init__(self, threads, max_requests, max_bytes):
        self._pool = concurrent.futures.ThreadPoolExecutor(threads)
        self._slots = asyncio.Semaphore(threads)
        self._free_requests, self._free_bytes = max_requests, max_bytes

    @contextlib.contextmanager
    def admitted(self, size):
        """Holds a place for a request of `size` bytes.

        Raises:
            tf.errors.ResourceExhaustedError: The server is full.
        """
        if self._free_requests < 1 or self._free_bytes < size:
            raise tf.errors.ResourceExhaustedError(
                None, None, "The server is busy with other requests; try again later."
            )
        self._free_requests -= 1
        self._free_bytes -= size
        try:
            yield
        finally:
            self._free_requests += 1
            self._free_bytes += size

    async def run(self, function, *arguments):
        """The result of a function, run in a thread."""
        async with self._slots:  # a wait here, unlike one in the pool, can be cancelled
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._pool, function, *arguments)
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.gather(running, return_exceptions=True)
                raise
            finally:
                del running  # which has the error, which has this frame
