"""The index of a set of features: names, sizes and checksums of its files.

Each shard has a file `checksums-00000.json` with the size and the CRC-32 of its arrays,
written by its writer. The index of the folder collects them. Everything is validated
when it is read: names cannot lead to another folder, and unknown keys and files that
are not regular are errors.
"""

import json
import os
import re
import stat
import zlib

import numpy as np

from tf_pseudofeat.core.files import UNFINISHED

__all__ = [
    "CHECKSUMS",
    "INDEX",
    "KINDS",
    "check_content",
    "check_sizes",
    "index_of",
    "read_checksums",
    "read_index",
    "shard_files",
    "shards_in",
    "sorted_shards",
]

INDEX = "index.json"
KINDS = ("weights", "labels", "features")
CHECKSUMS = "checksums"  # written last: it completes the shard
_FORMAT = "tf_pseudofeat features"
_VERSION = 2  # 1 had no checksums
_PIECE_BYTES = 2**20
_SHARD = r"(?:[\w.-]*-)?\d{5,}"
_FILE = re.compile(
    rf"({re.escape(UNFINISHED)})?(?:({'|'.join(KINDS)})-({_SHARD})\.npy"
    rf"|({CHECKSUMS})-({_SHARD})\.json)"
)
_NAME_CHARACTERS = 200  # file systems have 255 bytes for a name


# Names.


