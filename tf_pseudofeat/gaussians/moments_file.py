"""Saves and loads `ClassMoments`, which can be merged with others later."""

import dataclasses
import errno
import os
import zipfile

import numpy as np
from numpy.lib import format as npy

from tf_pseudofeat.core.files import local_path, open_plain, whole_file
from tf_pseudofeat.core.npy_header import read_npy_header
from tf_pseudofeat.gaussians.moments import ClassMoments
from tf_pseudofeat.gaussians.moments_check import check_moments, check_shapes

__all__ = ["load_moments", "read_moments", "save_moments"]

_FIELDS = [field.name for field in dataclasses.fields(ClassMoments)]


def save_moments(moments: ClassMoments, file: object) -> None:
    """Saves `ClassMoments` losslessly as an `.npz` file.

    The same moments always give the same bytes. If `file` is a path, the file is
    replaced atomically.

    Args:
        moments: `ClassMoments`.
        file: path, or a binary file that is open for writing.

    Raises:
        OSError: If the file cannot be written.
        TypeError: If `moments` or `file` has another type.
        ValueError: If `file` is on another file system, `gs://...`.
    """
    if not isinstance(moments, ClassMoments):
        raise TypeError(
            f"`moments` must be a ClassMoments; received {type(moments).__name__}. A "
            f"ClassConditionalGaussian has them as `moments`."
        )
    arrays = {name: value for name, value in vars(moments).items() if value is not None}
    if hasattr(file, "write"):
        np.savez(file, **arrays)
        return
    with whole_file(local_path(file, "file")) as aside, open(aside, "wb") as opened:
        np.savez(opened, **arrays)


def load_moments(file: object) -> ClassMoments:
    """Loads `ClassMoments` that `save_moments` wrote. No code in the file is run.

    Headers are checked before the arrays are read, and the numbers afterwards, with a
    Cholesky factor of each scatter of "full" and "tied".

    Args:
        file: path, or a seekable binary file that is open for reading.

    Returns:
        moments: `ClassMoments`.

    Raises:
        OSError: If the file does not exist or cannot be read.
        TypeError: If `file` has another type.
        ValueError: If it is not such a file, is truncated or compressed, or cannot hold
            statistics of any examples; or if it is not a regular file, or on another
            file system.

    Examples:
        >>> days = [load_moments("monday.npz"), load_moments("tuesday.npz")]
        >>> moments = merge_moments(*days)
    """
    if hasattr(file, "read"):
        moments = read_moments(file)
        check_moments(moments, "The file")
        return moments
    path = local_path(file, "file")
    with open_plain(path) as opened:
        moments = read_moments(opened, path)
    check_moments(moments, path)
    return moments


def read_moments(file, name="The file"):
    """Loads moments from a trusted file: `load_moments` without checks of the numbers.

    Shapes and dtypes are checked before anything is read.

    Args:
        file: seekable binary file that is open for reading.
        name: name of the file, for error messages.

    Returns:
        moments: `ClassMoments`.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = _members(archive, file.seek(0, os.SEEK_END))
            heads = {field: _head(archive, info) for field, info in members.items()}
            kind = _kind(archive, members, heads)
            check_shapes(heads, kind, name)
            arrays = {field: _array(archive, members[field]) for field in heads}
    except OSError as error:
        if error.errno != errno.EINVAL:  # an invalid position in the file
            raise
        raise _no_moments_file(name, error) from error
    except Exception as error:  # `zipfile` may raise anything
        raise _no_moments_file(name, error) from error
    return ClassMoments(**arrays, kind=kind)


def _no_moments_file(name, error):
    return ValueError(
        f"{name} is not a file of moments, an .npz of {', '.join(_FIELDS)}, as written "
        f"by save_moments(moments, file): {error or type(error).__name__}"
    )


def _members(archive, num_bytes):
    """Returns {field: entry of the archive}, after a check of the sizes."""
    entries = archive.infolist()
    members = {entry.filename.removesuffix(".npy"): entry for entry in entries}
    names = [entry.filename for entry in entries]
    if sorted(names) != sorted(f"{name}.npy" for name in members.keys() & set(_FIELDS)):
        raise ValueError(f"it has entries {names[:9]}")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(f"{entry.filename} is compressed or encrypted")
    claimed = sum(entry.file_size for entry in entries)
    if claimed > num_bytes:
        raise ValueError(f"it has {num_bytes} bytes, but entries of {claimed}")
    return members


def _head(archive, entry):
    with archive.open(entry) as member:
        shape, dtype, _ = read_npy_header(member, entry.file_size)
    return shape, dtype


def _kind(archive, members, heads):
    """Reads the kind of moments, and removes its header from the others."""
    shape, dtype = heads.pop("kind")
    if shape or dtype.kind != "U":
        raise ValueError(f"its `kind` is {dtype} {list(shape)}, not a string")
    return str(_array(archive, members["kind"]))


def _array(archive, entry):
    with archive.open(entry) as member:
        return npy.read_array(member)
