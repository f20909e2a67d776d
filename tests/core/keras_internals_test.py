"""Tests for keras_internals.py: Keras still has what is read of its objects."""

import keras
import numpy as np

from tf_pseudofeat.core.keras_internals import (
    copy_decay_exclusions,
    kept_with,
    mask,
    metric_falls,
)


def test_the_direction_of_a_metric_is_known():
    falling, rising = keras.metrics.MeanSquaredError(), keras.metrics.AUC()
    falling.reset_state(), rising.reset_state()
    assert metric_falls(falling) and not metric_falls(rising)
    assert metric_falls(keras.metrics.FalseNegatives())
    assert metric_falls(keras.metrics.FalsePositives())
    assert not metric_falls(keras.metrics.TruePositives())


def test_what_one_optimizer_leaves_undecayed_another_does_too():
    decayed = []
    for copies in (False, True):
        bias = keras.Variable(np.ones(2, "float32"), name="bias")
        first, second = (keras.optimizers.SGD(1.0, weight_decay=0.5) for _ in range(2))
        first.exclude_from_weight_decay(var_names=["bias"])
        if copies:
            assert copy_decay_exclusions(second, like=first) is second
        second.build([bias])
        second.apply([keras.ops.zeros(2)])
        decayed.append(keras.ops.convert_to_numpy(bias).tolist())
    assert decayed == [[0.5, 0.5], [1.0, 1.0]]


def test_mask_travels_with_a_tensor():
    words = keras.Input((5,), dtype="int32")
    assert mask(keras.layers.Embedding(7, 3, mask_zero=True)(words)) is not None
    assert mask(keras.layers.Embedding(7, 3)(words)) is None


def test_what_is_kept_with_a_model_is_of_the_same_objects():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    first = kept_with(model, "_kept", [model, first_of := object()], object)
    assert kept_with(model, "_kept", [model, first_of], object) is first
    assert kept_with(model, "_kept", [model, object()], object) is not first
    again = kept_with(model, "_kept", [model, first_of], object)
    assert kept_with(model, "_kept", [model, first_of], object, anew=True) is not again
