"""Tests for checks.py: what is data, and what is told of anything else."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.data.checks import (
    check_batch,
    check_data,
    is_labeled,
    is_one_pass,
    is_stream,
)

X, Y = np.ones((6, 2)), np.arange(6) % 2


def dataset(*parts):
    return tf.data.Dataset.from_tensor_slices(parts)


def batches():
    """A generator function, which is no data before it is called."""
    yield X, Y


class Stream:
    """Can be read again and again, as a torch DataLoader can."""

    def __iter__(self):
        return iter([(X, Y)])


@pytest.mark.parametrize(
    "data",
    [(X, Y), [X, Y], (X, Y, Y), ({"a": X}, Y), (X.tolist(), Y), Stream()],
    ids=lambda data: type(data).__name__,
)
def test_arrays_and_streams_are_data(data):
    check_data(data)


def test_datasets_of_batches_are_data_and_without_an_end_with_steps():
    check_data(dataset(X, Y).batch(2))
    check_data(dataset(X, Y).batch(2).repeat(), steps=3)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ((X, Y[:4]), ValueError, r"the same length, at least 1; received .*\[4, 6\]"),
        ((X[:0], Y[:0]), ValueError, r"received lengths \[0\]"),
        ((X, 3), ValueError, "holds the single value 3; an array of N rows"),
        ((X, [Y, Y]), ValueError, "`y` is a list of 2; pass an array"),
        ((X, {"a": Y, "b": Y}), ValueError, "`y` holds 2. Split the model for one of"),
        (dataset(X, Y), ValueError, r"yields single examples, .* Add `.batch\(256\)`"),
        (dataset(X, Y).batch(2).repeat(), ValueError, "is infinite .* pass `steps`"),
        (dataset(X, Y).batch(2).take(0), ValueError, "The dataset is empty"),
        (dataset(X).batch(2), ValueError, r"must yield \(x, y\) .*received tuple of 1"),
        (iter([(X, Y)]), TypeError, "iterated over only once. Collect its batches"),
        ("train.csv", TypeError, "iterable of .x, y. batches, .*received str"),
        (X, TypeError, r"received ndarray, inputs without labels. Pass both, \(x, y\)"),
        (batches, TypeError, r"received function. Pass .*from_generator\(batches, out"),
        (
            tf.data.Dataset.from_tensor_slices(X).batch(2),
            ValueError,
            r"received a tensor of shape \(None, 2\). Pass the labels, too; .*zip\(",
        ),
        (
            (X, X, X, Y),
            ValueError,
            r"tuple of 4. Several inputs are one item, \(\(a, b",
        ),
        ({"x": X, "y": Y}, TypeError, "received dict"),
    ],
)
def test_anything_else_is_told_what_to_pass(data, error, message):
    with pytest.raises(error, match=message):
        check_data(data)


@pytest.mark.parametrize(
    ("keys", "x", "y"),
    [
        (("image", "label"), "image", "label"),
        (("target", "id", "image"), "id", "target"),
        (("image",), "image", "y"),
        (("y",), "x", "y"),
        ((), "x", "y"),
    ],
)
def test_a_dict_is_told_how_to_map_it(keys, x, y):
    batch = dict.fromkeys(keys, X)
    with pytest.raises(ValueError) as raised:
        check_batch(batch, "Batch 3")
    assert str(raised.value).startswith("Batch 3: `data` must yield (x, y)")
    assert f"such as (batch[{x!r}], batch[{y!r}])" in str(raised.value)


def test_a_batch_holds_rows():
    check_batch((X, Y, None), "Batch 3")
    with pytest.raises(ValueError, match="Batch 3, holds the single value 1; .*Yield"):
        check_batch((X, 1), "Batch 3")


def test_what_can_be_read_once_is_no_stream():
    once = (batch for batch in [(X, Y)])
    assert is_one_pass(once) and not is_stream(once)
    assert is_stream(Stream()) and not is_one_pass(Stream())
    assert not any(map(is_stream, [X, "text", b"text", {"x": X}, {1}, 3]))
    assert is_stream([(X, Y)]) and is_stream(keras.utils.PyDataset())


def test_a_batch_of_two_or_three_parts_has_labels():
    assert is_labeled((X, Y)) and is_labeled([X, Y, Y])
    assert not is_labeled((X,)) and not is_labeled(X) and not is_labeled({"x": X})
