"""An array in several files on disk that is read by rows."""

import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.files import local_path, open_plain
from tf_pseudofeat.core.mapped_file import MappedFile, npy_head, truncated_error

__all__ = ["StoredArray"]

# Open files of one array; many systems allow 1,024 per process, some 256.
_OPEN_FILES = 128


_CHUNK_BYTES = 2**26


class StoredArray:
    """The rows of several `.npy` files, one after the other, as one array.

    It has the shape, the dtype and the row indexing of a NumPy array, and holds no rows
    in memory: indexing reads them into a new array. Contiguous rows are read with one
    read per file. Other rows are gathered from memory maps, file by file in ascending
    order, and returned in the requested order; the pages belong to the cache of the
    operating system, which frees them when memory is short. `np.asarray` reads
    everything.

    The files must not change while the array is in use; a truncated file is detected
    before it is read. The array can be pickled: the pickle holds the names of the
    files. Several threads may read at once.

    Args:
        paths: `.npy` files, each `[rows, ...]`, with the same dtype and row shape.

    Attributes:
        shape: `(N, ...)`.
        dtype: NumPy dtype.

    Raises:
        TypeError: If `paths` is a single path, or contains something else.
        ValueError: If a file is damaged, not a regular file, not like the first, or on
            another file system; when rows are read, if it was truncated.
        OSError: If a file cannot be read.

    Examples:
        >>> np.save("features-00000.npy", np.zeros((5, 3), "float32"))
        >>> features = StoredArray(["features-00000.npy"])
        >>> features.shape, features[[4, 0]].shape
        ((5, 3), (2, 3))
    """

    def __init__(self, paths: Iterable[str | os.PathLike]) -> None:
        if isinstance(paths, str | bytes | os.PathLike):
            raise TypeError(
                f"`paths` must be a list of files; received {paths!r}. Pass "
                f"[{paths!r}]."
            )
        self._paths = [os.path.abspath(local_path(path, "paths")) for path in paths]
        if not self._paths:
            raise ValueError("A StoredArray needs at least one file; received none.")
        heads = [npy_head(path) for path in self._paths]
        self.dtype, row_shape = heads[0][1], heads[0][0][1:]
        for path, (shape, dtype, _) in zip(self._paths, heads, strict=True):
            if (shape[1:], dtype) != (row_shape, self.dtype):
                raise ValueError(
                    f"{path} has rows of shape {list(shape[1:])} and dtype {dtype}, "
                    f"{self._paths[0]} of {list(row_shape)} and {self.dtype}. The "
                    f"files of an array must have rows of the same kind."
                )
        self._offsets = [offset for _, _, offset in heads]
        self._ends = np.cumsum([shape[0] for shape, _, _ in heads])
        self._rows = None  # row numbers in the files; None for all
        self.shape = (int(self._ends[-1]), *row_shape)
        self._open_files()

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def lengths(self) -> list[int]:
        """Number of rows of each file."""
        return np.diff(self._ends, prepend=0).tolist()

    @property
    def nbytes(self) -> int:
        """Size of the rows in bytes."""
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
                "The array is on disk, so reading it makes a copy; copy=False is not "
                "possible."
            )
        return self[:].astype(dtype or self.dtype, copy=False)

    def take(self, rows: npt.ArrayLike, axis: int = 0) -> np.ndarray:
        """Reads rows in the given order.

        Args:
            rows: integers `[M]`, where negative ones count from the end, or a mask
                `[N]`.
            axis: must be 0.

        Returns:
            array: `[M, ...]`.
        """
        if axis != 0:
            raise ValueError(f"Only rows can be taken, axis=0; received axis={axis}.")
        rows = self._numbers(rows)
        if self._rows is not None:
            rows = self._rows[rows]
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        taken = np.empty((rows.size, *self.shape[1:]), self.dtype)
        # Where the rows of each file end; files without any are skipped.
        stops = np.searchsorted(rows, self._ends)
        for number in np.flatnonzero(np.diff(stops, prepend=0)):
            start = stops[number - 1] if number else 0
            some = slice(start, stops[number])
            local = rows[some] - (self._ends[number - 1] if number else 0)
            taken[order[some]] = self._mapped(int(number)).take(local)
        return taken

    def select(self, rows: npt.ArrayLike) -> Self:
        """Returns an array of some of the rows, which stay on disk.

        Args:
            rows: as for `take`.

        Returns:
            selected: `StoredArray`; takes 8 bytes of memory for each of its rows.
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
        """Yields all rows in order, in chunks of about 64 MiB by default.

        Args:
            multiple_of: the number of rows of every chunk but the last is a multiple of
                this.
            num_bytes: size of a chunk.
        """
        num_bytes = num_bytes or _CHUNK_BYTES
        row_bytes = max(1, self.nbytes // max(1, len(self)))
        size = max(1, num_bytes // (multiple_of * row_bytes)) * multiple_of
        for start in range(0, len(self), size):
            yield self[start : start + size]

    @classmethod
    def concatenate(cls, arrays: Sequence[Self]) -> Self:
        """Concatenates several arrays without reading or copying them."""
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
        # Files that drop out of the cache are closed once no reader holds them.
        paths, offsets, ends = self._paths, self._offsets, self._ends
        lengths = np.diff(ends, prepend=0)
        row_shape, dtype = self.shape[1:], self.dtype

        @functools.lru_cache(_OPEN_FILES)
        def mapped(number):
            shape = (int(lengths[number]), *row_shape)
            return MappedFile(paths[number], offsets[number], shape, dtype)

        self._mapped = mapped

    def _numbers(self, rows):
        """Converts an index to row numbers, int64 `[M]`."""
        numbers = np.asarray(rows)
        if numbers.dtype == bool and numbers.shape == (len(self),):
            return np.flatnonzero(numbers)
        if numbers.size == 0 and numbers.ndim == 1:
            return np.zeros(0, np.int64)
        if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
            raise IndexError(
                f"A StoredArray is indexed by rows: a number, a slice, integers [M] or "
                f"a mask [N]; received {rows!r}. np.asarray(array) loads it into "
                f"memory."
            )
        numbers = numbers.astype(np.int64)
        if numbers.min() < -len(self) or numbers.max() >= len(self):
            raise IndexError(
                f"There are {len(self)} rows; received row numbers from "
                f"{numbers.min()} to {numbers.max()}."
            )
        return np.where(numbers < 0, numbers + len(self), numbers)

    def _read(self, start, stop):
        """Reads contiguous rows, which may span files."""
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
                    raise truncated_error(path)
            first = end
        return read
