"""Tests for shard_index.py: of files that were changed, a ValueError names them."""

import json
import os
import shutil
import zlib

import ml_dtypes
import numpy as np
import pytest

from tests import programs
from tests.paths import ROOT
from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.extraction.shard_reader import indexed_shards, load_features
from tf_pseudofeat.extraction.shard_writer import ShardWriter, write_index

SECURITY = ROOT / "SECURITY.md"
# How often SECURITY.md says that it was tried.
FILE_MUTATIONS, HEADER_MUTATIONS, INDEX_MUTATIONS = 300, 600, 300
ROWS = 90
INDEX = "index.json"
ARRAY = "features-00001.npy"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A set of three shards, with weights."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("whole") / "set"
    with ShardWriter(folder, rows_per_shard=40) as writer:
        writer.add(
            rng.normal(size=(ROWS, 3)).astype("float32"),
            rng.integers(0, 4, ROWS),
            rng.uniform(1, 2, ROWS).astype("float32"),
        )
    write_index(folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "set")


def content(folder, verify=True):
    """All that a set holds, as bytes."""
    loaded = load_features(folder, verify)
    arrays = loaded.features, loaded.labels, loaded.sample_weight
    return [(np.asarray(a).dtype, np.asarray(a).tobytes()) for a in arrays]


def mutated(text, rng):
    """Bytes with a few of them changed, taken out, put in, or cut off."""
    text = bytearray(text)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(text)))
        match rng.integers(8):
            case 0 | 1 | 2:
                text[place] ^= 1 << int(rng.integers(8))
            case 3 | 4:
                text[place] = int(rng.integers(256))
            case 5:
                del text[place : place + int(rng.integers(1, 9))]
            case 6:
                text[place:place] = rng.bytes(int(rng.integers(1, 9)))
            case 7:
                text = text[: max(place, 1)]
    return bytes(text)


def mutated_header(text, rng):
    """The same for the header of a `.npy` file alone, of the length it had."""
    size = 10 + int.from_bytes(text[8:10], "little")
    head = bytearray(text[:size])
    used = head.index(b"}") + 1
    for _ in range(rng.integers(1, 3)):
        some = b"<>|=fiuVScOb0123456789,() {}'-eL_"
        place = int(rng.integers(used))
        head[place] = some[int(rng.integers(len(some)))]
    return bytes(head) + text[size:]


def outcome(folder, expected, path, verify=True):
    """Whether it raised, with the name of the file or its kind; or the same came."""
    try:
        received = content(folder, verify)
    except ValueError as error:
        kind = path.name.split("-")[0]
        assert path.name in str(error) or f"The {kind} in {folder}" in str(error)
        return "raised"
    assert received == expected, f"{path} was changed, and other numbers came"
    return "same"


def test_changed_bytes_raise_or_change_nothing(whole, copy):
    rng, expected, seen = np.random.default_rng(1), content(whole), []
    paths = sorted(copy.iterdir())
    for _ in range(FILE_MUTATIONS):
        path = paths[rng.integers(len(paths))]
        text = path.read_bytes()
        path.write_bytes(mutated(text, rng))
        is_same = path.read_bytes() == text
        seen.append(outcome(copy, expected, path))
        # What nobody reads once there is an index.
        unread = path.name.startswith("checksums") or path.name == INDEX
        assert seen[-1] == "raised" or is_same or unread
        path.write_bytes(text)
    assert seen.count("raised") > FILE_MUTATIONS / 2


@pytest.mark.parametrize("verify", [True, False])
def test_changed_headers_raise_or_change_nothing(whole, copy, verify):
    rng, expected = np.random.default_rng(2), content(whole)
    path = copy / ARRAY
    text = path.read_bytes()
    seen = []
    for _ in range(HEADER_MUTATIONS):
        path.write_bytes(mutated_header(text, rng))
        seen.append(outcome(copy, expected, path, verify))
        # An array alone, of which nothing is known.
        try:
            StoredArray([path])[:]
        except ValueError as error:
            assert path.name in str(error)
    assert seen.count("raised") > HEADER_MUTATIONS / 2


def test_a_changed_index_raises_or_changes_nothing(whole, copy):
    rng, expected = np.random.default_rng(3), content(whole)
    path = copy / INDEX
    text, seen = path.read_bytes(), []
    for _ in range(INDEX_MUTATIONS):
        path.write_bytes(mutated(text, rng))
        try:
            received = content(copy)
        except ValueError as error:
            assert str(copy) in str(error)
            seen.append("raised")
        else:
            assert received == expected
    assert len(seen) > INDEX_MUTATIONS / 2


