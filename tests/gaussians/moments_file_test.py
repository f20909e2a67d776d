"""Tests for moments_file.py: every bit comes back, and nothing else gets in."""

import dataclasses
import io
import os
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from tests.paths import ROOT
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.gaussians.moments_file import load_moments, save_moments
from tf_pseudofeat.gaussians.moments_merge import merge_moments

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


# ---- Files that are something else. --------------------------------------------------

SECURITY = ROOT / "SECURITY.md"
# How often SECURITY.md says that it was tried.
MUTATIONS = 1000


def arrays_of(moments):
    return {k: np.array(v) for k, v in vars(moments).items() if v is not None}


def packed(arrays, save=np.savez):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["full", "low_rank"])
def test_changed_bytes_raise_or_change_nothing(tmp_path, kind):
    rng, path, raised = np.random.default_rng(5), tmp_path / "moments.npz", 0
    moments = some_moments(kind)
    text = packed(arrays_of(moments))
    for _ in range(MUTATIONS // 2):
        changed = bytearray(text)
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(len(changed)))
            match rng.integers(5):
                case 0 | 1:
                    changed[place] ^= 1 << int(rng.integers(8))
                case 2:
                    changed[place] = int(rng.integers(256))
                case 3:
                    del changed[place : place + int(rng.integers(1, 9))]
                case 4:
                    changed[place:place] = rng.bytes(int(rng.integers(1, 9)))
        path.write_bytes(changed)
        try:
            loaded = load_moments(path)
        except ValueError as error:
            assert str(path) in str(error)
            raised += 1
        else:
            assert (loaded.kind, bits(loaded)) == (kind, bits(moments))
    assert raised > MUTATIONS // 4


def test_changed_directories_raise_or_change_nothing(tmp_path):
    """Where a zip file says what is in it, `zipfile` raises all kinds of errors."""
    rng, path = np.random.default_rng(6), tmp_path / "moments.npz"
    moments = some_moments()
    text = packed(arrays_of(moments))
    start = text.index(b"PK\1\2")
    for _ in range(MUTATIONS):
        changed = bytearray(text)
        changed[rng.integers(start, len(text))] = int(rng.integers(256))
        path.write_bytes(changed)
        try:
            assert bits(load_moments(path)) == bits(moments)
        except ValueError as error:
            assert str(path) in str(error)


def header(shape, dtype="<f8"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def with_entry(name, text, claimed=None, **options):
    """A file of moments, one array of which is something else."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for field, array in arrays_of(some_moments()).items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(
                f"{field}.npy", text if field == name else buffer.getvalue()
            )
    content = file.getvalue()
    if claimed is not None:  # its size, wherever the archive says it
        size = len(text).to_bytes(4, "little")
        content = content.replace(size + size, 2 * claimed.to_bytes(4, "little"))
    return content


DEFLATED = {"compression": zipfile.ZIP_DEFLATED, "compresslevel": 9}
GIB = 2**30
BOMBS = {
    "compressed zeros": lambda: with_entry(
        "scatter", header((2**14, 2**9)) + bytes(2**26), **DEFLATED
    ),
    "a header alone": lambda: with_entry("scatter", header((GIB, 4))),
    "a size that is not there": lambda: with_entry(
        "scatter", header((2**14, 2**14)), claimed=2**31 + 128
    ),
    "means of so many classes": lambda: with_entry("mean", header((GIB, GIB))),
    "sizes beyond 64 bits": lambda: with_entry("mean", header((2**70, 2**70))),
    "a long kind": lambda: with_entry("kind", header((), "<U268435456")),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_claims_to_be_large_is_not_unpacked(tmp_path, bomb):
    path = tmp_path / "moments.npz"
    path.write_bytes(BOMBS[bomb]())
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"moments\.npz is not a file of moments"):
            load_moments(path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def entries(moments, change):
    """The archive with its entries changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice
        for name, array in change(list(arrays_of(moments).items())):
            with archive.open(name + ".npy", "w") as member:
                np.lib.format.write_array(member, array)
    return file.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"PK\5\6" + bytes(18),
        b"text",
        packed(arrays_of(some_moments()))[:-30],
        packed(arrays_of(some_moments()), np.savez_compressed),
        packed(arrays_of(some_moments()) | {"more": np.zeros(3)}),
        packed(arrays_of(some_moments()) | {"kind": np.array("half")}),
        packed(arrays_of(some_moments()) | {"kind": np.array(["full"])}),
        packed(arrays_of(some_moments()) | {"kind": np.array(3)}),
        packed(arrays_of(some_moments()) | {"mean": np.array(3.0)}),
        packed(arrays_of(some_moments()) | {"mean": np.array([[None]])}),
        packed(arrays_of(some_moments()) | {"sketch": np.zeros((3, 4, 5), "f4")}),
        packed(arrays_of(some_moments("low_rank")) | {"sketch": np.zeros(3, "f4")}),
        packed(arrays_of(some_moments()) | {"count": np.zeros(3, "f4")}),
        entries(some_moments(), lambda arrays: arrays[1:]),
        entries(some_moments("low_rank"), lambda arrays: arrays[:-1]),
        entries(some_moments(), lambda arrays: arrays + arrays[:1]),
        with_entry("mean", b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 117 + b"\n"),
    ],
    ids=range(18),
)
def test_what_is_no_file_of_moments(tmp_path, text):
    (tmp_path / "a.npz").write_bytes(text)
    with pytest.raises(ValueError, match=r"a\.npz"):
        load_moments(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="The file"):
        load_moments(io.BytesIO(text))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    for path in (tmp_path / "a.npz", tmp_path):
        with pytest.raises(ValueError, match="is not a regular file"):
            load_moments(path)
    with pytest.raises(FileNotFoundError):
        load_moments(tmp_path / "b.npz")


