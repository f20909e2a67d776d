"""Moments that were computed in two ways are the same but for their rounding."""

import numpy as np

__all__ = ["assert_same"]


def assert_same(received, expected, rtol=1e-11):
    """Compares two `ClassMoments`; sketches of all directions by their products."""
    assert type(received) is type(expected)
    assert received.kind == expected.kind
    np.testing.assert_array_equal(received.count, expected.count)
    for field in ("mean", "scatter"):
        mine, theirs = getattr(received, field), getattr(expected, field)
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * scale)
    if expected.rank is not None:  # here of all directions, so in float32 the same
        grams = [np.swapaxes(m.sketch, 1, 2) @ m.sketch for m in (received, expected)]
        scale = np.abs(grams[1]).max()
        np.testing.assert_allclose(*grams, rtol=1e-4, atol=1e-5 * scale)
