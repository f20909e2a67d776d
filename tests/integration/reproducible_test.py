"""One seed, one machine, the same bits: in other processes, modes and thread pools.

`python -m tests.retraining_digests --compare` shows what does change them.
"""

import contextlib
import importlib
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.retraining_digests import (
    OPTIONS,
    digest,
    imbalanced_digits,
    of_process,
    retrained,
    small_model,
    stages,
)
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.sampling.interleave import interleave

# The package shows the function by this name, so the module is asked for by name.
interleave_module = importlib.import_module("tf_pseudofeat.sampling.interleave")

ALL_THAT_DRAWS = "all that draws"


@contextlib.contextmanager
def functions_run_eagerly():
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def stir():
    """Leaves the generators that others share in another state."""
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    keras.random.normal((3,))


# Processes.


@pytest.mark.slow
def test_another_process_finds_the_same_bits():
    mine = stages([ALL_THAT_DRAWS], epochs=1)
    environment = {"PYTHONHASHSEED": "7", "TF_NUM_INTEROP_THREADS": "1"}
    assert of_process(environment, [ALL_THAT_DRAWS], epochs=1) == mine
    assert len(mine) == 23


@pytest.mark.slow
def test_another_process_finds_the_same_bits_with_every_option():
    plain, *others = (of_process({"PYTHONHASHSEED": n}) for n in ("0", "1", "random"))
    assert others == [plain, plain]
    assert plain.keys() >= {f"retrain_head, {name}" for name in OPTIONS}


# In one process.


def test_a_retraining_follows_from_its_seed_and_from_no_other_state():
    model, data = small_model(), imbalanced_digits()
    first = retrained(model, data, OPTIONS[ALL_THAT_DRAWS], epochs=1)
    stir()
    assert retrained(model, data, OPTIONS[ALL_THAT_DRAWS], epochs=1) == first
    other = retrained(model, data, OPTIONS[ALL_THAT_DRAWS], (1, 3), epochs=1)
    assert other != first


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_follows_from_its_seed_and_from_no_other_state(name):
    model, data = small_model(), imbalanced_digits()
    seeds = [(1, 2), (1, 2), (1, 3), (2, 2), (2, 1)]
    found = []
    for seed in seeds:
        stir()
        found.append(retrained(model, data, OPTIONS[name], seed))
    assert found[0] == found[1]
    assert len(set(found)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_is_the_same_where_functions_run_eagerly(name):
    model, data = small_model(), imbalanced_digits()
    expected = retrained(model, data, OPTIONS[name], epochs=1)
    with functions_run_eagerly():
        assert retrained(model, data, OPTIONS[name], epochs=1) == expected


# The stream.


def stream_of(seed=(1, 2), fresh=True):
    """Of 60 real and 3,000 drawn rows."""
    gaussian = ClassConditionalGaussian(3)
    gaussian.build((None, 4))
    real = np.arange(240, dtype="float32").reshape(60, 4)
    counts = {0: 1000, 1: 1000, 2: 1000}
    return interleave(
        real, np.arange(60) % 3, gaussian, counts, 64, seed, fresh_each_epoch=fresh
    )


def bits(stream):
    """Of two epochs."""
    return digest(*(x.numpy() for batch in stream.repeat(2) for x in batch))


@pytest.mark.parametrize("fresh", [True, False])
def test_a_stream_is_the_same_in_thread_pools_of_any_size(fresh, monkeypatch):
    monkeypatch.setattr(interleave_module, "_CHUNK_ROWS", 256)
    expected = bits(stream_of(fresh=fresh))
    for threads in (1, 2, 8):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        options.threading.max_intra_op_parallelism = threads
        assert bits(stream_of(fresh=fresh).with_options(options)) == expected
    one_by_one = tf.data.Options()
    one_by_one.autotune.enabled = False
    one_by_one.experimental_optimization.map_parallelization = False
    assert bits(stream_of(fresh=fresh).with_options(one_by_one)) == expected
    assert bits(stream_of((1, 3), fresh)) != expected


@pytest.mark.parametrize("fresh", [True, False])
def test_a_stream_is_the_same_where_functions_run_eagerly(fresh):
    expected = bits(stream_of(fresh=fresh))
    with functions_run_eagerly():
        assert bits(stream_of(fresh=fresh)) == expected


@pytest.mark.parametrize("fresh", [True, False])
def test_a_stream_is_the_same_where_a_graph_reads_it(fresh):
    def total_of(stream):
        total = tf.zeros([4])
        for features, _ in stream:
            total += tf.reduce_sum(features, axis=0)
        return total

    in_graph = tf.function(total_of)(stream_of(fresh=fresh))
    np.testing.assert_array_equal(in_graph, total_of(stream_of(fresh=fresh)))


def test_the_global_seed_of_tensorflow_counts_as_interleave_says():
    found = []
    try:
        for global_seed in (3, 3, 4):
            tf.random.set_seed(global_seed)
            found.append(bits(stream_of()))
    finally:
        tf.random.set_seed(None)
    assert found[0] == found[1]
    assert len({*found, bits(stream_of())}) == 3
