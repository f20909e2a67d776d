"""The header of a `.npy` file, read before any of its numbers."""

import math

import numpy as np
from numpy.lib import format as npy

__all__ = ["read_npy_header"]

_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npy_header(file, num_bytes):
    """What the header of a `.npy` file says, where the size of the file agrees.

    Nothing is allocated for the array, so a header that claims more than there is costs
    nothing.

    Args:
        file: binary, open at its beginning; afterwards at the first number.
        num_bytes: of the whole file.

    Returns:
        shape: tuple of ints.
        dtype: NumPy dtype, of numbers, text or bytes.
        offset: of the first number, in bytes.

    Raises:
        ValueError: It is no `.npy` file; its array is of Python objects, has its rows
            in columns, or takes more or fewer bytes than the file has.
        OSError: It cannot be read.
    """
    try:
        version = npy.read_magic(file)
        if version not in _READERS:
            raise ValueError(f"version {version} of the format, not 1.0 or 2.0")
        shape, in_columns, dtype = _READERS[version](file)
        np.broadcast_to(np.uint8(0), shape)  # of one byte: raises for an odd shape
    except OSError:
        raise
    except Exception as error:  # the parser is of Python source, and may raise anything
        raise ValueError(f"it has no header of a .npy file ({error!r})") from error
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"its dtype is {dtype}, which is not read without pickle")
    if in_columns and len(shape) > 1:
        raise ValueError("its numbers are in Fortran order; save it in C order")
    offset = file.tell()
    needed = offset + math.prod(shape) * dtype.itemsize
    if needed != num_bytes:
        raise ValueError(
            f"its header says {dtype} {list(shape)}, a file of {needed} bytes; it has "
            f"{num_bytes}"
        )
    return shape, dtype, offset
