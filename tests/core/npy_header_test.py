"""Tests for npy_header.py: NumPy's own headers pass, and no other claim does."""

import io

import numpy as np
import pytest

from tf_pseudofeat.core.npy_header import read_npy_header


def saved(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def read(text):
    return read_npy_header(io.BytesIO(text), len(text))


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 2), "float32"),
        np.zeros((0, 5)),
        np.zeros(()),
        np.zeros((2, 3, 4), ">i2"),
        np.zeros(4, "U7"),
        np.zeros((4, 2), "V2"),
        np.zeros((5, 1), order="F"),
        np.zeros(2, [("a", "f4"), ("b", "i8")]),
    ],
    ids=str,
)
def test_what_numpy_writes_is_read(array, version):
    text = saved(array, version=version)
    shape, dtype, offset = read(text)
    assert (shape, dtype) == (array.shape, array.dtype)
    assert text[offset:] == array.tobytes()


def header(text):
    text = text.encode("latin1").ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def described(shape, dtype="'<f8'", order=False):
    return header(f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}}}")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x03\x00" + saved(np.zeros(2))[8:],
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(100),
        header("(" * 117),
        header("{'a': (1, "),
        header("[]"),
        header("1" * 117),
        described("(2,)"),
        described("(-1,)"),
        described("(-1, -1)") + bytes(8),
        described("(2**70,)"),
        described("(1180591620717411303424, 0)"),
        described("(0, 1180591620717411303424)"),
        described("(4294967296, 4294967296)"),
        described("3"),
        described("(1.0,)") + bytes(8),
        described("(1,)", "'|O'") + bytes(8),
        described("(1,)", "'<U0'"),
        described("(1,)", "[('a', '|O')]") + bytes(8),
        described("(1,)", "'<f7'") + bytes(8),
        described("(1,)", "3") + bytes(8),
        described("(2, 2)", order=True) + bytes(32),
        described("(2,)") + bytes(17),
        saved(np.zeros((3, 2)))[:-1],
    ],
    ids=range(25),
)
def test_what_is_no_header_of_the_file(text):
    with pytest.raises(ValueError, match="its|it does not have"):
        read(text)


def test_an_error_of_the_disk_is_one():
    class Broken(io.BytesIO):
        def read(self, *size):
            raise OSError("Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        read_npy_header(Broken(), 100)
