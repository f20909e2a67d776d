"""Reads and checks the header of a `.npy` file."""

import math

import numpy as np
from numpy.lib import format as npy

__all__ = ["read_npy_header"]

_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npy_header(file, num_bytes):
    """Reads the header of a `.npy` file, and checks it against the size of the file.

    No array is allocated, so a header that claims too much costs nothing.

    Args:
        file: binary file at its beginning; left at the first number.
        num_bytes: size of the whole file.

    Returns:
        shape: tuple of ints.
        dtype: NumPy dtype of numbers, text or bytes.
        offset: position of the first number, in bytes.

    Raises:
        ValueError: If it is not a `.npy` file; if its array has Python objects, is in
            Fortran order, or does not have the size of the file.
        OSError: If it cannot be read.
    """
    try:
        version = npy.read_magic(file)
        if version not in _READERS:
            raise ValueError(f"format version {version}, not 1.0 or 2.0")
        shape, in_columns, dtype = _READERS[version](file)
        np.broadcast_to(np.uint8(0), shape)  # raises for an invalid shape
    except OSError:
        raise
    except Exception as error:  # it parses Python source, and may raise anything
        raise ValueError(f"it does not have a .npy header ({error!r})") from error
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"its dtype is {dtype}, which needs pickle")
    if in_columns and len(shape) > 1:
        raise ValueError("its numbers are in Fortran order; save it in C order")
    offset = file.tell()
    needed = offset + math.prod(shape) * dtype.itemsize
    if needed != num_bytes:
        raise ValueError(
            f"its header says {dtype} {list(shape)}, {needed} bytes; the file has "
            f"{num_bytes}"
        )
    return shape, dtype, offset