INDICES = {
    "misspelt weights": lambda i: i.update(wieghts=i.pop("weights")),
    "misspelt weights of a shard": lambda i: i["shards"][0]["files"].update(
        wieghts=i["shards"][0]["files"].pop("weights")
    ),
    "one key more": lambda i: i.update(note="x"),
    "version of another type": lambda i: i.update(version=True),
    "version as text": lambda i: i.update(version="2"),
    "shards as a dict": lambda i: i.update(shards={"name": "00000"}),
    "shards as a number": lambda i: i.update(shards=3),
    "a shard as text": lambda i: i["shards"].append("00003"),
    "no name": lambda i: i["shards"][0].pop("name"),
    "a name that leads out": lambda i: i["shards"][0].update(name="../x-00000"),
    "a name that is a number": lambda i: i["shards"][0].update(name=0),
    "a name that is too long": lambda i: i["shards"][0].update(name="1" * 300),
    "the same name twice": lambda i: i["shards"].insert(0, i["shards"][0]),
    "another order": lambda i: i["shards"].reverse(),
    "huge rows": lambda i: i["shards"][0].update(rows=10**4000),
    "fractional rows": lambda i: i["shards"][0].update(rows=40.0),
    "rows as a bool": lambda i: i["shards"][0].update(rows=True),
    "fewer rows": lambda i: i["shards"][0].update(rows=39),
    "shape as a number": lambda i: i["features"].update(shape=3),
    "shape of text": lambda i: i["features"].update(shape=["3"]),
    "shape of a bool": lambda i: i["features"].update(shape=[True]),
    "dtype as a list": lambda i: i["labels"].update(dtype=["int64"]),
    "features as a list": lambda i: i.update(features=[3]),
    "negative size": lambda i: i["shards"][0]["files"]["labels"].update(bytes=-1),
    "other size": lambda i: i["shards"][0]["files"]["labels"].update(bytes=1),
    "no checksum": lambda i: i["shards"][0]["files"]["labels"].pop("crc32"),
    "checksum as text": lambda i: i["shards"][0]["files"]["labels"].update(crc32="1"),
    "other checksum": lambda i: i["shards"][0]["files"]["labels"].update(crc32=1),
    "no labels": lambda i: i.pop("labels"),
}


