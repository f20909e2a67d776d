"""A set of features in a folder is what was written, whole or not there."""

import contextlib
import errno
import json
import os
import pathlib
import resource
import signal

import ml_dtypes
import numpy as np
import pytest

from tests import programs
from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.extraction.shard_folder import check_free
from tf_pseudofeat.extraction.shard_reader import load_features
from tf_pseudofeat.extraction.shard_writer import ShardWriter, new_set, write_index

RNG = np.random.default_rng(0)
X = RNG.normal(size=(25, 3)).astype("float32")
Y = RNG.integers(0, 4, 25)
WEIGHT = RNG.uniform(size=25).astype("float32")


def write(folder, *columns, sizes=None, **options):
    """Writes the columns, in batches of so many rows."""
    sizes = sizes or (len(columns[0]),)
    with ShardWriter(folder, **options) as writer:
        for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
            writer.add(*(column[start : start + size] for column in columns))
    return writer


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sizes", [(25,), (7, 0, 18), (1,) * 25])
@pytest.mark.parametrize(
    "columns",
    [
        (X, Y),
        (X, Y, WEIGHT),
        (X.astype(ml_dtypes.bfloat16), np.eye(4, dtype="float32")[Y]),
        (X.reshape(25, 1, 3, 1).astype("float16"), Y[:, None].astype("uint8")),
    ],
    ids=["plain", "weighted", "bfloat16, one-hot", "maps"],
)
def test_what_is_loaded_is_what_was_written(tmp_path, columns, sizes):
    folder = tmp_path / "new" / "features"
    assert write(folder, *columns, sizes=sizes, rows_per_shard=10).shards == [
        "00000",
        "00001",
        "00002",
    ]
    write_index(folder)
    kinds = ["features", "labels", "weights"][: len(columns)]
    names = [f"{kind}-0000{number}.npy" for kind in kinds for number in range(3)]
    names += [f"checksums-0000{number}.json" for number in range(3)]
    assert files(folder) == sorted([*names, "index.json"])
    loaded = load_features(folder)
    assert isinstance(loaded.features, StoredArray)
    assert loaded.features.lengths == [10, 10, 5]
    received = loaded.features, loaded.labels, loaded.sample_weight
    for got, expected in zip(received, columns, strict=False):
        assert got.dtype == expected.dtype
        assert got.shape == expected.shape
        assert np.asarray(got).tobytes() == expected.tobytes()
    assert len(columns) == 3 or loaded.sample_weight is None


def test_a_shard_has_64_mib(tmp_path):
    rows = np.zeros((300, 2**16), "float32")  # 256 KiB a row
    write(tmp_path, rows, np.zeros(300, int))
    write_index(tmp_path)
    assert load_features(tmp_path).features.lengths == [256, 44]


def test_a_row_larger_than_a_shard_is_one(tmp_path):
    write(tmp_path, np.zeros((2, 2**24 + 1), "float32"), np.zeros(2, int))
    write_index(tmp_path)
    assert load_features(tmp_path).features.lengths == [1, 1]


def test_several_writers_make_one_set(tmp_path):
    options = {"rows_per_shard": 4}
    with (
        ShardWriter(tmp_path, prefix="worker-10", **options) as second,
        ShardWriter(tmp_path, prefix="worker-02", **options) as first,
        ShardWriter(tmp_path, prefix="worker-03", **options),  # has nothing to do
    ):
        for start in range(0, 20, 5):
            rows = slice(start, start + 5)
            (first if start < 10 else second).add(X[rows], Y[rows])
    write_index(tmp_path)
    loaded = load_features(tmp_path)
    assert loaded.features.lengths == [4, 4, 2, 4, 4, 2]
    np.testing.assert_array_equal(loaded.features, X[:20])
    np.testing.assert_array_equal(loaded.labels, Y[:20])


