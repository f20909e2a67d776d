"""Tests for matrix_workers.py: the same on any number of cores; BLAS is as it was."""

import multiprocessing
import threading
import time

import numpy as np
import pytest
import threadpoolctl

import tf_pseudofeat as tfpf
from tf_pseudofeat.core import matrix_workers as workers_module
from tf_pseudofeat.core.matrix_workers import matrix_workers
from tf_pseudofeat.gaussians.covariance_types import as_scale

WORTH_IT = 1e12
SECONDS = 30


def blas_threads():
    pools = threadpoolctl.threadpool_info()
    return {pool["num_threads"] for pool in pools if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def several():
    """The threads of BLAS before and after every test."""
    before = blas_threads()
    if before <= {1}:
        pytest.skip("BLAS has one thread here anyway.")
    yield before
    assert blas_threads() == before


@pytest.fixture
def cores(monkeypatch):
    """Sets the number of cores, and lets threads have the smallest matrices."""

    def to(number):
        monkeypatch.setattr(workers_module, "_threads_of_blas", lambda: number)
        monkeypatch.setattr(workers_module, "_WORTH_A_THREAD", 0)

    return to


def test_results_come_in_order_from_several_threads_with_one_blas_thread(cores):
    cores(3)
    together = threading.Barrier(3)

    def square(number):
        together.wait(SECONDS)  # passes only if three run at a time
        return number**2, threading.get_ident(), blas_threads()

    with matrix_workers(9, WORTH_IT) as map_in_order:
        squares, threads, limits = zip(*map_in_order(square, range(9)), strict=True)
    assert list(squares) == [number**2 for number in range(9)]
    assert len(set(threads)) == 3
    assert limits == ({1},) * 9


def test_few_results_are_ahead(cores):
    cores(2)
    begun = []
    with matrix_workers(100, WORTH_IT) as map_in_order:
        results = map_in_order(begun.append, range(100))
        next(results)
    assert len(begun) <= 2 * 2 + 1


@pytest.mark.parametrize(("number", "flops"), [(1, WORTH_IT), (9, 0)])
def test_what_threads_would_not_speed_up_stays_in_the_thread(number, flops):
    with matrix_workers(number, flops) as map_in_order:
        threads = list(map_in_order(lambda _: threading.get_ident(), range(number)))
        assert blas_threads() == {1}
    assert set(threads) == {threading.get_ident()}


@pytest.mark.parametrize("place", ["function", "items", "loop"])
def test_blas_is_given_back_after_a_failure(place, cores, several):
    cores(2)

    def fails(where):
        if where == place:
            raise ValueError(where)

    def items():
        yield 1
        yield fails("items")

    def loop():
        with matrix_workers(2, WORTH_IT) as map_in_order:
            for _ in map_in_order(lambda _: fails("function"), items()):
                fails("loop")

    with pytest.raises(ValueError, match=place):
        loop()
    assert blas_threads() == several


def test_callers_in_several_threads_leave_blas_as_it_was(several):
    inside, seen = threading.Event(), []

    def first():
        with matrix_workers(2, 0):
            inside.set()
            time.sleep(0.1)  # the other caller waits for this
            seen.append(("first", blas_threads()))

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(SECONDS)
    with matrix_workers(2, 0), matrix_workers(2, 0):
        seen.append(("second", blas_threads()))
    thread.join(SECONDS)
    assert seen == [("first", {1}), ("second", {1})]
    assert blas_threads() == several


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "low_rank"])
def test_a_fit_is_the_same_to_the_bit_on_any_number_of_cores(covariance_type, cores):
    rng = np.random.default_rng(3)
    features = rng.normal(size=(9000, 40)).astype("float32")
    labels = np.repeat([0, 1, 2, 4], [5000, 3000, 900, 100])  # none of class 3
    fits = []
    for number in (1, 2, 5):
        cores(number)
        gaussian = tfpf.ClassConditionalGaussian(5, covariance_type)
        gaussian.adapt(features, labels)
        fits.append([*gaussian.get_weights(), str(gaussian.report)])
    for other in fits[1:]:
        for expected, received in zip(fits[0], other, strict=True):
            np.testing.assert_array_equal(received, expected)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_an_overflow_is_an_error_and_no_warning_in_threads_too(covariance_type, cores):
    cores(2)
    features = np.random.default_rng(3).normal(size=(9000, 4)).astype("float32")
    gaussian = tfpf.ClassConditionalGaussian(2, covariance_type)
    with pytest.raises(ValueError, match="overflow float32"):
        gaussian.adapt(features * np.float32(1e30), np.arange(9000) % 2)


@pytest.mark.parametrize("size", [1, 100, 129, 300])
def test_a_factor_is_inverted_to_the_precision_of_its_inverse(size):
    rng = np.random.default_rng(size)
    factor = np.linalg.cholesky(
        np.cov(rng.normal(size=(4 * size, size)).T, ddof=0) + 1e-3 * np.eye(size)
    )
    loc = rng.normal(size=(1, size))
    whitening, whitened = as_scale(factor[np.newaxis]).whiten(loc)
    expected = np.linalg.inv(factor)
    np.testing.assert_allclose(whitening[0], expected, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(whitened[0], expected @ loc[0], rtol=1e-9, atol=1e-9)


def test_there_are_as_many_threads_as_blas_was_given():
    limited = threadpoolctl.threadpool_limits(1, "blas")
    with limited, matrix_workers(4, WORTH_IT) as map_in_order:
        threads = {*map_in_order(lambda _: threading.get_ident(), range(4))}
    assert threads == {threading.get_ident()}


def _first_fit_of_a_child(connection):
    features = np.arange(40.0).reshape(20, 2)
    moments = tfpf.moments_of(features, np.arange(20) % 2, 2, "diag")
    connection.send((moments.count.tolist(), blas_threads()))


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork, of several threads
def test_a_child_that_is_forked_from_a_fit_can_fit(several):
    fork = multiprocessing.get_context("fork")
    inside, may_end = threading.Event(), threading.Event()

    def fitting():
        with matrix_workers(2, 0):
            inside.set()
            may_end.wait(SECONDS)

    thread = threading.Thread(target=fitting)
    thread.start()
    assert inside.wait(SECONDS)
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=_first_fit_of_a_child, args=(sender,))
    child.start()
    answered = receiver.poll(SECONDS)
    may_end.set()
    thread.join(SECONDS)
    child.kill() if not answered else child.join(SECONDS)
    assert answered, "the child waits for a thread that it does not have"
    assert receiver.recv() == ([10, 10], several)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "low_rank"])
def test_what_numpy_does_of_an_overflow_stays_as_it_was(covariance_type, cores):
    cores(2)
    features = np.random.default_rng(3).normal(size=(9000, 4)).astype("float32")
    with np.errstate(over="raise", invalid="raise"):
        before = np.geterr()
        gaussian = tfpf.ClassConditionalGaussian(2, covariance_type)
        gaussian.adapt(features, np.arange(9000) % 2)
        assert np.geterr() == before
