"""Tests for plain_values.py: values for JSON."""

import dataclasses
import json

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE

from tf_pseudofeat.head.plain_values import plain


@dataclasses.dataclass
class Point:
    x: object
    y: object


@dataclasses.dataclass
class Doubles:
    factor: int

    def __call__(self, x):
        return self.factor * x


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (np.bool_(True), True),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (float("nan"), None),
        (-np.inf, None),
        (np.array([1, np.nan]), [1.0, None]),
        ((1, "a"), [1, "a"]),
        ({1: {2.5: np.int8(3)}}, {"1": {"2.5": 3}}),
        (Point(np.int64(1), Point(2, None)), {"x": 1, "y": {"x": 2, "y": None}}),
        (Doubles(2), "Doubles(factor=2)"),
        (SMOTE(k_neighbors=3), "SMOTE(k_neighbors=3)"),
        (len, "len"),
        (object(), "object"),
        (np.float64, "float64"),
    ],
)
def test_each_becomes_what_json_has(value, expected):
    received = plain(value)
    assert received == expected and type(received) is type(expected)
    assert json.loads(json.dumps(received)) == expected