def test_shards_of_a_failed_attempt_are_left_out(tmp_path):
    writer = write(tmp_path, X, Y, prefix="attempt-1", rows_per_shard=10)
    write(tmp_path, X, Y, prefix="attempt-2")
    (tmp_path / "labels-attempt-3-00000.npy").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"1 incomplete shards \(such as attempt-3-00000"
    ):
        write_index(tmp_path)
    write_index(tmp_path, reversed(writer.shards))
    np.testing.assert_array_equal(load_features(tmp_path).features, X)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_no_shard(tmp_path, error):
    write(tmp_path, X, Y, prefix="other")
    before = files(tmp_path)
    with pytest.raises(error), ShardWriter(tmp_path, rows_per_shard=2) as writer:
        writer.add(X, Y)
        assert len(files(tmp_path)) == len(before) + 36
        raise error
    assert files(tmp_path) == before
    with pytest.raises(error), new_set(tmp_path / "a") as folder:
        write(folder, X, Y)
        raise error
    assert files(tmp_path) == before


def test_a_new_set_is_indexed_when_it_ends(tmp_path):
    with new_set(str(tmp_path / "a")) as folder:
        write(folder, X, Y, prefix="one")
        write(folder, X, Y, prefix="two")
    assert load_features(folder).features.shape == (50, 3)
    with (
        pytest.raises(ValueError, match=r"holds a set .*load_features\('.*/a'\)"),
        new_set(folder),
    ):
        pass
    assert load_features(folder).features.shape == (50, 3)


def test_an_empty_set_is_none(tmp_path):
    with pytest.raises(ValueError, match="no shard at all"), new_set(tmp_path / "a"):
        pass
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


