"""Tests for chosen.py: so many examples of each class, and all of them counted."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.extraction.chosen import ClassTotals, choose_rows, chosen_chunks

RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.repeat([0, 1, 3], [70, 20, 3]))
X = np.arange(93.0)[:, None]


def batches(x, labels, size, weight=None):
    for start in range(0, len(labels), size):
        rows = slice(start, start + size)
        yield x[rows], labels[rows], None if weight is None else weight[rows]


def first_of_each(labels, per_class):
    """By a naive loop."""
    taken, rows = {}, []
    for row, label in enumerate(labels.tolist()):
        taken[label] = taken.get(label, 0) + 1
        if taken[label] <= per_class:
            rows.append(row)
    return rows


@pytest.mark.parametrize("size", [1, 7, 16, 93, 200])
@pytest.mark.parametrize("per_class", [1, 3, 10, 1000])
def test_a_stream_gives_the_first_of_each_class_in_batches_of_one_size(size, per_class):
    totals = ClassTotals()
    chunks = list(chosen_chunks(batches(X, LABELS, size), totals, per_class))
    rows = first_of_each(LABELS, per_class)
    np.testing.assert_array_equal(np.concatenate([c.x for c in chunks])[:, 0], rows)
    labels = np.concatenate([c.labels for c in chunks])
    np.testing.assert_array_equal(labels, LABELS[rows])
    assert {len(c.labels) for c in chunks[:-1]} <= {min(size, 93)}
    np.testing.assert_array_equal(totals.counts, [70, 20, 0, 3])
    np.testing.assert_array_equal(totals.mass, [70, 20, 0, 3])


def test_an_example_of_weight_0_is_not_there():
    weight = np.ones(93, "f4")
    weight[first_of_each(LABELS, 2)] = 0
    weight[LABELS == 3] = 0.5
    totals = ClassTotals()
    given = batches(X, LABELS, 10, weight)
    chunks = list(chosen_chunks(given, totals, 2))
    there = np.flatnonzero(weight)
    rows = there[first_of_each(LABELS[there], 2)]
    np.testing.assert_array_equal(np.concatenate([c.x for c in chunks])[:, 0], rows)
    assert (np.concatenate([c.sample_weight for c in chunks]) == weight[rows]).all()
    np.testing.assert_array_equal(totals.counts, [68, 18, 0, 3])
    np.testing.assert_array_equal(totals.mass, [68, 18, 0, 1.5])


@pytest.mark.parametrize(
    "make",
    [
        tf.constant,
        lambda x: tf.strings.as_string(x),
        lambda x: tf.RaggedTensor.from_tensor(x),
        lambda x: tf.sparse.from_dense(x + 1),
    ],
    ids=["dense", "strings", "ragged", "sparse"],
)
def test_rows_of_tensors_of_any_kind_are_chosen(make):
    dataset = tf.data.Dataset.from_tensor_slices((make(X), LABELS)).batch(10)
    given = ((x, y.numpy(), None) for x, y in dataset)
    chunks = list(chosen_chunks(given, ClassTotals(), 3))
    values = []
    for chunk in chunks:
        x = chunk.x
        if isinstance(x, tf.SparseTensor):
            x = tf.sparse.to_dense(x) - 1
        x = x.to_tensor() if isinstance(x, tf.RaggedTensor) else x
        values += [float(value) for value in x.numpy()[:, 0]]
    assert values == first_of_each(LABELS, 3)


def test_a_wrong_batch_is_named():
    labels = LABELS.astype("f4")
    labels[45] = 1.5
    with pytest.raises(ValueError, match="Batch 4, counted from 0: .*1.5"):
        list(chosen_chunks(batches(X, labels, 10), ClassTotals(), 3))


def test_rows_are_drawn_at_random_and_each_as_often():
    drawn = np.zeros(93)
    for seed in range(2000):
        rows = choose_rows(LABELS, 7, np.random.default_rng(seed))
        assert (np.diff(rows) > 0).all()
        counts = np.bincount(LABELS[rows], minlength=4)
        np.testing.assert_array_equal(counts, [7, 7, 0, 3])
        drawn[rows] += 1
    share = drawn / 2000
    np.testing.assert_allclose(share[LABELS == 0], 0.1, atol=0.03)
    np.testing.assert_allclose(share[LABELS == 1], 0.35, atol=0.05)
    assert (share[LABELS == 3] == 1).all()
