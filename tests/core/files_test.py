"""Tests for files.py: a path is one of this machine, wherever it is given."""

import os
import pathlib

import keras
import numpy as np
import pytest

import tf_pseudofeat as tfpf
from tf_pseudofeat.core.files import (
    UNFINISHED,
    check_writable,
    local_path,
    missing_folders,
    open_plain,
    remove_empty,
    whole_file,
)

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = np.arange(12) % 2


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and an empty one to work in, to see what appears there."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])


def trunk():
    return keras.Sequential([keras.Input((3,)), keras.layers.Identity()])


def extract(path):
    tfpf.extract_features(trunk(), (X, Y), cache_dir=path, verbose=0)


def write_shards(path):
    with tfpf.ShardWriter(path) as writer:
        writer.add(X, Y)
    tfpf.write_index(path)


def retrainer(path):
    return tfpf.PseudoFeatureHeadRetrainer("features", (X, Y), cache_dir=path)


MOMENTS = tfpf.moments_of(X, Y, 2)
WRITERS = {
    "export_classifier": lambda path, model: tfpf.export_classifier(model, path),
    "cache_dir": lambda path, model: extract(path),
    "ShardWriter": lambda path, model: write_shards(path),
    "save_moments": lambda path, model: tfpf.save_moments(MOMENTS, path),
}
OTHERS = {
    "next_version": lambda path, model: tfpf.next_version(path),
    "Extraction": lambda path, model: tfpf.Extraction(cache_dir=path),
    "callback": lambda path, model: retrainer(path),
    "write_index": lambda path, model: tfpf.write_index(path),
    "load_features": lambda path, model: tfpf.load_features(path),
    "load_moments": lambda path, model: tfpf.load_moments(path),
    "StoredArray": lambda path, model: tfpf.StoredArray([path]),
}
ALL = WRITERS | OTHERS


@pytest.mark.parametrize("kind", [str, pathlib.Path])
@pytest.mark.parametrize("write", WRITERS)
def test_a_tilde_is_the_home_folder(home, model, write, kind):
    WRITERS[write](kind("~/new"), model)
    assert os.listdir(home) == ["new"] and os.listdir(".") == []


def test_what_was_written_at_home_is_read_there(home, model):
    assert tfpf.export_classifier(model, "~/served") == f"{home}/served/1"
    assert tfpf.next_version("~/served") == home / "served/2"
    extract("~/features")
    features, _ = tfpf.load_features("~/features")
    np.testing.assert_array_equal(features[:], X)
    stored = tfpf.StoredArray(["~/features/features-00000.npy"])
    np.testing.assert_array_equal(stored[:], X)
    tfpf.save_moments(MOMENTS, "~/moments.npz")
    loaded = tfpf.load_moments("~/moments.npz")
    np.testing.assert_array_equal(loaded.scatter, MOMENTS.scatter)
    assert tfpf.Extraction(cache_dir="~/set").cache_dir == f"{home}/set"
    assert os.listdir(".") == []


@pytest.mark.parametrize(
    "path",
    ["gs://bucket/set", "s3://bucket/set", "file:///set", pathlib.Path("gs://bucket")],
    ids=str,
)
@pytest.mark.parametrize("use", ALL)
def test_what_is_on_another_system_raises(home, model, use, path):
    with pytest.raises(ValueError, match=r"a local path; received .*tf.io.gfile.copy"):
        ALL[use](path, model)
    assert os.listdir(home) == os.listdir(".") == []


@pytest.mark.parametrize("path", [3, b"set", "", ["set"]], ids=repr)
@pytest.mark.parametrize("use", ALL)
def test_what_is_no_path_raises(home, model, use, path):
    with pytest.raises(TypeError, match="must be a path; received .*pathlib.Path"):
        ALL[use](path, model)
    assert os.listdir(".") == []


def test_a_single_file_is_no_list_of_them():
    with pytest.raises(TypeError, match=r"list of files; received 'a.npy'. Pass \["):
        tfpf.StoredArray("a.npy")


@pytest.mark.parametrize("use", ALL)
def test_the_home_of_nobody_raises(home, model, use):
    with pytest.raises(ValueError, match="that user has no home folder.*'./~nobody-"):
        ALL[use]("~nobody-here/set", model)
    assert os.listdir(home) == os.listdir(".") == []


@pytest.mark.parametrize("path", ["file", "file/in", "file/in/1"])
@pytest.mark.parametrize("write", ["export_classifier", "cache_dir", "ShardWriter"])
def test_a_file_in_the_way_raises(home, model, write, path):
    pathlib.Path("file").touch()
    with pytest.raises(OSError, match="file"):
        WRITERS[write](path, model)
    with pytest.raises(NotADirectoryError, match="file is a file. Pass another path"):
        check_writable(pathlib.Path(path))
    assert os.listdir(".") == ["file"]


@pytest.mark.parametrize("path", ["link", "link/in", "link/1"])
def test_a_link_to_nothing_raises(home, model, path):
    os.symlink("nowhere", "link")
    with pytest.raises(NotADirectoryError, match="link is a link to nothing"):
        tfpf.export_classifier(model, path)


def test_a_version_that_is_a_link_to_nothing_is_taken(home, model):
    os.makedirs("served")
    os.symlink("nowhere", "served/7")
    with pytest.raises(FileExistsError, match="served/7 exists"):
        tfpf.export_classifier(model, "served/7")
    assert os.listdir("served") == ["7"]


class Named(os.PathLike):
    def __fspath__(self):
        return "~/set"


def test_paths_stay_what_they_are(home):
    for path in ("set", "a/b.npz", "/a/b", "./~set", "a/~", "a:b", "C:/a", "x/gs://"):
        assert local_path(path) == pathlib.Path(path)
    assert local_path("~") == home and local_path(Named()) == home / "set"


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("outside")])
def test_nothing_that_lies_in_the_way_is_written_through(home, make):
    outside = home / "outside"
    outside.write_text("old")
    make(home / f"{UNFINISHED}new")
    with whole_file(home / "new") as aside:
        aside.write_text("new")
    assert (home / "new").read_text() == "new" and outside.read_text() == "old"
    assert sorted(os.listdir(home)) == ["new", "outside"]


def test_plain_files_are_opened_and_links_to_them(home):
    (home / "file").write_bytes(b"text")
    (home / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_plain(home / name) as file:
            assert file.read() == b"text"
    os.mkfifo(home / "pipe")
    for path in (home, home / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="is not a regular file"):
            open_plain(path)


def test_folders_that_were_missing_are_removed_while_empty(home):
    folder = home / "a" / "b" / "c"
    missing = missing_folders(folder)
    assert missing == [folder, home / "a" / "b", home / "a"]
    folder.mkdir(parents=True)
    assert missing_folders(folder) == []
    (home / "a" / "file").touch()
    remove_empty(missing)
    assert os.listdir(home / "a") == ["file"]
