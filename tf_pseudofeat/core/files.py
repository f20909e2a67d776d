"""Paths of this machine, and files that are there whole or not at all."""

import contextlib
import os
import pathlib
import re
import stat

__all__ = [
    "UNFINISHED",
    "local_path",
    "missing_folders",
    "open_plain",
    "remove_empty",
    "whole_file",
]

UNFINISHED = ".unfinished-"
# `pathlib` makes one slash of two. A drive of Windows has one letter.
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(path, name="path"):
    """A path of this machine, with the home folder for `~`.

    Args:
        path: string or `os.PathLike`.
        name: what it is, for the error.

    Returns:
        path: `pathlib.Path`.

    Raises:
        TypeError: It is something else, or empty.
        ValueError: It is on another system, as `gs://bucket/folder` is; or in the home
            folder of a user that this machine does not know.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text:
        raise TypeError(
            f"`{name}` is a path; received {path!r}. Pass a string or a pathlib.Path."
        )
    if _ELSEWHERE.match(text):
        raise ValueError(
            f"`{name}` is a path of this machine; received {text!r}. Use a local "
            f"folder, and copy what is in it with tf.io.gfile.copy."
        )
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise ValueError(
            f"`{name}` is {text!r}, and there is no home folder of that user. Pass "
            f"'~/' for your own, or './{text}' for a folder of that name."
        )
    return pathlib.Path(expanded)


def open_plain(path):
    """Opens a plain file for reading, or a link to one.

    A pipe or a device, which could keep the reader waiting, is not opened.

    Args:
        path: of the file.

    Returns:
        file: binary, open for reading.

    Raises:
        ValueError: It is something else, a folder for instance.
        OSError: There is no such file, or it cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is no plain file. Pass a file that is one.")
    return open(path, "rb")


def missing_folders(folder):
    """A folder and those above it, as far as they are not there, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders):
    """Removes folders, innermost first, unless something is in them."""
    for folder in folders:
        with contextlib.suppress(OSError):  # somebody else's file, or not there
            folder.rmdir()


@contextlib.contextmanager
def whole_file(path):
    """Where to write a file that takes its place, and that of an old one, when whole.

    A process that is killed leaves at most the file aside, in the same folder and with
    the same ending, which nobody reads and the next one overwrites. What was written is
    on the disk before the name is.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f"{UNFINISHED}{path.name}")
    aside.unlink(missing_ok=True)  # it may be a link, to be written through, or a pipe
    try:
        yield aside
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
