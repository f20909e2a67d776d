"""Tests for shard_reader.py: what is loaded is what was written, or is not there."""

import json

import ml_dtypes
import numpy as np
import pytest

from tests.written_shards import WEIGHT, X, Y, files, write
from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.extraction.shard_reader import load_features
from tf_pseudofeat.extraction.shard_writer import write_index


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
