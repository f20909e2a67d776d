"""Tests for distribution.py: which strategy or devices a model is spread over."""

from unittest import mock

import keras
import pytest
import tensorflow as tf

from tf_pseudofeat.core.distribution import (
    batch_multiple,
    check_one_worker,
    model_strategy,
    scope_of,
    spans_workers,
    undistributed,
)


def tiny_model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="tiny")


@pytest.mark.tensorflow(reason="tf.distribute")
def test_a_model_keeps_the_strategy_that_it_was_created_under():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = tiny_model()
    assert model_strategy(model) is strategy
    with scope_of(model):
        assert tf.distribute.get_strategy() is strategy
    assert not spans_workers(model)
    check_one_worker(model)


def test_the_default_strategy_is_none():
    model = tiny_model()
    assert model_strategy(model) is None
    with scope_of(model):
        assert not tf.distribute.has_strategy()


def of_cluster(jobs):
    """A model under a strategy of a cluster; a real one would wait for its workers."""
    strategy = mock.Mock(spec=tf.distribute.MultiWorkerMirroredStrategy)
    strategy.cluster_resolver.cluster_spec().as_dict.return_value = jobs
    return mock.Mock(distribute_strategy=strategy)


@pytest.mark.parametrize(
    ("jobs", "several"),
    [
        ({}, False),
        ({"worker": ["a:1"]}, False),
        ({"chief": ["a:1"], "ps": ["b:1"]}, False),
        ({"worker": ["a:1", "b:1"]}, True),
        ({"chief": ["a:1"], "worker": ["b:1"]}, True),
    ],
)
def test_several_workers_are_counted_in_the_cluster(jobs, several):
    model = of_cluster(jobs)
    model.name = "shared"
    assert spans_workers(model) == several
    if several:
        with pytest.raises(ValueError, match="'shared' was created under.*a copy"):
            check_one_worker(model)


def test_batches_are_a_multiple_of_the_devices_and_of_one_without_them():
    assert batch_multiple() == 1
    mesh = mock.Mock(shape=(2, 4), axis_names=["model", "batch"])
    spread = mock.Mock(device_mesh=mesh, batch_dim_name="batch")
    with mock.patch("keras.distribution.distribution", lambda: spread):
        assert batch_multiple() == 4


def test_a_distribution_is_set_again_after_an_error():
    spread = object()
    received = []
    with (
        mock.patch("keras.distribution.distribution", lambda: spread),
        mock.patch("keras.distribution.set_distribution", received.append),
        pytest.raises(KeyboardInterrupt),
        undistributed(),
    ):
        raise KeyboardInterrupt
    assert received == [None, spread]
