"""Reads a set of shards as `LabeledFeatures`, with the features left on disk."""

import os

import numpy as np

from tf_pseudofeat.core.files import local_path
from tf_pseudofeat.core.finite import check_real
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.extraction.shard_index import (
    INDEX,
    KINDS,
    check_content,
    check_sizes,
    read_index,
    shards_in,
)

__all__ = ["indexed_shards", "load_features", "open_arrays"]


def indexed_shards(folder):
    """The names of the shards of a set, in order; empty if there is no index yet.

    Raises:
        ValueError: If the index is invalid, or of another version.
    """
    folder = local_path(folder, "folder")
    if not (folder / INDEX).exists():
        return []
    return [shard["name"] for shard in read_index(folder)["shards"]]


def load_features(folder: str | os.PathLike, verify: bool = True) -> LabeledFeatures:
    """Loads the features of an earlier extraction.

    Each file must be a regular file in the folder, with the size, dtype and shape that
    the index has. Labels and weights are read and their checksums compared; so are the
    features, unless `verify` is False.

    Args:
        folder: `cache_dir` of `extract_features`, or the folder of `write_index`.
        verify: whether to read the features once, to compare their checksums and check
            that they are finite. This takes the time to read them from disk, or half a
            second per GiB from the cache of the system. Pass False if another process
            has already verified a large set.

    Returns:
        extracted: `LabeledFeatures`; labels and weights are in memory, the features are
            a `StoredArray`.

    Raises:
        ValueError: If the folder has no set, an incomplete one, or one whose files were
            changed; the message names the file.
        OSError: If a file cannot be read.

    Examples:
        >>> features, labels = load_features("features")
    """
    folder = local_path(folder, "folder")
    _check_indexed(folder)
    content = read_index(folder)
    checksums = {shard["name"]: shard["files"] for shard in content["shards"]}
    lengths = [shard["rows"] for shard in content["shards"]]
    kinds = [kind for kind in KINDS if kind in content]
    arrays = open_arrays(folder, kinds, checksums)
    for kind, array in arrays.items():
        received = {"shape": list(array.shape[1:]), "dtype": array.dtype.name}
        if received != content[kind] or array.lengths != lengths:
            raise ValueError(
                f"The {kind} in {folder} are {len(array)} rows of {received}, but "
                f"{INDEX} has {sum(lengths)} of {content[kind]}, or other numbers of "
                f"rows per file: files were changed. Extract the features again."
            )
        _check_dtype(folder, kind, array.dtype)
        if verify or kind != "features":
            _check_contents(folder, kind, array, checksums)
    labels = arrays["labels"][:]
    weights = arrays["weights"][:] if "weights" in arrays else None
    try:
        return LabeledFeatures(arrays["features"], labels, weights)
    except ValueError as error:
        raise ValueError(
            f"{folder} does not hold a valid set of features: {error}"
        ) from error


def open_arrays(folder, kinds, checksums):
    """Returns {kind: `StoredArray`} of shards, after a check of the file sizes."""
    for name, files in checksums.items():
        check_sizes(folder, name, files)
    return {
        kind: StoredArray(folder / f"{kind}-{name}.npy" for name in checksums)
        for kind in kinds
    }


def _check_dtype(folder, kind, dtype):
    """Raises if a dtype is not one that `ShardWriter` writes on this machine."""
    check_real(np.empty(0, dtype), f"The {kind} in {folder}")
    is_bool = kind == "features" and dtype.kind == "b"
    if not dtype.isnative or dtype.itemsize > 8 or is_bool:
        raise ValueError(
            f"The {kind} in {folder} have dtype {dtype!r}, which `ShardWriter` does "
            f"not write: files were changed, or come from another kind of machine. "
            f"Extract the features again."
        )


def _check_contents(folder, kind, array, checksums):
    row_bytes = array.nbytes // len(array)
    for (name, files), rows in zip(checksums.items(), array.lengths, strict=True):
        path = folder / f"{kind}-{name}.npy"
        check_content(path, files[kind], array.dtype, rows * row_bytes)


def _check_indexed(folder):
    if (folder / INDEX).exists():
        return
    names = shards_in(folder)
    what = f"{len(names)} unfinished shards" if names else "no features"
    raise ValueError(
        f"{folder} has no {INDEX}, so it holds {what}. "
        + (
            "A run was killed, or is still running: extract the features again, to "
            "another folder."
            if names
            else "extract_features(..., cache_dir=) writes some."
        )
    )
