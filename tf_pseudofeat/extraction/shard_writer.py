"""Writes features to files, for sets larger than memory that are read by rows.

A folder holds, for each shard of about 64 MiB, `features-00000.npy`, `labels-00000.npy`
and, if examples have weights, `weights-00000.npy`; `checksums-00000.json` with their
sizes and CRC-32; and `index.json`, which lists the shards with these checksums, their
rows, dtypes and shapes. The index is written last, so a folder without one is
incomplete. No file uses pickle.

The files are arrays rather than TFRecords, because rows can be read by number. So the
training stream keeps exact epochs in a uniformly shuffled order, bit for bit as from
memory; records could only be shuffled in a buffer.

On disk a row of float32 features takes `4 D + 8` bytes with an int64 label, plus about
800 bytes per shard. Labels and weights stay in memory; the README has measurements for
a million rows.
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
    index_of,
    read_checksums,
    shards_in,
    sorted_shards,
)
from tf_pseudofeat.extraction.shard_reader import open_arrays

__all__ = ["ShardWriter", "new_set", "write_index"]

_SHARD_BYTES = 2**26


class ShardWriter:
    """Writes labeled features to a folder in shards.

    A context manager: on exit the last shard is written; on an error or interrupt its
    shards are removed, and the folder if a writer without a prefix created it. One
    shard is held in memory. Several writers may write to one folder, each with its own
    prefix; at the end, `write_index` combines their shards into a set.

    Args:
        folder: created if it does not exist.
        rows_per_shard: rows per file; by default about 64 MiB.
        prefix: prefix of the names of shards: letters, digits, `_`, `-` and `.`. Must
            be unique among the writers of the folder.

    Attributes:
        shards: names of the complete shards, see `write_index`.

    Raises:
        ValueError: If `prefix` is not such a name or was used before, or the folder
            holds a set; in `add`, if features, labels and weights do not match each
            other or earlier batches, or are NaN or infinite.
        OSError: If the folder cannot be written to.

    Examples:
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
                f"`prefix` must consist of letters, digits, '_', '-' and '.'; received "
                f"{prefix!r}."
            )
        self._folder = local_path(folder, "folder")
        self._rows_per_shard = rows_per_shard
        self._prefix = f"{prefix}-" if prefix else ""
        self._buffers = None
        self._filled = 0
        self.shards = []
        made = make_folder(self._folder)
        # Writers with a prefix share the folder, so none of them removes it.
        self._made = [] if prefix else made
        check_no_index(self._folder)
        mine = re.compile(re.escape(self._prefix) + r"\d{5,}")
        taken = [name for name in shards_in(self._folder) if mine.fullmatch(name)]
        if taken:
            raise ValueError(
                f"{self._folder} already holds {len(taken)} shards with prefix "
                f"{prefix!r} (such as {taken[0]}), of another writer or of a run that "
                f"was killed. Pass another prefix, or delete them."
            )

    def add(
        self,
        features: npt.ArrayLike,
        labels: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            features: `[B, ...]`, with the same shape and dtype in every batch.
            labels: `[B]`, `[B, 1]` or one-hot `[B, C]`.
            sample_weight: `[B]` in every batch, or None in every batch.
        """
        data = LabeledFeatures.of_batch(features, labels, sample_weight)
        if data is not None:  # a batch may be empty
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
        """Writes the remaining rows."""
        if self._filled:
            self._write()
        self._buffers = None

    def discard(self) -> None:
        """Removes the shards that were written."""
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
                f"All batches must have the same shapes and dtypes; received {now} "
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
        check_no_index(self._folder)  # of a set without this shard
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
    """Combines the shards in a folder into a set, as the last step of writing.

    Args:
        folder: folder of one or several `ShardWriter`.
        shards: names of the shards of the set, from `shards` of the writers, if there
            may be others from failed attempts; by default all. They are sorted by name.

    Raises:
        ValueError: If there is no shard, one is incomplete or unlike the others, or the
            folder already has an index.
        OSError: If it cannot be written.
    """
    folder = local_path(folder, "folder")
    check_no_index(folder)
    names = shards_in(folder)
    if shards is None:
        broken = [name for name, kinds in names.items() if CHECKSUMS not in kinds]
        if broken:
            raise ValueError(
                f"{folder} holds {len(broken)} incomplete shards (such as "
                f"{broken[0]}): a writer is running, or was killed. Wait for it, "
                f"delete their files, or pass the names of the complete ones, "
                f"`shards=`."
            )
        shards = names
    shards = sorted_shards(shards)
    unknown = [name for name in shards if CHECKSUMS not in names.get(name, ())]
    if unknown or not shards:
        raise ValueError(
            f"{folder} has no shard {unknown[0] if unknown else 'at all'}; there are "
            f"{len(names)}. A writer without rows writes none."
        )
    checksums = {name: read_checksums(folder, name) for name in shards}
    kinds = list(checksums[shards[0]])
    if any(files.keys() != set(kinds) for files in checksums.values()):
        raise ValueError(
            f"In {folder} some shards have weights and others do not; all or none must "
            f"have them."
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
    """Context manager that creates the folder of one set, and indexes it on exit.

    On an error or interrupt the shards and the new folders are removed.

    Args:
        folder: see `check_free`.

    Yields:
        folder: the folder for `ShardWriter`.
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
