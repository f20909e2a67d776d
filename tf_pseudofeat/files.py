"""Files that are there whole, or not at all."""

import contextlib
import os
import pathlib

__all__ = ["UNFINISHED", "whole_file"]

UNFINISHED = ".unfinished-"


@contextlib.contextmanager
def whole_file(path):
    """Where to write a file that takes its place, and that of an old one, when whole.

    A process that is killed leaves at most the file aside, in the same folder and with
    the same ending, which nobody reads and the next one overwrites. What was written is
    on the disk before the name is.
    """
    path = pathlib.Path(path)
    aside = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        yield aside
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
