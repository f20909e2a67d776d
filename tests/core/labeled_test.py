"""Tests for labeled.py: what exists is valid, in memory and on disk."""

import numpy as np
import pytest

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.extraction.shard_reader import load_features
from tf_pseudofeat.extraction.shard_writer import ShardWriter, write_index
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.sampling.interleave import interleave

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)).astype("float32")
Y = np.repeat([0, 1, 2], 10)
WEIGHT = np.where(np.arange(30) % 3 == 0, 0.0, 1.0 + np.arange(30))
COUNTED = np.flatnonzero(WEIGHT)


@pytest.fixture(params=["memory", "disk"])
def place(request, tmp_path):
    """A function that gives features as an array, or as one that is on disk."""

    def stored(features):
        with ShardWriter(tmp_path, rows_per_shard=7) as writer:
            writer.add(features, np.zeros(len(features), int))
        write_index(tmp_path)
        return load_features(tmp_path).features

    return stored if request.param == "disk" else lambda features: features


def test_it_unpacks_and_knows_ids_and_counts(place):
    stored = place(X)
    for labels in (Y, Y[:, None].astype("float32"), np.eye(3)[Y]):
        data = LabeledFeatures(stored, labels)
        features, same = data
        np.testing.assert_array_equal(features[:], X)
        np.testing.assert_array_equal(same, labels)
        assert data.ids.dtype == np.int64 and data.ids.tolist() == Y.tolist()
        assert len(data) == 30 and data.class_counts(3).tolist() == [10, 10, 10]
    assert LabeledFeatures(X, Y).class_counts(5).tolist() == [10, 10, 10, 0, 0]


def test_what_has_no_weight_is_not_there(place):
    features = place(X)
    data = LabeledFeatures(features, np.eye(3)[Y], WEIGHT)
    np.testing.assert_array_equal(data.features[:], X[COUNTED])
    np.testing.assert_array_equal(data.labels, np.eye(3)[Y[COUNTED]])
    np.testing.assert_array_equal(data.sample_weight, WEIGHT[COUNTED])
    np.testing.assert_array_equal(data.ids, Y[COUNTED])
    assert isinstance(data.features, type(features))


def test_batches_without_any_weight_are_passed_over():
    import keras

    trunk = keras.Sequential([keras.Input((4,)), keras.layers.Identity()])
    weight = np.where(np.arange(30) < 8, 0.0, WEIGHT)
    data = extract_features(trunk, (X, Y, weight), batch_size=4, verbose=0)
    np.testing.assert_array_equal(data.features, X[np.flatnonzero(weight)])
    with pytest.raises(ValueError, match="All sample weights are 0"):
        extract_features(trunk, (X, Y, 0 * weight), batch_size=4, verbose=0)


@pytest.mark.parametrize(
    "dtype", [">f4", "<f4", ">f8", ">f2", ">i4", "u1", "longdouble"]
)
def test_values_are_what_they_mean_in_any_byte_order(dtype):
    whole = np.round(10 * np.abs(X))
    labels, weight = Y.astype(">i8"), (1.0 + Y).astype(">f4")
    data = LabeledFeatures(whole.astype(dtype), labels, weight)
    assert data.features.dtype.isnative and data.features.dtype.itemsize <= 8
    np.testing.assert_array_equal(data.features, whole)
    stream = interleave(
        whole.astype(dtype), labels, sample_weight=weight, batch_size=30
    )
    ((features, ids, weights),) = stream.as_numpy_iterator()
    order, mine = np.lexsort(features.T), np.lexsort(whole.T)
    np.testing.assert_array_equal(features[order], whole[mine])
    np.testing.assert_array_equal(ids[order], Y[mine])
    np.testing.assert_array_equal(weights[order], 1.0 + Y[mine])


@pytest.mark.parametrize("rows", [[3, 1, 3], Y == 1, np.arange(5)], ids=str)
def test_a_selection_keeps_together_what_belongs_together(place, rows):
    some = LabeledFeatures(place(X), Y, 1.0 + np.arange(30)).select(np.asarray(rows))
    np.testing.assert_array_equal(some.features[:], X[rows])
    np.testing.assert_array_equal(some.labels, Y[rows])
    np.testing.assert_array_equal(some.ids, Y[rows])
    np.testing.assert_array_equal(some.sample_weight, (1.0 + np.arange(30))[rows])


