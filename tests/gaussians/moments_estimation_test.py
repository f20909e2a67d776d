"""Tests for moments_estimation.py: features of any form, at once or in batches."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tests.moments_data import (
    NUM_CLASSES,
    assert_same,
    chunks,
    every_kind,
    make_data,
    naive,
)
from tf_pseudofeat.gaussians.moments_estimation import moments_of, moments_of_batches


@every_kind
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "int32", "uint8"])
def test_features_of_any_dtype_count_at_full_precision(kind, dtype):
    features, labels = make_data(mean=9.0)
    features = features.astype(dtype)
    moments = moments_of(features, labels, NUM_CLASSES, kind)
    assert_same(moments, naive(features, labels, kind))


@every_kind
@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3), (3, 2, 1, 1)])
def test_feature_maps_are_flattened(kind, shape):
    features, labels = make_data(features=6)
    maps = features.reshape(-1, *shape)
    moments = moments_of(maps, labels, NUM_CLASSES, kind)
    assert_same(moments, moments_of(features, labels, NUM_CLASSES, kind), rtol=0)


@every_kind
def test_the_form_of_the_labels_makes_no_difference(kind):
    features, labels = make_data()
    expected = moments_of(features, labels, NUM_CLASSES, kind)
    for form in (labels[:, np.newaxis], np.eye(NUM_CLASSES)[labels]):
        assert_same(moments_of(features, form, NUM_CLASSES, kind), expected, rtol=0)


def test_what_came_in_is_not_changed():
    features, labels = make_data(dtype="float64")
    before = features.copy(), labels.copy()
    moments_of(features, labels, NUM_CLASSES)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(labels, before[1])


@every_kind
@pytest.mark.parametrize("batch_size", [1, 13, 60, 1000])
def test_a_stream_gives_the_moments_of_the_whole(kind, batch_size):
    features, labels = make_data(mean=100.0)
    dataset = tf.data.Dataset.from_tensor_slices((features, labels))
    moments = moments_of_batches(dataset.batch(batch_size), NUM_CLASSES, kind)
    assert_same(moments, naive(features, labels, kind))


@every_kind
def test_a_long_stream_is_read_once_in_pieces(kind):
    features, labels = make_data(50_000, features=3, mean=100.0)
    batches = iter(chunks(features, labels, [333] * 140))  # a second pass finds nothing
    moments = moments_of_batches(batches, NUM_CLASSES, kind)
    assert_same(moments, moments_of(features.astype("float64"), labels, 5, kind))
    assert next(batches, None) is None


def test_a_stream_may_carry_weights_and_feature_maps_in_half_precision():
    features, labels = make_data(features=6)
    maps = tf.cast(features.reshape(-1, 2, 3), tf.bfloat16)
    one_hot = tf.one_hot(labels, NUM_CLASSES)
    dataset = tf.data.Dataset.from_tensor_slices((maps, one_hot, tf.ones(60)))
    moments = moments_of_batches(dataset.batch(8), NUM_CLASSES)
    assert_same(moments, naive(maps.numpy(), labels, "full"))


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((3, 2)), [0, 1], r"features of shape \(3, 2\) and 2 labels"),
        (np.ones(3), [0, 1, 1], r"features of shape \(3,\) and 3 labels"),
        (np.ones((0, 2)), [], r"features of shape \(0, 2\) and 0 labels"),
        (np.ones((2, 2)), [0, 2], r"class ids 0 to 1; example 1 has label 2"),
        (np.ones((2, 2)), np.eye(3)[:2], r"3 wide, but there are 2 classes"),
    ],
)
def test_features_and_labels_must_fit(features, labels, message):
    with pytest.raises(ValueError, match=message):
        moments_of(features, labels, 2)


@pytest.mark.parametrize("kind", ["spherical", None])
def test_an_unknown_kind_raises(kind):
    with pytest.raises(ValueError, match=rf"`kind` must be one of .*received {kind!r}"):
        moments_of([[1.0]], [0], 1, kind)


def test_an_empty_stream_raises():
    with pytest.raises(ValueError, match=r"The stream of features is empty"):
        moments_of_batches(iter([]), 2)


def test_deviations_too_small_for_a_sketch_are_none():
    features = np.array([[1e-60, 0.0], [0.0, 1.0], [0.0, 0.0], [1e-60, 0.0]])
    sketch = moments_of(features, np.zeros(4, int), 1, "low_rank").sketch[0]
    np.testing.assert_allclose(sketch.T @ sketch, [[0, 0], [0, 0.75]], atol=1e-7)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "low_rank"])
@pytest.mark.parametrize("in_one_buffer", [True, False])
def test_batches_of_two_shapes_are_told(kind, in_one_buffer, monkeypatch):
    if not in_one_buffer:
        monkeypatch.setattr(f"{moments_of.__module__}._BUFFER_ROWS", 1)
        monkeypatch.setattr(f"{moments_of.__module__}._BUFFER_ROWS_PER_CLASS", 0)
    batches = [(np.ones((4, 3)), np.zeros(4, int)), (np.ones((4, 2)), np.ones(4, int))]
    with pytest.raises(ValueError, match="must have features of one"):
        moments_of_batches(batches, 2, kind)
