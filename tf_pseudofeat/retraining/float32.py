"""Arrays of scikit-learn for a network: float32."""

import numpy as np

__all__ = ["as_float32"]


def as_float32(numbers, name="X"):
    """Converts floats to float32; keeps integers, which may be token ids."""
    if numbers.dtype.kind not in "fb":
        return numbers
    with np.errstate(over="ignore"):
        floats = numbers.astype(np.float32)
    if not np.isfinite(floats).all():
        raise ValueError(
            f"{name} contains a value too large for float32, {np.abs(numbers).max():g}."
        )
    return floats
