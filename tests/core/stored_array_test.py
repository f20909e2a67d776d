"""Tests for stored_array.py: it is the array in memory, row by row."""

import pickle
import threading

import ml_dtypes
import numpy as np
import pytest

from tf_pseudofeat.core import stored_array
from tf_pseudofeat.core.stored_array import StoredArray

RNG = np.random.default_rng(0)


def save(folder, array, sizes):
    """Paths of files with so many rows each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for start, stop in zip(np.cumsum([0, *sizes]), np.cumsum(sizes), strict=False):
        paths.append(folder / f"{len(paths)}.npy")
        rows = array[start:stop]
        np.save(paths[-1], rows.view("V2") if rows.dtype.kind == "V" else rows)
    return paths


@pytest.fixture(params=["float32", "bfloat16", "float64 map", "int8"])
def pair(request, tmp_path):
    """An array, and the same in files of 1, 7, 4 and 8 rows."""
    dtype, _, is_map = request.param.partition(" ")
    array = RNG.normal(size=(20, 2, 3, 4) if is_map else (20, 5)) * 10
    array = array.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    return array, StoredArray(save(tmp_path, array, [1, 7, 4, 8]))


def same(received, expected):
    assert received.dtype == expected.dtype
    assert received.shape == expected.shape
    assert received.tobytes() == expected.tobytes()


ROWS = {
    "one": 3,
    "last": -1,
    "all": slice(None),
    "within a file": slice(2, 5),
    "over files": slice(0, 13),
    "beyond the end": slice(15, 99),
    "none": slice(9, 4),
    "empty list": [],
    "every third": slice(1, None, 3),
    "backwards": slice(None, None, -1),
    "repeated": [19, 0, 0, 8, 7, 19],
    "negative": [-1, -20],
    "unsigned": np.array([4, 2], np.uint8),
    "mask": np.arange(20) % 3 == 1,
    "permuted": RNG.permutation(20),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_rows_are_those_of_the_array(pair, rows):
    array, in_files = pair
    same(np.asarray(in_files[rows]), np.asarray(array[rows]))


def test_it_looks_like_the_array(pair):
    array, in_files = pair
    for name in ("shape", "ndim", "dtype", "nbytes"):
        assert getattr(in_files, name) == getattr(array, name)
    assert len(in_files) == len(array)
    assert in_files.lengths == [1, 7, 4, 8]
    same(np.asarray(in_files), array)
    same(np.asarray(in_files, dtype=np.float32), array.astype(np.float32))
    with pytest.raises(ValueError, match="is on disk"):
        in_files.__array__(copy=False)  # as NumPy 2 asks


def test_what_is_read_may_be_written_to(pair):
    array, in_files = pair
    for rows in (slice(0, 9), [1, 2]):
        in_files[rows][...] = 0
    same(in_files[:], array)


def test_selected_rows_stay_in_their_files(pair):
    array, in_files = pair
    odd, some = np.arange(20) % 2 == 1, [3, 0, 9]
    selected = in_files.select(odd)
    same(selected[:], array[odd])
    same(selected[2:5], array[odd][2:5])
    same(selected.select(some).take([2, -3]), array[odd][some][[2, 0]])


def test_joined_arrays_follow_each_other(pair):
    array, in_files = pair
    joined = StoredArray.concatenate([in_files, in_files])
    same(joined[:], np.concatenate([array, array]))
    some = in_files.select([5, 1])
    joined = StoredArray.concatenate([in_files, some, in_files])
    same(joined[:], np.concatenate([array, array[[5, 1]], array]))
    same(joined.select([21, 0])[:], array[[1, 0]])


def test_chunks_are_all_rows_in_order(pair):
    array, in_files = pair
    row = array[0].nbytes
    chunks = list(in_files.chunks(multiple_of=2, num_bytes=7 * row))
    assert [len(chunk) for chunk in chunks] == [6, 6, 6, 2]
    same(np.concatenate(chunks), array)
    assert [len(chunk) for chunk in in_files.chunks(8, num_bytes=1)] == [8, 8, 4]


def test_pickled_it_is_names_of_files(pair):
    array, in_files = pair
    text = pickle.dumps(in_files)
    assert len(text) < 2000
    same(pickle.loads(text)[[3, 19]], array[[3, 19]])


def test_few_files_are_open_at_a_time_and_threads_may_share_them(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_array, "_OPEN_FILES", 2)
    array = RNG.normal(size=(400, 3))
    in_files = StoredArray(save(tmp_path, array, [40] * 10))
    wrong = []

    def read(seed):
        rows = np.random.default_rng(seed)
        for _ in range(50):
            some = rows.integers(400, size=30)
            if not np.array_equal(in_files[some], array[some]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert in_files._mapped.cache_info().currsize == 2


@pytest.mark.parametrize(
    "rows, message",
    [
        (20, "There are 20 rows; received row numbers from 20 to 20"),
        ([0, -21], "from -21 to 0"),
        (0.5, "indexed by rows.*received .*0.5"),
        ((slice(None), 0), "indexed by rows"),
        ([True, False], "indexed by rows"),
        (..., "indexed by rows"),
        (None, "indexed by rows"),
        ("a", "indexed by rows"),
    ],
)
def test_what_is_no_row(tmp_path, rows, message):
    in_files = StoredArray(save(tmp_path, np.zeros((20, 2)), [20]))
    with pytest.raises(IndexError, match=message):
        in_files[rows]


def test_another_axis(tmp_path):
    in_files = StoredArray(save(tmp_path, np.zeros((20, 2)), [20]))
    with pytest.raises(ValueError, match="axis=1"):
        in_files.take([0], axis=1)


def test_files_of_several_kinds(tmp_path):
    first = save(tmp_path / "a", np.zeros((4, 2)), [4])
    for other in (np.zeros((4, 3)), np.zeros((4, 2), "float32")):
        paths = first + save(tmp_path / "b", other, [4])
        with pytest.raises(
            ValueError, match=r"shape \[\d\] and dtype.*of the same kind"
        ):
            StoredArray(paths)


def test_no_files():
    with pytest.raises(ValueError, match="received none"):
        StoredArray([])


@pytest.mark.parametrize(
    "content", [b"", b"text", np.zeros((4, 2)), np.array([{}]), np.float32(1)], ids=repr
)
def test_what_is_no_array_of_rows(tmp_path, content):
    path = tmp_path / "a.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
        path.write_bytes(path.read_bytes()[:-1])  # cut short
    with pytest.raises(ValueError, match=r"a\.npy is (damaged|no \.npy)"):
        StoredArray([path])


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        StoredArray([tmp_path / "a.npy"])