def test_several_are_one_after_the_other(place):
    part = LabeledFeatures(place(X), Y)
    both = LabeledFeatures.concatenate([part, part.select([2])])
    np.testing.assert_array_equal(both.features[:], np.concatenate([X, X[2:3]]))
    np.testing.assert_array_equal(both.ids, [*Y, 0])
    assert both.sample_weight is None
    assert LabeledFeatures.concatenate([part]) is part


@pytest.mark.parametrize(
    "arrays, message",
    [
        ((X, Y[1:]), r"the same length, at least 1; .*\[30, 4\], 'labels': \[29\]"),
        ((X[:0], Y[:0]), r"the same length, at least 1; .*\[0, 4\]"),
        ((X[:, 0], Y), r"one number for each of the N examples; .*\[30\]"),
        ((X, Y - 1), "class ids 0, 1, 2, .* label -1"),
        ((X, Y + 0.5), "label 0.5"),
        ((X, Y.astype(str)), "Labels must be numbers"),
        ((X, 0.9 * np.eye(3)[Y]), "must be one-hot"),
        ((X.astype(str), Y), "must be real numbers"),
        ((np.where(X[7, 1] == X, np.nan, X), Y), "NaN or infinite in 1 of 30 .* row 7"),
        ((X, Y, -WEIGHT), "example 1 has weight -2.0"),
        ((X, Y, WEIGHT[1:]), r"'sample_weight': \[29\]"),
        ((X, Y, 0 * WEIGHT), "All 30 sample weights are 0"),
        ((X, Y, np.inf + WEIGHT), "has weight inf"),
        ((X > 0, Y), "received dtype bool"),
    ],
)
def test_what_is_not_valid_does_not_come_to_be(arrays, message):
    with pytest.raises(ValueError, match=message):
        LabeledFeatures(*arrays)


@pytest.mark.parametrize("labels", [Y, np.eye(3)[Y]], ids=["ids", "one-hot"])
def test_classes_beyond_those_that_are_known(labels):
    with pytest.raises(ValueError, match="class ids 0 to 1.*label 2|3 wide.*2 classes"):
        LabeledFeatures(X, labels).class_counts(2)


@pytest.mark.parametrize("rows", [[], np.zeros(30, bool), 5, [[0, 1]], slice(9, 3)])
def test_a_selection_is_of_examples(rows):
    with pytest.raises(ValueError, match="`rows` must select at least one example"):
        LabeledFeatures(X, Y).select(rows)


def test_a_batch_may_be_of_nothing_but_not_of_odd_lengths():
    assert LabeledFeatures.of_batch(X[:0], Y[:0]) is None
    assert LabeledFeatures.of_batch(X, Y, np.zeros(30)) is None
    assert len(LabeledFeatures.of_batch(X, Y, WEIGHT)) == len(COUNTED)
    for batch in ((X, Y[:0]), (X, Y, np.zeros(3)), (X, Y, 0.0)):
        with pytest.raises(ValueError, match="the same length, at least 1"):
            LabeledFeatures.of_batch(*batch)


def test_weights_do_not_get_lost():
    plain, weighted = LabeledFeatures(X, Y), LabeledFeatures(X, Y, 1 + Y)
    for parts in ([plain, weighted], [weighted, plain], []):
        with pytest.raises(ValueError, match="must have weights, or none"):
            LabeledFeatures.concatenate(parts)
    assert weighted.sample_weight.dtype == np.float32
    assert repr(weighted) == "LabeledFeatures(float32 [30, 4], weighted)"


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32"])
def test_whole_features_are_drawn_to_the_nearest(dtype):
    whole = RNG.integers(20, 90, size=(40, 3)).astype(dtype)
    labels = np.repeat([0, 1], 20)
    gaussian = ClassConditionalGaussian(2)
    gaussian.adapt(whole.astype("float32"), labels)
    stream = interleave(whole, labels, gaussian, {1: 20_000}, batch_size=4096)
    rows = np.concatenate([x for x, _ in stream.as_numpy_iterator()])
    assert rows.dtype == dtype
    center = gaussian.moments.mean[1]
    np.testing.assert_allclose(rows.mean(axis=0), center, atol=0.4)  # truncated: -0.5


def test_an_example_of_weight_0_needs_no_class():
    labels = np.where(WEIGHT == 0, -1, Y)
    data = LabeledFeatures(X, labels, WEIGHT)
    np.testing.assert_array_equal(data.ids, Y[COUNTED])
    with pytest.raises(ValueError, match="example 0 has label -1"):
        LabeledFeatures(X, labels)
