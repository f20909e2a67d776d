"""Tests for mapped_file.py: rows of one file, and what is wrong with a file."""

import os
import struct

import ml_dtypes
import numpy as np
import pytest

from tf_pseudofeat.core.mapped_file import MappedFile, npy_head


def mapped(path):
    shape, dtype, offset = npy_head(path)
    return MappedFile(path, offset, shape, dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", ml_dtypes.bfloat16])
def test_rows_are_copied_from_the_file(tmp_path, dtype):
    rows = np.arange(24).reshape(6, 2, 2).astype(dtype)
    np.save(tmp_path / "a.npy", rows)
    received = mapped(tmp_path / "a.npy").take([4, 0, 4])
    assert received.dtype == dtype and received.flags.writeable
    np.testing.assert_array_equal(received, rows[[4, 0, 4]])


@pytest.mark.parametrize("shape", [(), (3, 0), (0, 0)])
def test_a_file_without_rows_of_numbers_is_named(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(ValueError, match=r"a.npy is not a .npy file of rows: its sha"):
        npy_head(tmp_path / "a.npy")


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY" + struct.pack("<H", 1)])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"a.npy is damaged"):
        npy_head(tmp_path / "a.npy")


def test_a_file_that_is_truncated_before_or_after_it_was_mapped_is_named(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((5000, 2)))
    head, file = npy_head(path), mapped(path)
    os.truncate(path, 200)
    with pytest.raises(ValueError, match=r"a.npy was truncated after it was opened"):
        file.take([4999])
    shape, dtype, offset = head
    with pytest.raises(ValueError, match="truncated"):
        MappedFile(path, offset, shape, dtype)
