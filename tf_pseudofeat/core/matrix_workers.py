"""Computes many matrices at a time, one on each core.

Threads of a BLAS that share one product wait for each other. Where another program
keeps a core busy, many such products take several times as long as on one thread. So a
product has one thread here, and the threads have a product each.
"""

import collections
import concurrent.futures
import contextlib
import functools
import os
import threading

import threadpoolctl

__all__ = ["matrix_workers"]

# Floating-point operations of an item, about 1 ms, below which threads gain nothing.
_WORTH_A_THREAD = 2**24
# One thread adds up what the others compute, and each of them holds a few matrices.
_MOST_THREADS = 16


@contextlib.contextmanager
def matrix_workers(count, flops):
    """Yields `map_in_order`, which is like `map`, with as many threads as BLAS has.

    BLAS has one thread meanwhile, and as many as before at the end; callers in other
    threads wait. At most two results of each thread are ahead of the one in use.

    The function should spend its time in NumPy, which releases the GIL; SciPy's BLAS
    does not. It should set its own `np.errstate`, which threads do not inherit.

    Args:
        count: number of items, about.
        flops: floating-point operations of one item, about.
    """
    with _blas as had:
        threads = min(had, count, _MOST_THREADS)
        if threads <= 1 or flops < _WORTH_A_THREAD:
            yield map
            return
        # The BLAS of OpenMP has a limit for each thread.
        pool = concurrent.futures.ThreadPoolExecutor(threads, initializer=_limit_blas)
        try:
            yield functools.partial(_map_in_order, pool, 2 * threads)
        finally:
            pool.shutdown(cancel_futures=True)


def _map_in_order(pool, most, function, *iterables):
    running = collections.deque()
    for items in zip(*iterables, strict=True):
        running.append(pool.submit(function, *items))
        if len(running) > most:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


class _OneBlasThread:
    """Context manager that limits BLAS to one thread, and is entered with what it had.

    The limit is the process's, so one caller holds it at a time.
    """

    def __init__(self):
        self._lock, self._limits = threading.RLock(), []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_other_threads)

    def __enter__(self):
        self._lock.acquire()
        try:
            had = _threads_of_blas()
            self._limits.append(_limit_blas().__enter__())
        except BaseException:
            self._lock.release()
            raise
        return had

    def __exit__(self, *exception):
        try:
            self._limits.pop().__exit__(*exception)
        finally:
            self._lock.release()

    def _forget_other_threads(self):
        """Undoes, in a child process, what a thread did that is not there."""
        for limit in reversed(self._limits):
            limit.__exit__(None, None, None)
        self._lock, self._limits = threading.RLock(), []


def _threads_of_blas():
    """As many as there are cores, or as it was given.

    So OPENBLAS_NUM_THREADS and the like count, as does what joblib gives its workers.
    """
    pools = [pool for pool in _controller().info() if pool["user_api"] == "blas"]
    # threadpoolctl does not know every BLAS.
    return min((p["num_threads"] for p in pools), default=os.cpu_count() or 1)


def _limit_blas():
    return _controller().limit(limits=1, user_api="blas")


@functools.cache
def _controller():
    # Finding the libraries takes 2 ms. NumPy's is loaded by now.
    return threadpoolctl.ThreadpoolController()


_blas = _OneBlasThread()
