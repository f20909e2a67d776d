"""Values as JSON has them."""

import dataclasses
import math

import numpy as np

__all__ = ["plain"]


def plain(value):
    """A value as JSON knows it; what is NaN or infinite is None.

    A dataclass becomes a dict of its fields; an object its name, or what it says of
    itself where it is a strategy or a sampler.
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