def shard_files(folder):
    """Yields `(path, kind, shard)` of the files of shards; kind None if unfinished."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _FILE.fullmatch(path.name)
        if match:
            kind = None if match[1] else match[2] or match[4]
            yield path, kind, match[3] or match[5]


def shards_in(folder):
    """Returns {name of a shard: kinds of its files}, including incomplete shards."""
    found = {}
    for _, kind, shard in shard_files(folder):
        found.setdefault(shard, set()).update([kind] if kind else [])
    return {name: found[name] for name in sorted_shards(found)}


def sorted_shards(names):
    """Sorts distinct names of shards in the order of the set."""
    return sorted(set(names), key=_order)


def _order(name):
    """Sort key: prefix and number, which may have more than five digits."""
    prefix, _, number = name.rpartition("-")
    return prefix, len(number), number


# Contents.


def index_of(arrays, checksums):
    """The content of an index, see `read_index`.

    Args:
        arrays: {kind: `StoredArray` of all shards}.
        checksums: {name of a shard: see `read_checksums`}, in order.
    """
    lengths = arrays["features"].lengths
    return {
        "format": _FORMAT,
        "version": _VERSION,
        **{
            kind: {"shape": list(array.shape[1:]), "dtype": array.dtype.name}
            for kind, array in arrays.items()
        },
        "shards": [
            {"name": name, "rows": rows, "files": files}
            for (name, files), rows in zip(checksums.items(), lengths, strict=True)
        ],
    }


def read_checksums(folder, name):
    """Reads the size and checksum of the arrays of a shard.

    Returns:
        checksums: {kind: {"bytes": size, "crc32": checksum}}.

    Raises:
        ValueError: If the file is invalid.
    """
    return _read(folder / f"{CHECKSUMS}-{name}.json", _check_checksums)


def read_index(folder):
    """Reads the index of a set.

    Returns:
        content: {"shards": [{"name", "rows", "files": see `read_checksums`}], and for
        each kind {"shape": of a row, "dtype": its name}}.

    Raises:
        ValueError: If it is invalid, or of another version.
    """
    return _read(folder / INDEX, _check_index)


def _read(path, check):
    """Reads and checks the JSON of a regular file."""
    _plain_size(path)
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(
            text, object_pairs_hook=_distinct, parse_constant=_no_number
        )
        check(content)
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path} is not what this version writes: {reason}. Files were changed, or "
            f"are of another version: extract the features again."
        ) from error
    return content


def _distinct(pairs):
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError(f"a duplicate key among {[key for key, _ in pairs]}")
    return content


def _no_number(text):
    raise ValueError(f"{text} for a number")


def _check_index(content):
    _check_type("the whole", content, dict)
    version = content.get("version")
    if content.get("format") != _FORMAT or version != _VERSION:
        raise ValueError(
            f"format {content.get('format')!r} and version {version!r}, not "
            f"{_FORMAT!r} and {_VERSION}"
        )
    kinds = content.keys() & set(KINDS)
    _check_keys("the whole", content, {"format", "version", "shards", *kinds})
    if not {"features", "labels"} <= kinds or not content["shards"]:
        raise ValueError("no shards, features or labels")
    for kind in kinds:
        _check_keys(kind, content[kind], {"shape", "dtype"})
        _check_type(f"`shape` of {kind}", content[kind]["shape"], list)
        _check_type(f"`dtype` of {kind}", content[kind]["dtype"], str)
        for number in content[kind]["shape"]:
            _check_number(f"`shape` of {kind}", number, 1)
    _check_type("`shards`", content["shards"], list)
    for shard in content["shards"]:
        _check_keys("a shard", shard, {"name", "rows", "files"})
        _check_name(shard["name"])
        _check_number("`rows`", shard["rows"], 1)
        _check_checksums(shard["files"], kinds)
    names = [shard["name"] for shard in content["shards"]]
    if names != sorted_shards(names):
        raise ValueError("shards that are not in the order of their names")


def _check_checksums(content, kinds=None):
    _check_type("files", content, dict)
    if kinds is None:
        kinds = {"features", "labels", *(content.keys() & {"weights"})}
    _check_keys("files", content, kinds)
    for kind in kinds:
        _check_keys(kind, content[kind], {"bytes", "crc32"})
        _check_number("`bytes`", content[kind]["bytes"], 1)
        _check_number("`crc32`", content[kind]["crc32"], 0, 2**32)


def _check_name(name):
    # A name must not lead outside the folder.
    fits = isinstance(name, str) and len(name) <= _NAME_CHARACTERS
    if not fits or not re.fullmatch(_SHARD, name):
        raise ValueError(f"{name!r:.80} is not a name of a shard")


def _check_type(what, value, kind):
    if not isinstance(value, kind):
        raise ValueError(f"{what} is {value!r:.80}, not a {kind.__name__}")


def _check_keys(what, content, keys):
    _check_type(what, content, dict)
    if content.keys() != keys:
        raise ValueError(f"{what} has keys {sorted(content)}, not {sorted(keys)}")


def _check_number(what, value, least, end=2**63):
    if type(value) is not int or not least <= value < end:
        raise ValueError(
            f"{what} is {value!r:.80}, not a whole number of at least {least}"
        )


# Files.


def check_sizes(folder, name, checksums):
    """Checks that the arrays of a shard are regular files of the expected sizes.

    Raises:
        ValueError: If one is missing, a link, not a regular file, or of another size.
    """
    for kind, expected in checksums.items():
        path = folder / f"{kind}-{name}.npy"
        size = _plain_size(path)
        if size != expected["bytes"]:
            raise ValueError(
                f"{path} has {size} bytes, but {INDEX} has {expected['bytes']}: one of "
                f"them is damaged. Extract the features again."
            )


def check_content(path, expected, dtype, num_rows_bytes):
    """Checks that a file has the expected checksum and finite numbers.

    Args:
        path: file that passed `check_sizes`.
        expected: {"bytes", "crc32"}.
        dtype: dtype of its numbers.
        num_rows_bytes: number of bytes at the end that hold the numbers.

    Raises:
        ValueError: If the checksum differs, or a number is NaN or infinite.
    """
    finite = True
    with open(path, "rb") as file:
        crc32 = zlib.crc32(file.read(expected["bytes"] - num_rows_bytes))
        while piece := file.read(_PIECE_BYTES):
            crc32 = zlib.crc32(piece, crc32)
            if finite and len(piece) % dtype.itemsize == 0:
                finite = bool(np.isfinite(np.frombuffer(piece, dtype)).all())
    if crc32 != expected["crc32"]:
        raise ValueError(
            f"{path} has the checksum {crc32}, but {INDEX} has {expected['crc32']}: "
            f"one of them is damaged. Extract the features again."
        )
    if not finite:
        raise ValueError(
            f"{path} has NaN or infinite numbers. Extract the features again."
        )


def _plain_size(path):
    """The size of a regular file that is not a link."""
    try:
        status = os.lstat(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing. Extract the features again.") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(
            f"{path} is a link, or not a regular file. The files of a set must be in "
            f"its folder; copy it there."
        )
    return status.st_size
