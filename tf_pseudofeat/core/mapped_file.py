"""One `.npy` file of rows, mapped into memory."""

import math
import mmap
import os

import ml_dtypes
import numpy as np

from tf_pseudofeat.core.files import open_plain
from tf_pseudofeat.core.npy_header import read_npy_header

__all__ = ["MappedFile", "npy_head", "truncated_error"]


# NumPy's file format has no bfloat16: it is written as two opaque bytes.
_BITS = np.dtype("V2")


def npy_head(path):
    """Shape, dtype and offset of the first row of a `.npy` file."""
    with open_plain(path) as file:
        try:
            head = read_npy_header(file, os.fstat(file.fileno()).st_size)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
    shape, dtype, offset = head
    if not shape or 0 in shape[1:]:
        raise ValueError(
            f"{path} is not a .npy file of rows: its shape is {list(shape)}."
        )
    return shape, np.dtype(ml_dtypes.bfloat16) if dtype == _BITS else dtype, offset


class MappedFile:
    """The rows of one file, memory-mapped."""

    def __init__(self, path, offset, shape, dtype):
        count = math.prod(shape)
        self._path, self._end = path, offset + count * dtype.itemsize
        with open_plain(path) as file:
            if os.fstat(file.fileno()).st_size < self._end:
                raise truncated_error(path)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            # Otherwise the system reads 128 KiB around each row.
            self._map.madvise(mmap.MADV_RANDOM)
        self._rows = np.frombuffer(self._map, dtype, count, offset).reshape(shape)

    def take(self, rows):
        """Copies rows into memory."""
        # Reading a page beyond the end of a truncated file kills the process (SIGBUS).
        if self._map.size() < self._end:
            raise truncated_error(self._path)
        return self._rows.take(rows, axis=0)


def truncated_error(path):
    """The error for a file that was truncated after it was opened."""
    return ValueError(
        f"{path} was truncated after it was opened. The files of a StoredArray must "
        f"not change; write them again."
    )