@pytest.mark.parametrize("change", INDICES.values(), ids=INDICES)
def test_an_index_that_says_something_else(copy, change):
    index = json.loads((copy / INDEX).read_text())
    change(index)
    (copy / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=str(copy)):
        load_features(copy)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[" * 10**6,
        b'{"a":' * 10**6,
        b"9" * 10**5,
        b"1e999",
        b'{"version": NaN}',
        b"\xff\xfe",
        b'"\\ud800"',
        b'{"version": 2, "version": 2}',
        b"\0" * 1000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_an_index_that_is_no_index(copy, text):
    (copy / INDEX).write_bytes(text)
    for use in (load_features, indexed_shards):
        with pytest.raises(ValueError, match=r"index\.json is not what this version"):
            use(copy)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def folder(path):
    path.unlink()
    path.mkdir()


def link(path):
    outside = path.parents[1] / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def gone(path):
    path.unlink()


@pytest.mark.parametrize("name", [INDEX, ARRAY, "labels-00000.npy"])
@pytest.mark.parametrize("become", [pipe, folder, link, gone])
def test_files_are_plain_ones_of_the_folder(copy, name, become):
    become(copy / name)
    for verify in (True, False):
        with pytest.raises(ValueError, match=name):
            load_features(copy, verify)


@pytest.mark.parametrize("become", [pipe, folder, link, gone])
@pytest.mark.parametrize("name", [ARRAY, "checksums-00001.json"])
def test_only_plain_files_become_a_set(copy, name, become):
    (copy / INDEX).unlink()
    become(copy / name)
    with pytest.raises(ValueError, match=r"00001"):
        write_index(copy)


def test_the_folder_itself_may_be_behind_a_link(whole, tmp_path):
    (tmp_path / "link").symlink_to(whole)
    assert content(tmp_path / "link") == content(whole)


def test_a_pipe_in_an_array_that_is_in_use_is_not_waited_for(copy):
    features = load_features(copy).features
    pipe(copy / ARRAY)
    for rows in (slice(0, ROWS), [50]):
        with pytest.raises(ValueError, match=rf"{ARRAY} is not a regular file"):
            features[rows]
    with pytest.raises(ValueError, match=rf"{ARRAY} is not a regular file"):
        StoredArray([copy / ARRAY])


CUT_IN_USE = """
import os, shutil, sys
from tf_pseudofeat.extraction.shard_reader import load_features
for number, (first, rows) in enumerate(
    (first, rows) for first in ([79], None) for rows in ([50], slice(0, 90))
):
    folder = shutil.copytree(sys.argv[1], f"{sys.argv[1]}-{number}")
    features = load_features(folder).features
    if first:
        features[first]
    os.truncate(f"{folder}/features-00001.npy", 0)
    try:
        features[rows]
    except ValueError as error:
        print(error)
"""


@pytest.mark.integration
def test_a_file_that_is_cut_in_use_does_not_end_the_process(copy):
    ran = programs.run("-c", CUT_IN_USE, copy)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count(f"{ARRAY} was truncated after it was opened") == 4


def forge(folder, kind, array):
    """A set of one shard in which an array is another, with the right checksum."""
    path = folder / f"{kind}-00000.npy"
    np.save(path, array)
    text = path.read_bytes()
    index = json.loads((folder / INDEX).read_text())
    index[kind] = {"shape": list(array.shape[1:]), "dtype": array.dtype.name}
    checksum = {"bytes": len(text), "crc32": zlib.crc32(text)}
    index["shards"][0]["files"][kind] = checksum
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    "kind, array, message",
    [
        ("features", np.full((4, 3), np.nan), r"features-00000\.npy has NaN"),
        ("features", np.full((4, 3), np.inf, ">f4"), "another kind of machine"),
        ("features", np.ones((4, 3), bool), "dtype.*bool.*does not write"),
        ("features", np.ones((4, 3), "S3"), "real numbers; received dtype"),
        ("features", np.ones((4, 3), "M8[s]"), "real numbers; received dtype"),
        ("features", np.ones((4, 3), complex), "real numbers; received dtype"),
        ("features", np.ones((4, 3), np.longdouble), "dtype.*does not write"),
        ("features", np.ones(4), r"one number for each.*received shape \[4\]"),
        ("labels", np.array([0.0, 1, np.nan, 1]), r"labels-00000\.npy has NaN"),
        ("labels", np.array([0, -1, 1, 1]), "not hold a valid set of features"),
        ("labels", np.array(["a"] * 4), "real numbers; received dtype"),
        ("weights", np.array([1.0, -1, 1, 1]), "non-negative; example 1"),
        ("weights", np.array([1.0, np.inf, 1, 1]), r"weights-00000\.npy has NaN"),
        ("weights", np.ones((4, 2)), r"received shape \[4, 2\]"),
        ("weights", np.zeros(4), "All 4 sample weights are 0"),
    ],
)
def test_numbers_are_checked_whoever_wrote_them(tmp_path, kind, array, message):
    with ShardWriter(tmp_path) as writer:
        writer.add(np.ones((4, 3)), np.arange(4), np.ones(4))
    write_index(tmp_path)
    forge(tmp_path, kind, array)
    with pytest.raises(ValueError, match=message) as caught:
        load_features(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_bfloat16_is_read_as_numbers(tmp_path):
    features = np.ones((4, 3), ml_dtypes.bfloat16)
    with ShardWriter(tmp_path) as writer:
        writer.add(features, np.arange(4))
    write_index(tmp_path)
    assert load_features(tmp_path).features.dtype == ml_dtypes.bfloat16
    path = tmp_path / "features-00000.npy"
    text = path.read_bytes()[:-2] + np.array(np.nan, ml_dtypes.bfloat16).tobytes()
    path.write_bytes(text)
    index = json.loads((tmp_path / INDEX).read_text())
    index["shards"][0]["files"]["features"]["crc32"] = zlib.crc32(text)
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"features-00000\.npy has NaN"):
        load_features(tmp_path)


def test_features_need_not_be_read_at_once(copy):
    path = copy / ARRAY
    text = path.read_bytes()
    path.write_bytes(text[:-1] + bytes([text[-1] ^ 1]))
    assert load_features(copy, verify=False).features.shape == (ROWS, 3)
    with pytest.raises(ValueError, match=rf"{ARRAY} has the checksum"):
        load_features(copy)


@pytest.mark.parametrize("name", ["checksums-00001.json", ARRAY, "labels-00001.npy"])
def test_a_damaged_shard_does_not_become_a_set(copy, name):
    (copy / INDEX).unlink()
    (copy / name).write_bytes((copy / name).read_bytes()[:-3])
    with pytest.raises(ValueError, match=name):
        write_index(copy)
    assert not (copy / INDEX).exists()


def test_an_index_that_was_lost_is_written_again(whole, copy):
    (copy / INDEX).unlink()
    write_index(copy)
    assert (copy / INDEX).read_bytes() == (whole / INDEX).read_bytes()
    # What was changed in between was not what its writer wrote.
    (copy / INDEX).unlink()
    text = (copy / ARRAY).read_bytes()
    (copy / ARRAY).write_bytes(text[:-1] + bytes([text[-1] ^ 1]))
    write_index(copy)
    with pytest.raises(ValueError, match=rf"{ARRAY} has the checksum"):
        load_features(copy)


def test_the_figures_of_security_md():
    text = " ".join(SECURITY.read_text(encoding="utf-8").split())
    assert (
        f"Of {FILE_MUTATIONS} random changes to a set, of {HEADER_MUTATIONS} to the "
        f"header of an array and of {INDEX_MUTATIONS} to the index, each raised"
    ) in text
