"""The statistics of the classes as a file, which can be merged with others later."""

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
    """Writes `ClassMoments` as an `.npz` file; no bit of them is lost.

    The same moments always give the same bytes. A file that is named by its path takes
    the place of an old one when it is whole.

    Args:
        moments: `ClassMoments`.
        file: path, or a binary file that is open for writing.

    Raises:
        OSError: The file cannot be written.
        TypeError: `moments` or `file` is something else.
        ValueError: `file` is on another system, `gs://...`.
    """
    if not isinstance(moments, ClassMoments):
        raise TypeError(
            f"`moments` is a ClassMoments; received {type(moments).__name__}. Those of "
            f"a ClassConditionalGaussian are its `moments`."
        )
    arrays = {name: value for name, value in vars(moments).items() if value is not None}
    if hasattr(file, "write"):
        np.savez(file, **arrays)
        return
    with whole_file(local_path(file, "file")) as aside, open(aside, "wb") as opened:
        np.savez(opened, **arrays)


def load_moments(file: object) -> ClassMoments:
    """Reads what `save_moments` wrote. Nothing in the file is run.

    What it says of itself is checked before it is read, and so are the numbers, after
    that: a Cholesky factor for each scatter of "full" and "tied".

    Args:
        file: path, or a binary file that is open for reading and can seek.

    Returns:
        moments: `ClassMoments`.

    Raises:
        OSError: There is no such file, or it cannot be read.
        TypeError: `file` is something else.
        ValueError: It holds something else, only a part, or what cannot be statistics
            of any examples; its arrays are compressed, as `save_moments` never does; it
            is no plain file, or on another system.

    Example:

    >>> moments = merge(load_moments("monday.npz"), load_moments("tuesday.npz"))
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
    """Reads what this program itself has just written: `load_moments` without doubt.

    Shapes and dtypes are checked, before anything is read, and the numbers are not:
    that would be a Cholesky factor for each scatter.

    Args:
        file: binary, open for reading; can seek.
        name: for the error.

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
        if error.errno != errno.EINVAL:  # a place in the file that is none
            raise
        raise _no_moments_file(name, error) from error
    except Exception as error:  # `zipfile` raises what its parts raise
        raise _no_moments_file(name, error) from error
    return ClassMoments(**arrays, kind=kind)


def _no_moments_file(name, error):
    return ValueError(
        f"{name} is no file of moments, an .npz of {', '.join(_FIELDS)}, as "
        f"save_moments(moments, file) writes it: {error or type(error).__name__}"
    )


def _members(archive, num_bytes):
    """{field: entry of the archive}, of no more bytes than the file has."""
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
        raise ValueError(f"it has {num_bytes} bytes, and entries of {claimed}")
    return members


def _head(archive, entry):
    with archive.open(entry) as member:
        shape, dtype, _ = read_npy_header(member, entry.file_size)
    return shape, dtype


def _kind(archive, members, heads):
    """What kind of moments they are; its head is taken off the others."""
    shape, dtype = heads.pop("kind")
    if shape or dtype.kind != "U":
        raise ValueError(f"its `kind` is {dtype} {list(shape)}, not a word")
    return str(_array(archive, members["kind"]))


def _array(archive, entry):
    with archive.open(entry) as member:
        return npy.read_array(member)
