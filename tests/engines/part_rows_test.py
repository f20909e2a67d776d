"""Tests for part_rows.py: rows of any form become batches, and have a checksum."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.engines.part_rows import RowDigest, batches_of_rows

X = np.arange(14.0).reshape(7, 2)
Y = np.arange(7)
ONE = {"x": tf.TensorSpec([None, 2])}
TWO = {"x": tf.TensorSpec([None, 2]), "word": tf.TensorSpec([None], tf.string)}
WORDS = np.array([f"w{i}" for i in range(7)])


def read(rows, specs=ONE, batch_size=3):
    batches = list(batches_of_rows(rows, specs, batch_size))
    return [len(labels) for _, labels in batches], batches


@pytest.mark.parametrize("as_dict", [False, True])
def test_rows_are_collected_in_batches(as_dict):
    inputs = [{"x": x} for x in X] if as_dict else X
    sizes, batches = read(zip(inputs, Y, strict=True))
    assert sizes == [3, 3, 1]
    received = np.concatenate([inputs["x"] for inputs, _ in batches])
    np.testing.assert_array_equal(received, X)
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), Y)


def test_batches_stay_as_they_are_and_empty_ones_are_left_out():
    sizes, _ = read([(X[:5], Y[:5]), (X[:0], Y[:0]), (X[5:], Y[5:])])
    assert sizes == [5, 2]


def test_several_inputs_come_by_name():
    rows = [({"x": x, "word": w}, y) for x, w, y in zip(X, WORDS, Y, strict=True)]
    sizes, batches = read(rows, TWO)
    assert sizes == [3, 3, 1] and batches[0][0]["word"].tolist() == ["w0", "w1", "w2"]


@pytest.mark.parametrize(
    ("rows", "specs", "message"),
    [
        ([X[0]], ONE, r"must yield \(input, label\); received a ndarray"),
        ([(X[0], 1, 2)], ONE, "received a tuple of 3"),
        ([({"y": X[0]}, 1)], ONE, r"has inputs \['x'\]; received \['y'\]. Pass a dict"),
        ([(X[0], 1)], TWO, r"has inputs \['word', 'x'\]; received a ndarray"),
        (
            [(X[0, :1], 1)],
            ONE,
            r"received shapes {'x': \[1\]} and a label of shape \[\]",
        ),
        ([(X, Y[:3])], ONE, r"{'x': \[7, 2\]} and a label of shape \[3\]"),
    ],
)
def test_anything_else_is_told_with_what_is_expected(rows, specs, message):
    with pytest.raises(ValueError, match=message):
        read(rows, specs)


def test_rows_of_two_lengths_cannot_be_one_batch():
    open_length = {"x": tf.TensorSpec([None, None])}
    with pytest.raises(ValueError, match="differ in shape .* or pass batch_size=1"):
        read([(X[0], 0), (X[0, :1], 1)], open_length)
    assert read([(X[0], 0), (X[0, :1], 1)], open_length, 1)[0] == [1, 1]


def digest(order, sizes=(7,), words=WORDS):
    of_rows = RowDigest()
    for rows in np.split(np.asarray(order), np.cumsum(sizes)[:-1]):
        of_rows.add({"x": X[rows], "word": words[rows]}, Y[rows])
    return of_rows.num_rows, of_rows.value


def test_the_checksum_is_that_of_the_rows_in_any_order_and_grouping():
    expected = digest(range(7))
    assert digest([6, 2, 4, 0, 1, 3, 5], (3, 4)) == expected
    assert digest(range(7), words=WORDS.astype(object)) == expected
    assert digest([0, 0, 2, 3, 4, 5, 6]) != expected
    changed = WORDS.copy()
    changed[3] = "x3"
    assert digest(range(7), words=changed) != expected