# ---- Numbers that are those no examples. ------------------------------------------


def indefinite(scatter):
    """Of no negative squares: two features that are correlated by 2."""
    changed = scatter.copy()
    changed[1, 2] = changed[2, 1] = 2 * np.sqrt(scatter[1, 1] * scatter[2, 2])
    return changed


def put(array, place, value):
    changed = array.copy()
    changed[place] = value
    return changed


NONSENSE = [
    ("full", "count", lambda a: a + 0.5, "not a whole number, "),
    ("full", "count", lambda a: put(a, 0, -1.0), "a negative count, -1"),
    ("diag", "count", lambda a: put(a, 0, np.nan), "NaN or infinity in `count`"),
    ("full", "count", lambda a: put(a, 1, 0.0), "class 1, which has no example"),
    ("tied", "count", lambda a: 0 * a, "class 0, which has no example"),
    ("full", "mean", lambda a: put(a, (2, 1), 1.0), "class 2, which has no example"),
    ("tied", "mean", lambda a: put(a, (0, 1), np.inf), "NaN or infinity in `mean`"),
    ("full", "scatter", lambda a: put(a, (0, 1, 2), 9.0), "class 0 is not symmetric"),
    ("tied", "scatter", lambda a: put(a, (1, 2), 9.0), "the scatter is not symmetric"),
    ("full", "scatter", lambda a: -a, "class 0 has negative squares"),
    ("diag", "scatter", lambda a: put(a, (1, 2), -3.0), "class 1 has negative squares"),
    ("tied", "scatter", indefinite, "the scatter is not positive semidefinite"),
    ("full", "scatter", lambda a: put(a, 1, indefinite(a[1])), "class 1 is not posi"),
    ("full", "scatter", lambda a: put(a, (1, 3, 3), 0.0), "class 1 is not posi"),
    ("full", "scatter", lambda a: put(a, (2, 3, 3), 1.0), "class 2, which has no"),
    ("low_rank", "scatter", lambda a: a / 2, "class 0 is less than what its sketch"),
    ("low_rank", "sketch", lambda a: 2 * a, "class 0 is less than what its sketch"),
    ("low_rank", "sketch", lambda a: 0 * a, "class 0 has a sketch of nothing"),
    ("low_rank", "sketch", lambda a: put(a, 2, 1.0), "class 2, which has no example"),
]


@pytest.mark.parametrize("kind, field, change, message", NONSENSE)
def test_statistics_of_no_examples(tmp_path, kind, field, change, message):
    moments = some_moments(kind)
    wrong = dataclasses.replace(moments, **{field: change(getattr(moments, field))})
    save_moments(wrong, tmp_path / "moments.npz")
    with pytest.raises(ValueError, match=rf"moments\.npz .*{message}"):
        load_moments(tmp_path / "moments.npz")


SHAPED = {
    "scaled": lambda x, rng: x * 10.0 ** rng.uniform(-8, 8, x.shape[1]),
    "far from 0": lambda x, rng: x * 1e-3 + 1e4 * rng.normal(size=x.shape[1]),
    "constant": lambda x, rng: np.ones_like(x) * rng.normal(size=x.shape[1]),
    "mostly 0": lambda x, rng: np.maximum(x - 2, 0),
    "in a plane": lambda x, rng: x[:, :2] @ rng.normal(size=(2, x.shape[1])),
    "small": lambda x, rng: x * 1e-30,
    "vanishing": lambda x, rng: x * 1e-160,
    "with outliers": lambda x, rng: x + 1e6 * (np.arange(len(x)) % 97 == 0)[:, None],
    "drifting": lambda x, rng: x + 1e3 * np.arange(len(x))[:, None],
}


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "low_rank"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shaped", SHAPED)
def test_statistics_of_any_examples_are_let_pass(kind, dtype, shaped):
    for seed, (count, size) in enumerate([(7, 5), (2000, 40)]):
        rng = np.random.default_rng(seed)
        x = SHAPED[shaped](rng.normal(size=(count, size)), rng)
        x = np.clip(x, -6e4, 6e4).astype(dtype)
        labels, half = rng.integers(0, 3, count), count // 2
        parts = [
            moments_of(x[rows], labels[rows], 4, kind)
            for rows in (slice(half), slice(half, None))
        ]
        for moments in (moments_of(x, labels, 4, kind), merge_moments(*parts)):
            loaded = load_moments(io.BytesIO(packed(arrays_of(moments))))
            assert bits(loaded) == bits(moments)


def test_the_figures_of_security_md():
    text = " ".join(SECURITY.read_text(encoding="utf-8").split())
    assert (
        f"Of {MUTATIONS:,} random changes to a file and of {MUTATIONS:,} to its zip "
        f"directory, each raised"
    ) in text
