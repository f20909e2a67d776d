"""Tests for validation.py: checks of single arguments."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.core.validation import check_is_object, is_infinite, whole_number


@pytest.mark.parametrize("value", [3, 3.0, np.int64(3), np.float32(3), tf.constant(3)])
def test_a_whole_number_becomes_an_int(value):
    number = whole_number("n", value)
    assert number == 3 and type(number) is int


@pytest.mark.parametrize(
    "value", [0, -1, 2.5, np.nan, np.inf, "3 ", None, [3, 3], "three"], ids=repr
)
def test_what_is_no_whole_number_is_named(value):
    with pytest.raises(ValueError, match="`n` must be a whole number of at least 1; "):
        whole_number("n", value)


def test_a_class_is_no_instance():
    with pytest.raises(TypeError, match=r"the class Adam. Pass Adam\(1e-3\)"):
        check_is_object("optimizer", keras.optimizers.Adam, "1e-3")
    check_is_object("optimizer", keras.optimizers.Adam())


class Endless(keras.utils.PyDataset):
    num_batches = None


class LongList:
    def __len__(self):
        return sys.maxsize


def test_data_without_an_end_are_told_by_their_length():
    numbers = tf.data.Dataset.range(3)
    assert is_infinite(numbers.repeat())
    assert is_infinite(Endless()) and is_infinite(LongList())
    assert not is_infinite(numbers) and not is_infinite(numbers.filter(lambda n: n > 1))
    assert not is_infinite([1, 2]) and not is_infinite(iter([]))
