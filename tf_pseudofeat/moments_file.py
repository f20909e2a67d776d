"""The statistics of the classes as a file, which can be merged with others later."""

import dataclasses
import zipfile

import numpy as np

from tf_pseudofeat.files import local_path, whole_file
from tf_pseudofeat.moments import ClassMoments, no_moments

__all__ = ["load_moments", "save_moments"]

_FIELDS = [field.name for field in dataclasses.fields(ClassMoments)]


def save_moments(moments, file):
    """Writes `ClassMoments` as an `.npz` file; no bit of them is lost.

    The same moments always give the same bytes. A file that is named by its path takes
    the place of an old one when it is whole.

    Args:
        moments: `ClassMoments`.
        file: path, or a binary file that is open for writing.

    Raises:
        OSError: The file cannot be written.
        TypeError: `moments` or `file` is something else.
        ValueError: `file` is on another system, `gs://...`.
    """
    if not isinstance(moments, ClassMoments):
        raise TypeError(
            f"`moments` is a ClassMoments; received {type(moments).__name__}. Those of "
            f"a ClassConditionalGaussian are its `moments`."
        )
    arrays = {name: value for name, value in vars(moments).items() if value is not None}
    if hasattr(file, "write"):
        np.savez(file, **arrays)
        return
    with whole_file(local_path(file, "file")) as aside, open(aside, "wb") as opened:
        np.savez(opened, **arrays)


def load_moments(file):
    """Reads what `save_moments` wrote. Nothing in the file is run.

    Args:
        file: path, or a binary file that is open for reading and can seek.

    Returns:
        moments: `ClassMoments`.

    Raises:
        OSError: There is no such file, or it cannot be read.
        TypeError: `file` is something else.
        ValueError: It holds something else, or only a part; or is on another system.

    Example:

    >>> moments = merge(load_moments("monday.npz"), load_moments("tuesday.npz"))
    """
    is_open = hasattr(file, "read")
    file = file if is_open else local_path(file, "file")
    name = "The file" if is_open else file
    try:
        with np.load(file) as arrays:
            fields = {field: arrays[field] for field in _FIELDS if field in arrays}
        moments = ClassMoments(**fields | {"kind": str(fields["kind"])})
    except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{name} is no file of moments, an .npz of {', '.join(_FIELDS)}, as "
            f"save_moments(moments, file) writes it: {error}"
        ) from error
    _check(moments, name)
    return moments


def _check(moments, name):
    if moments.mean.ndim != 2:
        raise ValueError(f"{name} has means of shape {moments.mean.shape}, not [C, D].")
    empty = no_moments(*moments.mean.shape, moments.kind, moments.rank)
    for field in _FIELDS:
        received, expected = getattr(moments, field), getattr(empty, field)
        if expected is None or isinstance(expected, str):
            continue
        if received.shape != expected.shape or received.dtype != expected.dtype:
            raise ValueError(
                f"{name} has a `{field}` of {received.dtype} {list(received.shape)}; "
                f"kind {moments.kind!r} and means {list(moments.mean.shape)} go with "
                f"{expected.dtype} {list(expected.shape)}. Write it anew."
            )
        if not np.isfinite(received).all():
            raise ValueError(f"{name} has NaN or infinity in `{field}`. Write it anew.")
    if (moments.count < 0).any():
        raise ValueError(f"{name} has a negative count, {moments.count.min():g}.")
