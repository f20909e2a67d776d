"""Tests for shard_folder.py: where a set can be written, and what a failure leaves."""

import errno
import os
import pathlib
import signal

import pytest

from tests import programs
from tests.written_shards import X, Y, files, write
from tf_pseudofeat.extraction.shard_folder import check_free
from tf_pseudofeat.extraction.shard_reader import load_features
from tf_pseudofeat.extraction.shard_writer import ShardWriter, new_set, write_index


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(NotADirectoryError, match="is a file"):
            check_free(path)
        with pytest.raises(OSError, match=r"cannot be created \(.*\). Pass another"):
            ShardWriter(path)


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    check_free(tmp_path / "a" / "b")
    assert files(tmp_path) == []
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(PermissionError, match="is not writable"):
        check_free(tmp_path / "a" / "b")


@pytest.mark.parametrize("folder", [None, 3, "", b""])
def test_what_is_no_path(folder):
    for take in (check_free, load_features, write_index, ShardWriter):
        with pytest.raises(TypeError, match="`folder` must be a path; received"):
            take(folder)


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_folders_that_were_made_here_are_removed(tmp_path, kind):
    (tmp_path / "old").mkdir()
    for top in ("old", "new"):
        with pytest.raises(kind), new_set(tmp_path / top / "a" / "b") as folder:
            write(folder, X, Y)
            raise kind
        with pytest.raises(kind), ShardWriter(tmp_path / top / "c" / "d") as writer:
            writer.add(X, Y)
            raise kind
    assert files(tmp_path) == ["old"] and files(tmp_path / "old") == []
    # Others may be about to write where a prefix says that there are some.
    with pytest.raises(kind), ShardWriter(tmp_path / "old" / "e", prefix="p"):
        raise kind
    assert files(tmp_path / "old") == ["e"]
    with pytest.raises(kind), new_set(tmp_path / "old" / "f") as folder:
        (folder / "somebody's").touch()
        raise kind
    assert files(tmp_path / "old" / "f") == ["somebody's"]


def test_a_folder_that_cannot_be_made_whole_leaves_none(tmp_path, monkeypatch):
    make = os.mkdir

    def full(path, mode=0o777, **options):
        if pathlib.Path(path).name == "c":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        make(path, mode, **options)

    monkeypatch.setattr(os, "mkdir", full)
    for use in (lambda folder: new_set(folder).__enter__(), ShardWriter):
        with pytest.raises(OSError, match=r"cannot be created \(No space left"):
            use(tmp_path / "a" / "b" / "c")
        assert files(tmp_path) == []


@pytest.mark.integration
def test_what_a_killed_run_left_is_said(tmp_path):
    code = (
        "import os, signal, sys, numpy as np\n"
        "from tf_pseudofeat.extraction.shard_writer import ShardWriter\n"
        "writer = ShardWriter(sys.argv[1], rows_per_shard=2)\n"
        "writer.add(np.zeros((5, 3)), np.zeros(5, int))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    folder = tmp_path / "killed"
    killed = programs.run("-c", code, folder)
    assert killed.returncode == -signal.SIGKILL
    assert len(files(folder)) == 6
    with pytest.raises(ValueError, match=r"no index\.json.*2 unfinished shards"):
        load_features(folder)
    with pytest.raises(ValueError, match=r"2 shards without index\.json.*Delete"):
        check_free(folder)
    with pytest.raises(ValueError, match=r"already holds 2 shards.*such as 00000"):
        ShardWriter(folder)