@contextlib.contextmanager
def full_disk(num_bytes):
    """Files may grow to that size; what a full disk does, a limit does as well."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_said_and_nothing_left(tmp_path):
    message = r"features-00000\.npy of 0\.6 MiB cannot .*\(File too large\).*MiB are"
    rows = np.zeros((50_000, 3), "float32")
    with (
        full_disk(500_000),
        pytest.raises(OSError, match=message),
        new_set(tmp_path / "a") as folder,
    ):
        write(folder, rows, np.zeros(50_000, int))
    assert files(tmp_path) == []


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


@pytest.mark.parametrize("prefix", ["a/b", "..//", "a b", None, 3])
def test_prefix_that_is_no_name(tmp_path, prefix):
    with pytest.raises(ValueError, match="`prefix` must consist of letters.*received"):
        ShardWriter(tmp_path / "a", prefix=prefix)
    assert files(tmp_path) == []


@pytest.mark.parametrize("rows", [0, -1, 1.5, "many"])
def test_rows_of_a_shard(tmp_path, rows):
    with pytest.raises(ValueError, match="`rows_per_shard` must be a whole number"):
        ShardWriter(tmp_path, rows_per_shard=rows)


@pytest.mark.parametrize(
    "batch, message",
    [
        (
            (X, Y[:9]),
            r"the same length, at least 1; received .*\[25, 3\], 'labels': \[9\]",
        ),
        ((X[:, 0], Y), r"one number for each .* shape \[25\]"),
        ((X[:, :0], Y), r"one number for each .* shape \[25, 0\]"),
        ((np.where(X.max() > X, X, np.nan), Y), "NaN or infinite in 1 of 25 rows"),
        ((X.astype(str), Y), "real numbers; received dtype"),
        ((X, Y.astype(str)), "Labels must be numbers .*received dtype"),
        ((X, Y, -WEIGHT), "non-negative"),
        ((X[:5], []), r"'features': \[5, 3\], 'labels': \[0\]"),
        ((X[:5], Y[:5], []), r"'sample_weight': \[0\]"),
        ((X[:5], Y[:5], [0.0, 0.0]), r"'sample_weight': \[2\]"),
        ((X, Y, WEIGHT[:3]), r"'labels': \[25\], 'sample_weight': \[3\]"),
    ],
)
def test_batches_that_do_not_belong_together(tmp_path, batch, message):
    with pytest.raises(ValueError, match=message):
        write(tmp_path, *batch)
    assert files(tmp_path) == []


def test_what_has_no_weight_is_not_written(tmp_path):
    weight = np.where(np.arange(25) < 10, 0.0, WEIGHT)
    write(tmp_path, X, Y, weight, sizes=(5, 5, 5, 10), rows_per_shard=4)
    write_index(tmp_path)
    loaded = load_features(tmp_path)
    np.testing.assert_array_equal(loaded.features[:], X[10:])
    np.testing.assert_array_equal(loaded.sample_weight, weight[10:])


@pytest.mark.parametrize(
    "second", [(X[:, :2], Y), (X.astype("float64"), Y), (X, Y[:, None]), (X, Y, WEIGHT)]
)
def test_batches_of_another_kind(tmp_path, second):
    with (
        pytest.raises(ValueError, match="the same shapes and dtypes"),
        ShardWriter(tmp_path, rows_per_shard=5) as writer,
    ):
        writer.add(X, Y)
        writer.add(*second)
    assert files(tmp_path) == []


def test_writers_of_another_kind(tmp_path):
    write(tmp_path, X, Y, prefix="a")
    write(tmp_path, X, Y, WEIGHT, prefix="b")
    with pytest.raises(ValueError, match="all or none must have"):
        write_index(tmp_path)
    write(tmp_path, X[:, :2], Y, prefix="c")
    with pytest.raises(ValueError, match=r"rows of shape \[2\]"):
        write_index(tmp_path, ["a-00000", "c-00000"])
    with pytest.raises(ValueError, match="no shard d-00000; there are 3"):
        write_index(tmp_path, ["d-00000"])


def test_a_whole_set_takes_no_more(tmp_path):
    write(tmp_path, X, Y)
    write_index(tmp_path)
    for more in (write_index, ShardWriter, check_free):
        with pytest.raises(ValueError, match="already holds a set of features"):
            more(tmp_path)


def test_a_folder_without_features(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"holds no features.*cache_dir=\) writes"):
            load_features(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda index: index.clear(), "format None and version None, not"),
        (lambda index: index.update(version=1), "version 1, not .* and 2"),
        (lambda index: index.update(format="x"), "format 'x' and version 2"),
        (lambda index: index.update(shards=[]), "no shards"),
        (lambda index: index.pop("labels"), "no shards, features or labels"),
        (
            lambda index: index["shards"][0].update(rows=0),
            "`rows` is 0, not a whole",
        ),
        (
            lambda index: index["shards"][0].update(name="x/../../y-00000"),
            "not a name of",
        ),
        (lambda index: index["shards"][0].update(rows=24), "files were changed"),
        (lambda index: index["features"].update(dtype="int8"), "files were changed"),
        (lambda index: index["labels"].update(shape=[1]), "files were changed"),
        (
            lambda index: index["shards"].append(
                index["shards"][0] | {"name": "a-00000"}
            ),
            r"labels-a-00000\.npy is missing",
        ),
    ],
)
def test_an_index_that_is_not_of_the_files(tmp_path, change, message):
    write(tmp_path, X, Y)
    write_index(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    change(index)
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=message):
        load_features(tmp_path)


def test_an_index_that_was_cut(tmp_path):
    write(tmp_path, X, Y)
    write_index(tmp_path)
    text = (tmp_path / "index.json").read_text()
    (tmp_path / "index.json").write_text(text[:-3])
    with pytest.raises(ValueError, match=r"index\.json is not what this"):
        load_features(tmp_path)
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(ValueError, match=r"index\.json is not what this"):
        load_features(tmp_path)


def test_a_shard_that_was_cut(tmp_path):
    write(tmp_path, X, Y)
    write_index(tmp_path)
    path = tmp_path / "features-00000.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"features-00000\.npy has 427 .*has 428"):
        load_features(tmp_path)
