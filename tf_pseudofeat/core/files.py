"""Local paths, and files that are written atomically."""

import contextlib
import os
import pathlib
import re
import stat

__all__ = [
    "UNFINISHED",
    "check_writable",
    "local_path",
    "missing_folders",
    "open_plain",
    "remove_empty",
    "whole_file",
]

UNFINISHED = ".unfinished-"
# `pathlib` collapses two slashes. A Windows drive has one letter.
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(path, name="path"):
    """Returns a local path, with `~` expanded.

    Args:
        path: string or `os.PathLike`.
        name: name of the argument, for the error message.

    Returns:
        path: `pathlib.Path`.

    Raises:
        TypeError: If it is something else, or empty.
        ValueError: If it is on another file system, such as `gs://bucket/folder`, or in
            the home folder of an unknown user.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text:
        raise TypeError(
            f"`{name}` must be a path; received {path!r}. Pass a string or a "
            f"pathlib.Path."
        )
    if _ELSEWHERE.match(text):
        raise ValueError(
            f"`{name}` must be a local path; received {text!r}. Use a local folder, "
            f"and copy its files with tf.io.gfile.copy."
        )
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise ValueError(
            f"`{name}` is {text!r}, but that user has no home folder here. Pass '~/' "
            f"for your own, or './{text}' for a folder of that name."
        )
    return pathlib.Path(expanded)


def open_plain(path):
    """Opens a regular file, or a link to one, for reading.

    A pipe or a device, which could block, is not opened.

    Args:
        path: path of the file.

    Returns:
        file: binary, open for reading.

    Raises:
        ValueError: If it is something else, for instance a folder.
        OSError: If it does not exist or cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path} is not a regular file.")
    return open(path, "rb")


def check_writable(folder):
    """Raises if a folder, which need not exist yet, cannot be written to.

    Args:
        folder: `pathlib.Path`.

    Raises:
        NotADirectoryError: If it or one of its parents is a file.
        PermissionError: If it, or the folder to make it in, is not writable.
    """
    parents = (folder, *folder.parents)
    there = next(path for path in parents if os.path.lexists(path))
    if not there.is_dir():
        kind = "file" if there.exists() else "link to nothing"
        raise NotADirectoryError(
            f"{folder} cannot be a folder: {there} is a {kind}. Pass another path."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"{there} is not writable. Pass another folder.")


def missing_folders(folder):
    """Those of a folder and its parents that do not exist, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders):
    """Removes folders that are empty, innermost first."""
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty, or does not exist
            folder.rmdir()


@contextlib.contextmanager
def whole_file(path):
    """Context manager that replaces a file atomically.

    Yields the path of a temporary file in the same folder, which is renamed to `path`
    on exit, after it was flushed to disk. A process that is killed leaves at most the
    temporary file, which is never read and overwritten by the next one.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f"{UNFINISHED}{path.name}")
    aside.unlink(missing_ok=True)  # it may be a link or a pipe
    try:
        yield aside
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
