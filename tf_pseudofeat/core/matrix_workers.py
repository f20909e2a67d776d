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


# A BLAS has one limit for all threads of a process, so one caller sets it at a time.
_limit_lock = threading.RLock()


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
    with _limit_lock, _one_blas_thread() as limited:
        threads = min(_threads_before(limited), count)
        if threads <= 1 or flops < _WORTH_A_THREAD:
            yield map
            return
        # The BLAS of OpenMP has a limit for each thread.
        pool = concurrent.futures.ThreadPoolExecutor(
            threads, initializer=_one_blas_thread
        )
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


def _one_blas_thread():
    return _controller().limit(limits=1, user_api="blas")


def _threads_before(limited):
    """The threads that BLAS had: as many as there are cores, or as it was given.

    So OPENBLAS_NUM_THREADS and the like count, as does what joblib gives its workers.
    """
    had = limited.get_original_num_threads()["blas"]
    return had or os.cpu_count() or 1  # of a BLAS that threadpoolctl does not know


@functools.cache
def _controller():
    # Finding the libraries takes 2 ms. NumPy's is loaded by now.
    return threadpoolctl.ThreadpoolController()
