"""Tests for moments.py: moments of no examples, and their size."""

import pytest

from tf_pseudofeat.gaussians.moments import zero_moments


@pytest.mark.parametrize(
    ("kind", "size", "shape"),
    [("full", 10**5, "1000, 100000, 100000"), ("tied", 10**7, "10000000, 10000000")],
)
def test_covariances_that_cannot_fit_in_memory_raise(kind, size, shape):
    message = rf"shape \[{shape}\] need [\d.]+ GiB .*covariance_type='tied' or 'diag'"
    with pytest.raises(ValueError, match=message):
        zero_moments(1000, size, kind)


def test_sketches_that_cannot_fit_in_memory_raise():
    message = r"shape \[1000, 2000, 20000\] need 149.0 GiB in float32.* small `rank`"
    with pytest.raises(ValueError, match=message):
        zero_moments(1000, 20_000, "low_rank", 1000)
