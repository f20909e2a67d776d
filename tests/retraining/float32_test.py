"""Tests for float32.py: floats become float32, and nothing else does."""

import numpy as np
import pytest

from tf_pseudofeat.retraining.float32 import as_float32


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float64", "float32"), ("float16", "float32"), ("bool", "float32")]
    + [(kind, kind) for kind in ("int64", "uint8", "<U3")],
)
def test_floats_become_float32_and_ids_stay(dtype, expected):
    assert as_float32(np.ones(3, dtype)).dtype == expected


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("value", [1e300, -1e300])
def test_what_is_too_large_for_float32_is_named(value):
    with pytest.raises(ValueError, match="table contains a value .* float32, 1e.300"):
        as_float32(np.array([1.0, value]), "table")
