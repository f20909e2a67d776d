"""An array that lies on disk, in several files, and is read by the row."""

import functools
import itertools
import math
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.files import local_path, open_plain
from tf_pseudofeat.core.npy_header import read_npy_header

__all__ = ["StoredArray"]

# Files that one array keeps open; many systems allow a process 1,024, some 256.
_OPEN_FILES = 128
# NumPy's file format has no bfloat16: it is written as two bytes without a meaning.
_BITS = np.dtype("V2")
_CHUNK_BYTES = 2**26


class StoredArray:
    """Rows in `.npy` files, one file after the other, as one array.

    It has the shape, the dtype and the indexing by rows of a NumPy array, and holds no
    row in memory: what is asked for is read and returned as a new array. Rows that
    follow each other are read as a piece of the file. Rows all over it are gathered
    from memory maps, file by file in ascending order, and put back in the order that
    was asked for; pages that the system keeps of a file are its cache, and it takes
    them back when memory is short. `np.asarray` of it reads everything.

    The files must stay as they are, as long as the array is in use; one that was cut
    short is found before it is read. The array can be pickled: what travels are the
    names of the files. Several threads may read at once.

    Args:
        paths: `.npy` files, each `[rows, ...]`, of the same dtype and row shape.

    Attributes:
        shape: `(N, ...)`.
        dtype: NumPy dtype.

    Raises:
        TypeError: `paths` is a single one, or one of them is none.
        ValueError: A file is damaged, no plain file, unlike the first, or on another
            system; when rows are read: it was cut short.
        OSError: A file cannot be read.

    Example:

    >>> np.save("features-00000.npy", np.zeros((5, 3), "float32"))
    >>> features = StoredArray(["features-00000.npy"])
    >>> features.shape, features[[4, 0]].shape
    ((5, 3), (2, 3))
    """

    def __init__(self, paths: Iterable[str | os.PathLike]) -> None:
        if isinstance(paths, str | bytes | os.PathLike):
            raise TypeError(
                f"`paths` is a list of files; received {paths!r}. Pass [{paths!r}]."
            )
        self._paths = [os.path.abspath(local_path(path, "paths")) for path in paths]
        if not self._paths:
            raise ValueError("A StoredArray needs a file at least; received none.")
        heads = [_head(path) for path in self._paths]
        self.dtype, row_shape = heads[0][1], heads[0][0][1:]
        for path, (shape, dtype, _) in zip(self._paths, heads, strict=True):
            if (shape[1:], dtype) != (row_shape, self.dtype):
                raise ValueError(
                    f"{path} has rows of shape {list(shape[1:])} and dtype {dtype}, "
                    f"{self._paths[0]} of {list(row_shape)} and {self.dtype}. The "
                    f"files of one array have rows of one kind."
                )
        self._offsets = [offset for _, _, offset in heads]
        self._ends = np.cumsum([shape[0] for shape, _, _ in heads])
        self._rows = None  # of the files, in order; None for all
        self.shape = (int(self._ends[-1]), *row_shape)
        self._open_files()

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def lengths(self) -> list[int]:
        """Rows of each file."""
        return np.diff(self._ends, prepend=0).tolist()

    @property
    def nbytes(self) -> int:
        """Bytes on disk, and in memory if it were there."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self):
        return (
            f"StoredArray(shape={self.shape}, dtype={self.dtype}, "
            f"files={len(self._paths)})"
        )

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1 and self._rows is None:
                return self._read(start, max(start, stop))
            return self.take(np.arange(start, stop, step))
        if np.ndim(rows) == 0 and not isinstance(rows, tuple) and rows is not Ellipsis:
            return self.take([rows])[0]
        return self.take(rows)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> np.ndarray:
        if copy is False:
            raise ValueError(
                "The array lies on disk, so to read it is to copy it; copy=False "
                "cannot be had."
            )
        return self[:].astype(dtype or self.dtype, copy=False)

    def take(self, rows: npt.ArrayLike, axis: int = 0) -> np.ndarray:
        """Reads some rows, in the order they are named.

        Args:
            rows: whole numbers `[M]`, negative ones from the end, or a mask `[N]`.
            axis: 0.

        Returns:
            array: `[M, ...]`.
        """
        if axis != 0:
            raise ValueError(f"Rows alone can be taken, axis=0; received axis={axis}.")
        rows = self._numbers(rows)
        if self._rows is not None:
            rows = self._rows[rows]
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        taken = np.empty((rows.size, *self.shape[1:]), self.dtype)
        # Where the rows of one file end; the files without any are left out.
        stops = np.searchsorted(rows, self._ends)
        for number in np.flatnonzero(np.diff(stops, prepend=0)):
            start = stops[number - 1] if number else 0
            some = slice(start, stops[number])
            local = rows[some] - (self._ends[number - 1] if number else 0)
            taken[order[some]] = self._mapped(int(number)).take(local)
        return taken

    def select(self, rows: npt.ArrayLike) -> Self:
        """An array of some of the rows, which stay on disk.

        Args:
            rows: as for `take`.

        Returns:
            selected: `StoredArray`; in memory it holds 8 bytes for each of its rows.
        """
        rows = self._numbers(rows)
        selected = type(self).__new__(type(self))
        selected.__dict__.update(self.__dict__)
        selected._rows = rows if self._rows is None else self._rows[rows]
        selected.shape = (rows.size, *self.shape[1:])
        return selected

    def chunks(
        self, multiple_of: int = 1, num_bytes: int | None = None
    ) -> Iterator[np.ndarray]:
        """Yields all rows in order, by default some 64 MiB of them at a time.

        Args:
            multiple_of: the rows of each chunk but the last are a multiple of it, and
                one multiple at least.
            num_bytes: of a chunk.
        """
        num_bytes = num_bytes or _CHUNK_BYTES
        row_bytes = max(1, self.nbytes // max(1, len(self)))
        size = max(1, num_bytes // (multiple_of * row_bytes)) * multiple_of
        for start in range(0, len(self), size):
            yield self[start : start + size]

    @classmethod
    def concatenate(cls, arrays: Sequence[Self]) -> Self:
        """Several of them, one after the other, as one; nothing is read or copied."""
        joined = cls([path for array in arrays for path in array._paths])
        if any(array._rows is not None for array in arrays):
            starts = itertools.accumulate((int(a._ends[-1]) for a in arrays), initial=0)
            rows = [
                start + (np.arange(len(a)) if a._rows is None else a._rows)
                for start, a in zip(starts, arrays, strict=False)
            ]
            return joined.select(np.concatenate(rows))
        return joined

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_mapped"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._open_files()

    def _open_files(self):
        # What is no longer asked for is closed; whoever still reads it keeps it open.
        paths, offsets, ends = self._paths, self._offsets, self._ends
        lengths = np.diff(ends, prepend=0)
        row_shape, dtype = self.shape[1:], self.dtype

        @functools.lru_cache(_OPEN_FILES)
        def mapped(number):
            shape = (int(lengths[number]), *row_shape)
            return _Mapped(paths[number], offsets[number], shape, dtype)

        self._mapped = mapped

    def _numbers(self, rows):
        """Row numbers from 0, int64 `[M]`, of all that NumPy takes for them."""
        numbers = np.asarray(rows)
        if numbers.dtype == bool and numbers.shape == (len(self),):
            return np.flatnonzero(numbers)
        if numbers.size == 0 and numbers.ndim == 1:
            return np.zeros(0, np.int64)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise IndexError(
                f"A StoredArray is indexed by rows: a number, a slice, whole numbers "
                f"[M] or a mask [N]; received {rows!r}. np.asarray of it is an array "
                f"in memory."
            )
        numbers = numbers.astype(np.int64)
        if numbers.min() < -len(self) or numbers.max() >= len(self):
            raise IndexError(
                f"There are {len(self)} rows; received row numbers from "
                f"{numbers.min()} to {numbers.max()}."
            )
        return np.where(numbers < 0, numbers + len(self), numbers)

    def _read(self, start, stop):
        """Rows that follow each other, of all the files."""
        read = np.empty((stop - start, *self.shape[1:]), self.dtype)
        row_bytes = read.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
        bits = read.reshape(-1).view(np.uint8)
        first = 0
        for path, offset, end in zip(
            self._paths, self._offsets, self._ends.tolist(), strict=True
        ):
            low, high = max(start, first), min(stop, end)
            if low < high:
                place = slice((low - start) * row_bytes, (high - start) * row_bytes)
                with open_plain(path) as file:
                    file.seek(offset + (low - first) * row_bytes)
                    got = file.readinto(bits[place])
                if got != place.stop - place.start:
                    raise _cut_short(path)
            first = end
        return read


def _head(path):
    """Shape, dtype and the place of the first row, of a `.npy` file."""
    with open_plain(path) as file:
        try:
            head = read_npy_header(file, os.fstat(file.fileno()).st_size)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}.") from error
    shape, dtype, offset = head
    if not shape or 0 in shape[1:]:
        raise ValueError(f"{path} is no .npy file of rows: its shape is {list(shape)}.")
    return shape, np.dtype(ml_dtypes.bfloat16) if dtype == _BITS else dtype, offset


class _Mapped:
    """The rows of one file, as they lie on the disk."""

    def __init__(self, path, offset, shape, dtype):
        count = math.prod(shape)
        self._path, self._end = path, offset + count * dtype.itemsize
        with open_plain(path) as file:
            if os.fstat(file.fileno()).st_size < self._end:
                raise _cut_short(path)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            # Else the system reads 128 KiB around each row, most of which is not
            # wanted.
            self._map.madvise(mmap.MADV_RANDOM)
        self._rows = np.frombuffer(self._map, dtype, count, offset).reshape(shape)

    def take(self, rows):
        """Some rows, in memory."""
        # A page beyond the end of a file that was cut would end the process (SIGBUS).
        if self._map.size() < self._end:
            raise _cut_short(self._path)
        return self._rows.take(rows, axis=0)


def _cut_short(path):
    return ValueError(
        f"{path} was cut short after it was opened. Files of a StoredArray must stay "
        f"as they are; write it anew."
    )
