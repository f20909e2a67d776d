"""Converts values to plain types for JSON."""

import dataclasses
import math

import numpy as np

__all__ = ["plain"]


def plain(value):
    """Converts a value to plain types for JSON; NaN and infinity become None.

    A dataclass becomes a dict of its fields, a strategy or sampler its `str`, and any
    other object its name.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    is_data = dataclasses.is_dataclass(value)
    if hasattr(value, "get_params") or (is_data and callable(value)):
        return str(value)
    if is_data:
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names}
    return getattr(value, "__name__", type(value).__name__)
