"""Checks of the folder of a set, and atomic writes of its files."""

import io
import json
import shutil
import zlib

import numpy as np
from numpy.lib import format as npy

from tf_pseudofeat.core.files import (
    check_writable,
    local_path,
    missing_folders,
    remove_empty,
    whole_file,
)
from tf_pseudofeat.extraction.shard_index import INDEX, shard_files, shards_in

__all__ = [
    "check_free",
    "check_no_index",
    "make_folder",
    "npy_pieces",
    "remove_shards",
    "shared_folder",
    "write_json",
    "write_pieces",
]


def shared_folder(folder):
    """Returns the path of a folder that workers share; raises for a bucket's URL."""
    if "://" in str(folder):
        raise ValueError(
            f"Shards are mapped into memory, which {folder} does not support. Mount "
            f"the bucket, or write to a network file system."
        )
    return local_path(folder, "folder")


def check_free(folder):
    """Raises, before any work, if a new set cannot be written to a folder."""
    folder = local_path(folder, "folder")
    check_no_index(folder)
    names = shards_in(folder)
    if names:
        raise ValueError(
            f"{folder} holds {len(names)} shards without {INDEX}: their writer was "
            f"killed, or is still running. Delete the folder, or pass another."
        )
    check_writable(folder)


def make_folder(folder):
    """Creates a folder and its parents; returns the new ones, innermost first."""
    missing = missing_folders(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remove_empty(missing)
        raise OSError(
            error.errno,
            f"The folder {folder} cannot be created ({error.strerror}). Pass another.",
        ) from error
    return missing


def check_no_index(folder):
    """Raises if a folder already holds a complete set."""
    if (folder / INDEX).exists():
        raise ValueError(
            f"{folder} already holds a set of features. load_features({str(folder)!r}) "
            f"reads it; for a new one pass another folder, or delete this one."
        )


def remove_shards(folder, prefix=None):
    """Removes the files of all shards, or of those with a prefix."""
    for path, _, shard in list(shard_files(folder)):
        if prefix in (None, shard.rstrip("0123456789")):
            path.unlink(missing_ok=True)


def npy_pieces(array):
    """The pieces of a `.npy` file; errors of `np.save` do not give the reason."""
    # NumPy's format has no bfloat16, but opaque bytes.
    bits = array.view("V2") if array.dtype.kind == "V" else array
    head = io.BytesIO()
    npy.write_array_header_1_0(head, npy.header_data_from_array_1_0(bits))
    return [head.getvalue(), memoryview(bits.reshape(-1).view(np.uint8))]


def write_json(path, content):
    """Writes a JSON file, see `write_pieces`."""
    write_pieces(path, [(json.dumps(content, indent=1) + "\n").encode()])


def write_pieces(path, pieces):
    """Writes a file atomically; errors give its size and the free space.

    Returns:
        checksum: {"bytes": size, "crc32": checksum of the pieces}.
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
            f"({error.strerror}); {free:,.1f} MiB are free there. Free some space, or "
            f"pass another folder.",
        ) from error
    return {"bytes": needed, "crc32": crc32}
