"""Features in files: a set larger than memory, written once and read by the row.

A folder holds, for each shard of some 64 MiB, `features-00000.npy`, `labels-00000.npy`
and, where examples have weights, `weights-00000.npy`; `checksums-00000.json` with their
sizes and CRC-32; and `index.json`, which names the shards with all of that, their rows,
dtypes and shapes. The index is written last, so a folder without one is not whole. No
file is pickled.

The files are arrays and not TFRecords because a row of them can be read by its number.
So the stream of a head's training keeps its exact epochs in a uniformly shuffled order,
the same to the bit as from memory; records could only be shuffled in a buffer.

On disk a row of float32 features takes `4 D + 8` bytes with an int64 label, and some
800 bytes a shard. In memory stay labels and weights, and what is made of them; the
README says how much that was, and how long a million rows took.
"""

import contextlib
import io
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterable
from typing import Self

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from tf_pseudofeat.core.arguments import check_real, whole_number
from tf_pseudofeat.core.files import (
    local_path,
    missing_folders,
    remove_empty,
    whole_file,
)
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.stored import StoredArray
from tf_pseudofeat.extraction.shard_index import (
    CHECKSUMS,
    INDEX,
    KINDS,
    check_content,
    check_sizes,
    in_order,
    index_of,
    read_checksums,
    read_index,
    shard_files,
    shards_in,
)

__all__ = [
    "ShardWriter",
    "check_free",
    "indexed_shards",
    "load_features",
    "new_set",
    "write_index",
]

_SHARD_BYTES = 2**26


