"""Tests for shard_writer.py: shards of any number of writers, whole or not there."""

import contextlib
import resource
import signal

import numpy as np
import pytest

from tests.written_shards import WEIGHT, X, Y, files, write
from tf_pseudofeat.extraction.shard_folder import check_free
from tf_pseudofeat.extraction.shard_reader import load_features
from tf_pseudofeat.extraction.shard_writer import ShardWriter, new_set, write_index


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
