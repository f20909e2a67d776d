"""Tests for rounding.py: against Python's whole numbers, which have no range."""

import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.sampling.rounding import (
    cast_draws,
    check_continuous,
    warn_of_rounding,
)

WHOLE = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
DRAWS = np.array(
    [
        *(-1e30, -(2.0**63), -(2.0**31), -300, -1.5, -0.4, 0.0, 0.5, 1.5, 2.6, 127.5),
        *(255.6, 2.0**31 - 1, 2.0**31, 2.0**32, 0.999 * 2.0**63, 2.0**63, 2.0**64),
        1e30,
    ]
)
FORMS = {
    "array": cast_draws,
    "tensor": lambda draws, dtype: cast_draws(tf.constant(draws), dtype).numpy(),
    "graph": lambda draws, dtype: tf.function(cast_draws)(
        tf.constant(draws), np.dtype(dtype)
    ).numpy(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("draws", [DRAWS, DRAWS.astype("float32")], ids=["f8", "f4"])
@pytest.mark.parametrize("dtype", WHOLE)
def test_whole_numbers_are_the_nearest_in_range(dtype, draws, form):
    limits = np.iinfo(dtype)
    wanted = [min(max(round(x), limits.min), limits.max) for x in draws.tolist()]
    received = FORMS[form](draws, dtype)
    assert received.dtype == dtype
    assert received.tolist() == wanted


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_are_cast_to_the_bit(dtype):
    draws = np.random.default_rng(0).normal(size=(50, 3))
    assert cast_draws(draws, dtype).tobytes() == draws.astype(dtype).tobytes()
    assert cast_draws(draws, "float64") is draws


@pytest.mark.parametrize("dtype", [*WHOLE, "float16", "float32", "float64"])
def test_numbers_have_something_in_between(dtype):
    check_continuous(np.dtype(dtype))


@pytest.mark.parametrize("dtype", ["bool", "object", "U3", "M8[s]", "complex64"])
def test_what_has_nothing_in_between_raises(dtype):
    dtype = np.dtype(dtype)
    with pytest.raises(ValueError, match="my features has dtype .*Cast it to float"):
        check_continuous(dtype, "my features")


def test_the_warning_names_each_dtype_once():
    dtypes = map(np.dtype, ["int8", "float32", "uint8", "int8"])
    with pytest.warns(UserWarning, match="dtype int8, uint8: pseudo-features") as all:
        warn_of_rounding(dtypes, stacklevel=1)
    assert len(all) == 1 and all[0].filename == __file__


def test_floats_are_not_warned_of(recwarn):
    warn_of_rounding([np.dtype("float32")])
    assert not recwarn.list
