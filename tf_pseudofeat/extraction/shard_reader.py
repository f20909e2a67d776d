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
    arrays = open_arrays(folder, kinds, checksums)
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


def open_arrays(folder, kinds, checksums):
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
