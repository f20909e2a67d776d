"""Tests for frames.py: columns of data frames are compared by name and place."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tf_pseudofeat.data.frames import check_same_columns, some_of

FRAME = pd.DataFrame(np.zeros((3, 3)), columns=["age", "income", "debt"])
Y = np.array([0, 1, 0])
TURNED = FRAME[["income", "age", "debt"]]
SELECTED = "Pass validation_data[0][list(data[0].columns)] as its inputs."


@pytest.mark.parametrize(
    "data, validation_data",
    [
        ((FRAME, Y), (FRAME[:2], Y[:2])),
        ((FRAME, Y), [FRAME, Y]),
        ((FRAME, Y), (FRAME.to_numpy(), Y)),  # names of one alone say nothing
        ((FRAME.to_numpy(), Y), (TURNED, Y)),
        (({"a": FRAME}, Y), ({"a": FRAME}, Y)),
        ((FRAME, Y), tf.data.Dataset.from_tensors((FRAME.to_numpy(), Y))),
        ((FRAME, Y), None),
        ((FRAME, Y), ()),
        (None, "test"),
    ],
)
def test_columns_that_are_the_same_or_unknown(data, validation_data):
    assert check_same_columns(data, validation_data) is None


@pytest.mark.parametrize(
    "frame, words",
    [
        (
            TURNED,
            ["'income', 'age', 'debt'", "'age', 'income', 'debt'", "order", SELECTED],
        ),
        (FRAME.drop(columns="debt"), ["it lacks 'debt'.", "Pass the same columns"]),
        (FRAME.assign(label=1), ["unknown are 'label'.", SELECTED]),
        (pd.DataFrame(np.zeros((3, 3))), ["has the columns 0, 1, 2", "it lacks 'age'"]),
        (FRAME[["age", "age", "income", "debt"]], ["some names repeat", SELECTED]),
    ],
    ids=["order", "fewer", "more", "numbers", "repeated"],
)
def test_columns_that_differ(frame, words):
    for given, other in [(FRAME, frame), ({"x": FRAME}, {"x": frame})]:
        with pytest.raises(ValueError, match="^`validation_data`") as raised:
            check_same_columns((given, Y), (other, Y))
        for word in words:
            assert word in str(raised.value)


def test_numbers_and_their_digits_are_different_names():
    numbers = pd.DataFrame(np.zeros((2, 2)))
    digits = numbers.rename(columns=str)
    with pytest.raises(ValueError, match="it lacks 0, 1; unknown are '0', '1'"):
        check_same_columns((numbers, Y), (digits, Y))


def test_the_input_of_several_is_named():
    with pytest.raises(ValueError, match="input 1 of several"):
        check_same_columns(((FRAME, FRAME), Y), ((FRAME, TURNED), Y))


def test_many_names_have_an_end():
    assert some_of("ab") == "'a', 'b'"
    assert some_of(range(100)) == "0, 1, 2, 3, 4, 5, 6, 7 and 92 more"
