"""Tests for moments_file.py: every bit comes back, and nothing else gets in."""

import io
import os

import numpy as np
import pytest

from tf_pseudofeat.moments import moments_of
from tf_pseudofeat.moments_file import load_moments, save_moments

FIELDS = ("count", "mean", "scatter", "sketch")


def some_moments(kind="full", seed=0, num_classes=3):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(40, 5)).astype("float32")
    return moments_of(features, rng.integers(0, 2, 40), num_classes, kind)


def bits(moments):
    arrays = [getattr(moments, field) for field in FIELDS]
    return [array.tobytes() for array in arrays if array is not None]


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "low_rank"])
def test_every_bit_comes_back(tmp_path, kind):
    moments = some_moments(kind)
    save_moments(moments, tmp_path / "moments.npz")
    loaded = load_moments(str(tmp_path / "moments.npz"))
    assert loaded.kind == kind
    assert bits(loaded) == bits(moments)
    file = io.BytesIO()
    save_moments(moments, file)
    assert file.getvalue() == (tmp_path / "moments.npz").read_bytes()
    assert bits(load_moments(io.BytesIO(file.getvalue()))) == bits(moments)


def test_the_same_moments_are_the_same_bytes_on_another_day(monkeypatch):
    files = io.BytesIO(), io.BytesIO()
    save_moments(some_moments(), files[0])
    monkeypatch.setattr("time.time", lambda: 2e9)
    save_moments(some_moments(), files[1])
    assert files[0].getvalue() == files[1].getvalue()


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "moments.npz"
    old = some_moments(seed=1)
    save_moments(old, path)

    def full_disk(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full_disk)
        with pytest.raises(OSError, match="No space"):
            save_moments(some_moments(), path)
    assert bits(load_moments(path)) == bits(old)
    assert os.listdir(tmp_path) == ["moments.npz"]
    save_moments(some_moments(), path)
    assert bits(load_moments(path)) == bits(some_moments())
