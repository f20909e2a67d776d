"""What is known of the files of a set of features: their names, sizes and checksums.

Each shard has a file `checksums-00000.json` with the size and the CRC-32 of its arrays,
as its writer knew them when it wrote. The index of the folder gathers them. All of it
is checked here before it is believed: a name leads to no other folder, a key that is
unknown is an error, and so is what is no plain file.
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
    "in_order",
    "index_of",
    "read_checksums",
    "read_index",
    "shard_files",
    "shards_in",
]

INDEX = "index.json"
KINDS = ("weights", "labels", "features")
CHECKSUMS = "checksums"  # written last: it makes the shard whole
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
    """Yields `(path, kind, shard)` of the files of shards; kind None of a part."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _FILE.fullmatch(path.name)
        if match:
            kind = None if match[1] else match[2] or match[4]
            yield path, kind, match[3] or match[5]


def shards_in(folder):
    """{name of a shard: kinds of its files} of all that lie there, whole or not."""
    found = {}
    for _, kind, shard in shard_files(folder):
        found.setdefault(shard, set()).update([kind] if kind else [])
    return {name: found[name] for name in in_order(found)}


def in_order(names):
    """Names of shards, each once, in the order that a set has them in."""
    return sorted(set(names), key=_order)


def _order(name):
    """By prefix and number; five digits are not enough for every set."""
    prefix, _, number = name.rpartition("-")
    return prefix, len(number), number


# What a file says.


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
    """Size and checksum of the arrays of a shard, as its writer left them.

    Returns:
        checksums: {kind: {"bytes": size, "crc32": checksum}}.

    Raises:
        ValueError: The file is not what a writer leaves.
    """
    return _read(folder / f"{CHECKSUMS}-{name}.json", _check_checksums)


def read_index(folder):
    """The index of a set.

    Returns:
        content: {"shards": [{"name", "rows", "files": see `read_checksums`}], and for
        each kind {"shape": of a row, "dtype": its name}}.

    Raises:
        ValueError: It is not one that this version reads.
    """
    return _read(folder / INDEX, _check_index)


def _read(path, check):
    """JSON of a plain file, checked."""
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
            f"{path} is not what this version writes: {reason}. Files were changed, "
            f"or are of another version: extract anew."
        ) from error
    return content


def _distinct(pairs):
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError(f"a key twice among {[key for key, _ in pairs]}")
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
    if names != in_order(names):
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
    # A name leads to no place outside the folder.
    fits = isinstance(name, str) and len(name) <= _NAME_CHARACTERS
    if not fits or not re.fullmatch(_SHARD, name):
        raise ValueError(f"{name!r:.80} is no name of a shard")


def _check_type(what, value, kind):
    if not isinstance(value, kind):
        raise ValueError(f"{what} is {value!r:.80}, not a {kind.__name__}")


def _check_keys(what, content, keys):
    _check_type(what, content, dict)
    if content.keys() != keys:
        raise ValueError(f"{what} has keys {sorted(content)}, not {sorted(keys)}")


def _check_number(what, value, least, end=2**63):
    if type(value) is not int or not least <= value < end:
        raise ValueError(f"{what} is {value!r:.80}, not a whole number from {least}")


# What a file is.


def check_sizes(folder, name, checksums):
    """Raises where the arrays of a shard are no plain files of the size they had.

    Raises:
        ValueError: One is not there, a link, no file, or of another size.
    """
    for kind, expected in checksums.items():
        path = folder / f"{kind}-{name}.npy"
        size = _plain_size(path)
        if size != expected["bytes"]:
            raise ValueError(
                f"{path} has {size} bytes, and {expected['bytes']} when it was "
                f"written as {INDEX} has it: one of them is damaged. Extract anew."
            )


def check_content(path, expected, dtype, num_rows_bytes):
    """Reads a file once; raises where it is not what was written, or not finite.

    Args:
        path: of a file that `check_sizes` found.
        expected: {"bytes", "crc32"}.
        dtype: of its numbers.
        num_rows_bytes: how many bytes at its end are numbers.

    Raises:
        ValueError: The checksum is another, or a number is NaN or infinite.
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
            f"{path} has the checksum {crc32}, and {expected['crc32']} when it was "
            f"written as {INDEX} has it: one of them is damaged. Extract anew."
        )
    if not finite:
        raise ValueError(f"{path} has NaN or infinite numbers in it. Extract anew.")


def _plain_size(path):
    """Bytes of a file that is one, and no link to another."""
    try:
        status = os.lstat(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is not there. Extract anew.") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(
            f"{path} is a link, or no plain file. The files of a set lie in its folder "
            f"themselves; copy it there."
        )
    return status.st_size
