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
import os
import re
from collections.abc import Iterable
from typing import Self

import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.files import local_path, remove_empty
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.validation import whole_number
from tf_pseudofeat.extraction.shard_folder import (
    check_free,
    check_no_index,
    make_folder,
    npy_pieces,
    remove_shards,
    write_json,
    write_pieces,
)
from tf_pseudofeat.extraction.shard_index import (
    CHECKSUMS,
    INDEX,
    KINDS,
    in_order,
    index_of,
    read_checksums,
    shards_in,
)
from tf_pseudofeat.extraction.shard_reader import open_arrays

__all__ = ["ShardWriter", "new_set", "write_index"]

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
        made = make_folder(self._folder)
        # Writers with a prefix share the folder: the others still need it.
        self._made = [] if prefix else made
        check_no_index(self._folder)
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
        remove_shards(self._folder, self._prefix)
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
        check_no_index(self._folder)  # of a set that would not have this shard
        name = f"{self._prefix}{len(self.shards):05d}"
        checksums = {}
        for kind in KINDS:
            if kind in self._buffers:
                path = self._folder / f"{kind}-{name}.npy"
                rows = self._buffers[kind][: self._filled]
                checksums[kind] = write_pieces(path, npy_pieces(rows))
        write_json(self._folder / f"{CHECKSUMS}-{name}.json", checksums)
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
    check_no_index(folder)
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
    arrays = open_arrays(folder, kinds, checksums)
    lengths = arrays["features"].lengths
    if any(array.lengths != lengths for array in arrays.values()):
        raise ValueError(
            f"In {folder} features, labels and weights differ in length: "
            f"{ {kind: len(array) for kind, array in arrays.items()} }."
        )
    write_json(folder / INDEX, index_of(arrays, checksums))


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
    made = make_folder(folder)
    try:
        yield folder
        write_index(folder)
    except BaseException:
        remove_shards(folder)
        remove_empty(made)
        raise