class ShardWriter:
    """Writes labeled features into a folder, shard by shard.

    A context manager: what is left is written when it ends; on an error or an
    interrupt, its shards are removed, and the folder if a writer without a prefix made
    it. One shard is held in memory. Several writers may write into one folder, each
    with a prefix of its own; when all are done, `write_index` makes their shards a set.

    Args:
        folder: made where it is not there.
        rows_per_shard: rows of a file; by default what makes about 64 MiB.
        prefix: of the shards' names: letters, digits, `_`, `-` and `.`. No other
            writer of the folder may have it.

    Attributes:
        shards: names of the shards that are whole, see `write_index`.

    Raises:
        ValueError: `prefix` is no such name or was used before; the folder holds a
            set; in `add`, features, labels and weights do not belong together, or
            with those before, or are NaN or infinite.
        OSError: The folder cannot be written to, with the reason.

    Example:

    >>> with ShardWriter("features", prefix="worker-3") as writer:
    ...     writer.add(features, labels)
    >>> write_index("features")
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        rows_per_shard: int | None = None,
        prefix: str = "",
    ) -> None:
        if rows_per_shard is not None:
            rows_per_shard = whole_number("rows_per_shard", rows_per_shard)
        if not isinstance(prefix, str) or not re.fullmatch(r"[\w.-]*", prefix):
            raise ValueError(
                f"`prefix` is of letters, digits, '_', '-' and '.'; received "
                f"{prefix!r}."
            )
        self._folder = local_path(folder, "folder")
        self._rows_per_shard = rows_per_shard
        self._prefix = f"{prefix}-" if prefix else ""
        self._buffers = None
        self._filled = 0
        self.shards = []
        made = _make(self._folder)
        # Writers with a prefix share the folder: the others still need it.
        self._made = [] if prefix else made
        _check_no_index(self._folder)
        mine = re.compile(re.escape(self._prefix) + r"\d{5,}")
        taken = [name for name in shards_in(self._folder) if mine.fullmatch(name)]
        if taken:
            raise ValueError(
                f"{self._folder} holds shards with prefix {prefix!r} already "
                f"({taken[0]} and others, {len(taken)} in all), of another writer or "
                f"of a run that was killed. Take another prefix, or delete them."
            )

    def add(
        self,
        features: npt.ArrayLike,
        labels: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            features: `[B, ...]`, of the same shape and dtype each time.
            labels: `[B]`, `[B, 1]` or one-hot `[B, C]`.
            sample_weight: `[B]`, or None; given always or never.
        """
        data = LabeledFeatures.of_batch(features, labels, sample_weight)
        if data is not None:  # a batch of a worker may be of nothing
            self.write(data)

    def write(self, data: LabeledFeatures) -> None:
        """Adds `LabeledFeatures`, see `add`."""
        batch = {"labels": data.labels, "features": data.features}
        if data.sample_weight is not None:
            batch = {"weights": data.sample_weight, **batch}
        self._check(batch)
        if self._buffers is None:
            self._buffers = self._empty(batch)
        count, start = len(data), 0
        while start < count:
            stop = min(count, start + self._rows_per_shard - self._filled)
            place = slice(self._filled, self._filled + stop - start)
            for kind, array in batch.items():
                self._buffers[kind][place] = array[start:stop]
            self._filled, start = place.stop, stop
            if self._filled == self._rows_per_shard:
                self._write()

    def close(self) -> None:
        """Writes what is left."""
        if self._filled:
            self._write()
        self._buffers = None

    def discard(self) -> None:
        """Removes what was written."""
        self._buffers, self._filled = None, 0
        _remove(self._folder, self._prefix)
        remove_empty(self._made)
        self.shards = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind, error, traceback):
        if kind is not None:
            self.discard()
            return
        try:
            self.close()
        except BaseException:
            self.discard()
            raise

    def _check(self, batch):
        if self._buffers is None:
            return
        before, now = (
            {k: f"{list(a.shape[1:])} {a.dtype}" for k, a in arrays.items()}
            for arrays in (self._buffers, batch)
        )
        if before != now:
            raise ValueError(
                f"The rows of a set are of one kind; received shapes and dtypes {now} "
                f"after {before}."
            )

    def _empty(self, batch):
        if self._rows_per_shard is None:
            row_bytes = max(1, batch["features"][:1].nbytes)
            self._rows_per_shard = max(1, _SHARD_BYTES // row_bytes)
        return {
            kind: np.empty((self._rows_per_shard, *array.shape[1:]), array.dtype)
            for kind, array in batch.items()
        }

    def _write(self):
        _check_no_index(self._folder)  # of a set that would not have this shard
        name = f"{self._prefix}{len(self.shards):05d}"
        checksums = {}
        for kind in KINDS:
            if kind in self._buffers:
                path = self._folder / f"{kind}-{name}.npy"
                rows = self._buffers[kind][: self._filled]
                checksums[kind] = _write_whole(path, _file_of(rows))
        _write_json(self._folder / f"{CHECKSUMS}-{name}.json", checksums)
        self._filled = 0
        self.shards.append(name)


def write_index(folder: str | os.PathLike, shards: Iterable[str] | None = None) -> None:
    """Makes a set of the shards in a folder: the last step of writing one.

    Args:
        folder: that one or several `ShardWriter` wrote to.
        shards: names of those that count, as the writers' `shards` tell, where others
            may lie there of attempts that failed; by default all. They are put in the
            order of their names.

    Raises:
        ValueError: There is no shard, one is not whole or unlike the others, or the
            folder has an index.
        OSError: It cannot be written.
    """
    folder = local_path(folder, "folder")
    _check_no_index(folder)
    names = shards_in(folder)
    if shards is None:
        broken = [name for name, kinds in names.items() if CHECKSUMS not in kinds]
        if broken:
            raise ValueError(
                f"{folder} holds shards that are not whole ({broken[0]} and others, "
                f"{len(broken)} in all): a writer is at work, or was killed. Wait for "
                f"it, delete their files, or name those that count, `shards=`."
            )
        shards = names
    shards = in_order(shards)
    unknown = [name for name in shards if CHECKSUMS not in names.get(name, ())]
    if unknown or not shards:
        raise ValueError(
            f"{folder} has no shard {unknown[0] if unknown else 'at all'}; there are "
            f"{len(names)}. A writer that was given no row writes none."
        )
    checksums = {name: read_checksums(folder, name) for name in shards}
    kinds = list(checksums[shards[0]])
    if any(files.keys() != set(kinds) for files in checksums.values()):
        raise ValueError(
            f"In {folder} some shards have weights that others have not; the examples "
            f"of a set all have weights, or none has."
        )
    arrays = _open_arrays(folder, kinds, checksums)
    lengths = arrays["features"].lengths
    if any(array.lengths != lengths for array in arrays.values()):
        raise ValueError(
            f"In {folder} features, labels and weights differ in length: "
            f"{ {kind: len(array) for kind, array in arrays.items()} }."
        )
    _write_json(folder / INDEX, index_of(arrays, checksums))


def indexed_shards(folder):
    """The names of the shards of a set, in order; none where there is no index yet.

    Raises:
        ValueError: The index is not one that this version reads.
    """
    folder = local_path(folder, "folder")
    if not (folder / INDEX).exists():
        return []
    return [shard["name"] for shard in read_index(folder)["shards"]]


def load_features(folder: str | os.PathLike, verify: bool = True) -> LabeledFeatures:
    """The features of an earlier extraction, to use them again.

    Each file must be a plain one in the folder, of the size, dtype and shape that it
    was written with. Labels and weights are read, and their checksums compared; so are
    the features, unless `verify` is False.

    Args:
        folder: `cache_dir` of `extract_features`, or what `write_index` finished.
        verify: whether the features, too, are read once, to compare their checksums and
            to see that they are finite. That takes what the disk takes, and half a
            second for each GiB that it has in its cache. Leave it out where a set of
            terabytes is opened by many processes, of which one has verified it.

    Returns:
        extracted: `LabeledFeatures`; labels and weights in memory, the features a
        `StoredArray`.

    Raises:
        ValueError: The folder holds no set, one that is not whole, or one whose files
            are not those that were written; with the name of the file.
        OSError: It cannot be read.

    Example:

    >>> features, labels = load_features("features")
    """
    folder = local_path(folder, "folder")
    _check_indexed(folder)
    content = read_index(folder)
    checksums = {shard["name"]: shard["files"] for shard in content["shards"]}
    lengths = [shard["rows"] for shard in content["shards"]]
    kinds = [kind for kind in KINDS if kind in content]
    arrays = _open_arrays(folder, kinds, checksums)
    for kind, array in arrays.items():
        received = {"shape": list(array.shape[1:]), "dtype": array.dtype.name}
        if received != content[kind] or array.lengths != lengths:
            raise ValueError(
                f"The {kind} in {folder} are {len(array)} rows of {received}, its "
                f"{INDEX} says {sum(lengths)} of {content[kind]}, or other rows in "
                f"each file: files were changed. Extract anew."
            )
        _check_dtype(folder, kind, array.dtype)
        if verify or kind != "features":
            _check_contents(folder, kind, array, checksums)
    labels = arrays["labels"][:]
    weights = arrays["weights"][:] if "weights" in arrays else None
    try:
        return LabeledFeatures(arrays["features"], labels, weights)
    except ValueError as error:
        raise ValueError(f"{folder} holds no set of features: {error}") from error


def _open_arrays(folder, kinds, checksums):
    """{kind: `StoredArray`} of shards whose files are as large as they were written."""
    for name, files in checksums.items():
        check_sizes(folder, name, files)
    return {
        kind: StoredArray(folder / f"{kind}-{name}.npy" for name in checksums)
        for kind in kinds
    }


def _check_dtype(folder, kind, dtype):
    """What `LabeledFeatures` writes are numbers as this machine has them."""
    check_real(np.empty(0, dtype), f"The {kind} in {folder}")
    is_bool = kind == "features" and dtype.kind == "b"
    if not dtype.isnative or dtype.itemsize > 8 or is_bool:
        raise ValueError(
            f"The {kind} in {folder} have dtype {dtype!r}, which is not written there: "
            f"files were changed, or come from another kind of machine. Extract anew."
        )


def _check_contents(folder, kind, array, checksums):
    row_bytes = array.nbytes // len(array)
    for (name, files), rows in zip(checksums.items(), array.lengths, strict=True):
        path = folder / f"{kind}-{name}.npy"
        check_content(path, files[kind], array.dtype, rows * row_bytes)


def check_free(folder):
    """Raises, before any work, where no new set can be written to a folder."""
    folder = local_path(folder, "folder")
    _check_no_index(folder)
    names = shards_in(folder)
    if names:
        raise ValueError(
            f"{folder} holds {len(names)} shards and no {INDEX}: what wrote them was "
            f"killed, or goes on. Delete the folder, or pass another."
        )
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(
            f"{folder} cannot be a folder: {there} is a file. Pass another path."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{there} may not be written to. Pass a folder that may.")


@contextlib.contextmanager
def new_set(folder):
    """A folder for one set: checked, made, and indexed when the block ends.

    On an error or an interrupt the shards are removed, and the folder and those above
    it, too, as far as they were made here.

    Args:
        folder: see `check_free`.

    Yields:
        folder: for `ShardWriter`.
    """
    folder = local_path(folder, "folder")
    check_free(folder)
    made = _make(folder)
    try:
        yield folder
        write_index(folder)
    except BaseException:
        _remove(folder)
        remove_empty(made)
        raise


def _make(folder):
    """Makes a folder and those above it; returns what was missing, innermost first."""
    missing = missing_folders(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remove_empty(missing)
        raise OSError(
            error.errno,
            f"The folder {folder} cannot be made ({error.strerror}). Pass another.",
        ) from error
    return missing


def _check_no_index(folder):
    if (folder / INDEX).exists():
        raise ValueError(
            f"{folder} holds a set of features already. load_features({str(folder)!r}) "
            f"reads it; for a new one pass another folder, or delete this one."
        )


def _check_indexed(folder):
    if (folder / INDEX).exists():
        return
    names = shards_in(folder)
    what = f"{len(names)} shards that nobody finished" if names else "no features"
    raise ValueError(
        f"{folder} has no {INDEX}, so it holds {what}. "
        + (
            "A run was killed, or goes on: extract anew into another folder."
            if names
            else "extract_features(..., cache_dir=) writes some."
        )
    )


def _remove(folder, prefix=None):
    for path, _, shard in list(shard_files(folder)):
        if prefix in (None, shard.rstrip("0123456789")):
            path.unlink(missing_ok=True)


def _file_of(array):
    """The pieces of a `.npy` file; `np.save` does not tell why a disk refused one."""
    # NumPy's format has no bfloat16, but bytes without a meaning.
    bits = array.view("V2") if array.dtype.kind == "V" else array
    head = io.BytesIO()
    npy.write_array_header_1_0(head, npy.header_data_from_array_1_0(bits))
    return [head.getvalue(), memoryview(bits.reshape(-1).view(np.uint8))]


def _write_json(path, content):
    _write_whole(path, [(json.dumps(content, indent=1) + "\n").encode()])


def _write_whole(path, pieces):
    """A whole file, or an error that says how large it is and what is free.

    Returns:
        checksum: {"bytes": its size, "crc32": of what was to be written}.
    """
    crc32, needed = 0, sum(map(len, pieces))
    try:
        with whole_file(path) as aside, open(aside, "wb") as file:
            for piece in pieces:
                crc32 = zlib.crc32(piece, crc32)
                file.write(piece)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free / 2**20
        raise OSError(
            error.errno,
            f"{path} of {needed / 2**20:,.1f} MiB cannot be written "
            f"({error.strerror}); {free:,.1f} MiB are free there. Make room, or pass "
            f"another folder.",
        ) from error
    return {"bytes": needed, "crc32": crc32}
