"""Tests for moments.py: against numpy in float64 and a loop over examples."""

import dataclasses
import functools

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.gaussians.moments import ClassMoments, zero_moments
from tf_pseudofeat.gaussians.moments_estimation import moments_of, moments_of_batches
from tf_pseudofeat.gaussians.moments_merge import merge_moments

KINDS = ("full", "tied", "diag", "low_rank")
NUM_CLASSES = 5
every_kind = pytest.mark.parametrize("kind", KINDS)


def make_data(size=60, features=4, dtype="float32", mean=0.0, seed=0):
    """Correlated features of classes 0, 1, 2 and 4; class 3 is empty, 4 has one."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.append(rng.integers(0, 3, size=size - 1), 4))
    x = rng.normal(size=(size, features)) @ rng.normal(size=(features, features))
    x += mean + rng.normal(size=(NUM_CLASSES, features))[labels]
    return x.astype(dtype), labels


def naive(features, labels, kind):
    """The definition, one example at a time, in float64."""
    features = np.asarray(features, np.float64).reshape(len(features), -1)
    size = features.shape[1]
    count = np.zeros(NUM_CLASSES)
    mean = np.zeros((NUM_CLASSES, size))
    scatter = np.zeros((NUM_CLASSES, size, size))
    for label in labels:
        count[label] += 1
    for x, label in zip(features, labels, strict=True):
        mean[label] += x / count[label]
    for x, label in zip(features, labels, strict=True):
        scatter[label] += np.outer(x - mean[label], x - mean[label])
    if kind == "tied":
        scatter = scatter.sum(axis=0)
    if kind in ("diag", "low_rank"):
        scatter = np.diagonal(scatter, axis1=1, axis2=2)
    return ClassMoments(count, mean, scatter, kind)


def assert_same(received, expected, rtol=1e-6):
    """Within `rtol` of the largest deviation, so that zeros are no exception."""
    assert received.kind == expected.kind
    np.testing.assert_array_equal(received.count, expected.count)
    spread = np.sqrt(np.max(expected.scatter) / max(expected.count.sum(), 1))
    np.testing.assert_allclose(
        received.mean, expected.mean, rtol=1e-12, atol=rtol * spread
    )
    np.testing.assert_allclose(
        received.scatter,
        expected.scatter,
        rtol=rtol,
        atol=rtol * expected.scatter.max(),
    )
    for field in ("count", "mean", "scatter"):
        assert getattr(received, field).dtype == np.float64
    if received.kind == "low_rank":  # of as many rows as there are features: exact
        squares = np.square(received.sketch, dtype=np.float64).sum(axis=1)
        np.testing.assert_allclose(
            squares, received.scatter, rtol=1e-5, atol=1e-5 * expected.scatter.max()
        )


def chunks(features, labels, sizes):
    stops = np.cumsum(sizes)
    return list(zip(np.split(features, stops), np.split(labels, stops), strict=True))


# In memory.


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moments_are_what_their_definition_says(kind, dtype):
    features, labels = make_data(dtype=dtype)
    moments = moments_of(features, labels, NUM_CLASSES, kind)
    assert_same(moments, naive(features, labels, kind))
    assert (moments.num_classes, moments.feature_size) == (NUM_CLASSES, 4)


@pytest.mark.parametrize("size", [100, 20_000])  # less than a chunk, several chunks
def test_far_from_the_origin_the_covariance_is_that_of_numpy(size):
    features, labels = make_data(size, mean=1000.0)
    moments = moments_of(features, labels, NUM_CLASSES)
    for class_id in (0, 1, 2):
        rows = features[labels == class_id].astype(np.float64)
        covariance = moments.scatter[class_id] / (len(rows) - 1)
        expected = np.cov(rows, rowvar=False)
        atol = 1e-6 * expected.diagonal().max()
        np.testing.assert_allclose(covariance, expected, rtol=1e-6, atol=atol)
        np.testing.assert_allclose(moments.mean[class_id], rows.mean(0), rtol=1e-12)


@every_kind
def test_an_empty_class_and_a_single_example_have_no_scatter(kind):
    features, labels = make_data()
    moments = moments_of(features, labels, NUM_CLASSES, kind)
    assert moments.count[3] == 0
    assert not moments.mean[3].any()
    np.testing.assert_array_equal(moments.mean[4], features[labels == 4][0])
    if kind != "tied":
        assert not moments.scatter[3].any()
        assert not moments.scatter[4].any()


@every_kind
def test_one_example_of_one_feature_is_enough(kind):
    moments = moments_of([[2.5]], [1], 2, kind)
    np.testing.assert_array_equal(moments.count, [0, 1])
    np.testing.assert_array_equal(moments.mean, [[0], [2.5]])
    assert not moments.scatter.any()


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


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 1000.1])
def test_rows_that_are_all_the_same_have_no_scatter_at_all(kind, dtype, value):
    features, labels = np.full((29, 3), value, dtype), np.zeros(29, int)
    parts = [(features[:5], labels[:5]), (features[5:12], labels[5:12])]
    parts = [moments_of(*part, 1, kind) for part in [*parts, (features, labels)]]
    moments = functools.reduce(merge_moments, parts)
    assert not moments.scatter.any()
    np.testing.assert_array_equal(moments.mean, features[:1])


def test_what_came_in_is_not_changed():
    features, labels = make_data(dtype="float64")
    before = features.copy(), labels.copy()
    moments_of(features, labels, NUM_CLASSES)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(labels, before[1])


# In pieces.


@every_kind
@pytest.mark.parametrize("sizes", [[30], [1] * 59, [7, 0, 20, 1], [0]])
@pytest.mark.parametrize("seed", [0, 1])
def test_pieces_merge_to_the_whole_in_any_order(kind, sizes, seed):
    features, labels = make_data(mean=100.0, dtype="float64")
    parts = [
        moments_of(*chunk, NUM_CLASSES, kind)
        if len(chunk[0])
        else zero_moments(NUM_CLASSES, 4, kind)
        for chunk in chunks(features, labels, sizes)
    ]
    np.random.default_rng(seed).shuffle(parts)
    expected = moments_of(features, labels, NUM_CLASSES, kind)
    assert_same(functools.reduce(merge_moments, parts), expected, rtol=1e-11)


@every_kind
def test_any_grouping_of_a_merge_is_the_same(kind):
    features, labels = make_data(dtype="float64")
    a, b, c = (
        moments_of(*chunk, NUM_CLASSES, kind)
        for chunk in chunks(features, labels, [10, 33])
    )
    assert_same(
        merge_moments(merge_moments(a, b), c),
        merge_moments(a, merge_moments(b, c)),
        rtol=1e-12,
    )
    assert_same(merge_moments(a, b), merge_moments(b, a), rtol=1e-12)


@every_kind
def test_nothing_is_neutral_in_a_merge(kind):
    moments = moments_of(*make_data(), NUM_CLASSES, kind)
    nothing = zero_moments(NUM_CLASSES, 4, kind)
    assert_same(merge_moments(moments, nothing), moments, rtol=0)
    assert_same(merge_moments(nothing, moments), moments, rtol=0)
    assert not merge_moments(nothing, nothing).count.any()


@every_kind
def test_a_merge_leaves_its_parts_alone(kind):
    first = moments_of(*make_data(seed=1), NUM_CLASSES, kind)
    second = moments_of(*make_data(seed=2), NUM_CLASSES, kind)
    before = [dataclasses.astuple(part) for part in (first, second)]
    before = [[np.copy(field) for field in part] for part in before]
    total = merge_moments(first, second)
    for part, fields in zip((first, second), before, strict=True):
        for now, then in zip(dataclasses.astuple(part), fields, strict=True):
            np.testing.assert_array_equal(now, then)
    total.scatter[...] = -1
    assert (first.scatter >= 0).any()


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


# Errors.


@pytest.mark.filterwarnings("error::RuntimeWarning")
@every_kind
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_found(kind, value):
    features, labels = np.zeros((6, 2), "float32"), [0, 1, 1, 0, 1, 1]
    features[4, 1] = features[5, 0] = value
    message = r"Class 1 has 2 of 4 examples with NaN or infinite .* first in row 4\."
    with pytest.raises(ValueError, match=message):
        moments_of(features, labels, 2, kind)


def test_opposite_infinities_do_not_cancel():
    with pytest.raises(ValueError, match=r"Class 0 has 2 of 3 examples with NaN"):
        moments_of([[np.inf], [-np.inf], [0.0]], [0, 0, 0], 1)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@every_kind
@pytest.mark.parametrize(("dtype", "size"), [("float32", 3e38), ("float64", 1.5e308)])
def test_features_too_large_to_square_raise(kind, dtype, size):
    features = np.array([[size], [size], [-size]], dtype)
    message = rf"Products of features overflow {dtype}: the largest magnitude is {size}"
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        moments_of(features, [0, 0, 0], 1, kind)


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


@pytest.mark.parametrize(
    ("kind", "size", "shape"),
    [("full", 10**5, "1000, 100000, 100000"), ("tied", 10**7, "10000000, 10000000")],
)
def test_covariances_that_cannot_fit_in_memory_raise(kind, size, shape):
    message = rf"shape \[{shape}\] need [\d.]+ GiB .*covariance_type='tied' or 'diag'"
    with pytest.raises(ValueError, match=message):
        zero_moments(1000, size, kind)


def test_an_empty_stream_raises():
    with pytest.raises(ValueError, match=r"The stream of features is empty"):
        moments_of_batches(iter([]), 2)


def test_sketches_that_cannot_fit_in_memory_raise():
    message = r"shape \[1000, 2000, 20000\] need 149.0 GiB in float32.* small `rank`"
    with pytest.raises(ValueError, match=message):
        zero_moments(1000, 20_000, "low_rank", 1000)


def test_deviations_too_large_for_a_sketch_raise():
    message = r"means overflow float32, .* they are up to 7\.07e\+99\. Scale"
    with pytest.raises(ValueError, match=message):
        moments_of([[1e100], [0.0]], [0, 0], 1, "low_rank")
    parts = [moments_of([[x]], [0], 1, "low_rank") for x in (1e100, 0.0)]
    with pytest.raises(ValueError, match=message):
        merge_moments(*parts)


def test_deviations_too_small_for_a_sketch_are_none():
    features = np.array([[1e-60, 0.0], [0.0, 1.0], [0.0, 0.0], [1e-60, 0.0]])
    sketch = moments_of(features, np.zeros(4, int), 1, "low_rank").sketch[0]
    np.testing.assert_allclose(sketch.T @ sketch, [[0, 0], [0, 0.75]], atol=1e-7)


def test_only_sketches_of_the_same_rank_merge():
    message = r"low_rank \[C, D\] = \[2, 3\] of rank 2 and .* \[2, 3\] of rank 3"
    with pytest.raises(ValueError, match=message):
        merge_moments(zero_moments(2, 3, "low_rank", 2), zero_moments(2, 3, "low_rank"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (zero_moments(2, 3, "diag"), r"full \[C, D\] = \[2, 3\] and diag \[C, D\]"),
        (zero_moments(3, 3), r"= \[2, 3\] and full \[C, D\] = \[3, 3\]"),
        (zero_moments(2, 4), r"= \[2, 3\] and full \[C, D\] = \[2, 4\]"),
    ],
)
def test_only_moments_of_the_same_kind_and_shape_merge(other, message):
    with pytest.raises(ValueError, match=message):
        merge_moments(zero_moments(2, 3), other)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "low_rank"])
@pytest.mark.parametrize("in_one_buffer", [True, False])
def test_batches_of_two_shapes_are_told(kind, in_one_buffer, monkeypatch):
    if not in_one_buffer:
        monkeypatch.setattr(f"{moments_of.__module__}._BUFFER_ROWS", 1)
        monkeypatch.setattr(f"{moments_of.__module__}._BUFFER_ROWS_PER_CLASS", 0)
    batches = [(np.ones((4, 3)), np.zeros(4, int)), (np.ones((4, 2)), np.ones(4, int))]
    with pytest.raises(ValueError, match="must have features of one"):
        moments_of_batches(batches, 2, kind)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "low_rank"])
def test_means_too_far_apart_to_be_merged_are_told(kind):
    near, far = (
        moments_of(np.full((4, 3), x), np.zeros(4, int), 1, kind) for x in (0.0, 1e200)
    )
    with pytest.raises(ValueError, match=r"overflow.*1e\+200"):
        merge_moments(near, far)
