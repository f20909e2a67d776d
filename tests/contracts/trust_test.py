"""No file that is read brings code with it, and no name leads to another folder."""

import ast
import io
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from examples.attach_to_existing_model import retrain
from examples.data import load_images
from examples.image_size import count_pixels
from examples.trunks import FeatureFile, Recipe
from tests.paths import ROOT

FILES = [
    path
    for folder in ("tf_pseudofeat", "examples", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
# Each of them can run what a file says.
MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "yaml"}
CALLS = {"compile", "enable_unsafe_deserialization", "eval", "exec", "read_pickle"}
ARGUMENTS = {"allow_pickle", "safe_mode"}


# Each of them unpacks or maps what a file claims to hold.
READERS = {"DataSource", "fromfile", "genfromtxt", "load", "loadtxt", "memmap"}


class Harm:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def suspicious(code):
    """What of Python code may load code, or turn off what keeps it out."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=names):
                yield from MODULES & {alias.name.split(".")[0] for alias in names}
            case ast.ImportFrom(module=module, level=0):
                yield from MODULES & {module.split(".")[0]}
            case ast.Call(func=ast.Name(id=name)):
                yield from CALLS & {name}
            case ast.Attribute(attr=name):
                yield from CALLS - {"compile"} & {name}  # a model is compiled
            case ast.keyword(arg=name):
                yield from ARGUMENTS & {name}


@pytest.mark.parametrize("file", FILES, ids=lambda file: "/".join(file.parts[-2:]))
def test_no_file_asks_for_more_than_data(file):
    assert list(suspicious(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "np.load(path, allow_pickle=True)",
        "keras.models.load_model(path, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
        "eval(text)",
    ],
)
def test_what_asks_for_more_is_seen(code):
    assert list(suspicious(code))


def readers(code):
    """What of Python code reads files of NumPy, and believes what they claim."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Attribute(value=ast.Name(id="np"), attr=name):
                yield from READERS & {name}


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.parent.name == "tf_pseudofeat"],
    ids=lambda file: file.name,
)
def test_the_package_looks_at_the_header_first(file):
    assert list(readers(file.read_text(encoding="utf-8"))) == []


def test_what_does_not_is_seen():
    assert list(readers("np.load(path)")) == ["load"]


def test_a_pickle_in_a_feature_file_raises_and_does_not_run(tmp_path):
    harm = np.array([Harm(tmp_path / "harmed")], object)
    arrays = {"labels": np.zeros(1), "kernel": np.zeros(1), "bias": np.zeros(1)}
    np.savez(tmp_path / "features.npz", features=harm, **arrays)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        FeatureFile.read(tmp_path / "features.npz")
    assert not (tmp_path / "harmed").exists()
    np.load(tmp_path / "features.npz", allow_pickle=True)["features"]
    assert (tmp_path / "harmed").exists()  # it would have


def test_python_code_in_a_model_raises(tmp_path):
    inputs = keras.Input((4,))
    hidden = keras.layers.Lambda(lambda x: 2 * x, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="[Ss]afe mode|safe_mode|unsafe"):
        retrain(tmp_path / "model.keras", None, None, seed=0)


@pytest.mark.parametrize("name", ["../../x", "/etc", "cifar10/../../x", "..", "."])
def test_a_path_is_no_name_of_a_set(name):
    with pytest.raises(ValueError, match=r"--dataset is a name .*; received"):
        load_images(name, download=True)


def test_names_of_classes_lead_nowhere(tmp_path):
    recipe = Recipe("digits", classes=("3", "x/../../y"))
    place = (tmp_path / str(recipe)).resolve()
    assert place.parent == tmp_path.resolve()


@pytest.mark.parametrize("size", [(1, 1), (300, 200), (20_000, 3)])
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("PNG", "RGB", {}),
        ("PNG", "I;16", {}),
        ("PNG", "P", {}),
        ("JPEG", "L", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"comment": b"\xff\xc0\x00\x11" * 99}),
        ("JPEG", "CMYK", {"exif": b"Exif\0\0" + b"\xff\xc0\x00\x11" * 99}),
    ],
)
def test_the_size_of_an_image_is_what_tensorflow_makes(kind, mode, options, size):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    height, width, _ = tf.io.decode_image(file.getvalue(), channels=3).shape
    assert count_pixels(file.getvalue()) == height * width == size[0] * size[1]


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_images_of_frames_raise(kind):
    file, frames = io.BytesIO(), [Image.new("RGB", (9, 9), color) for color in range(3)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(tf.errors.InvalidArgumentError, match="send a JPEG or PNG"):
        count_pixels(file.getvalue())


@pytest.mark.parametrize("kind", ["BMP", "PPM", "TIFF"])
def test_other_strings_count_as_no_image(kind):
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, kind)
    for content in (file.getvalue(), b"", b"BMW", b"RIFF\0\0\0\0WAVE", b"\x89P"):
        assert count_pixels(content) == 0


def test_a_bmp_holds_its_pixels():
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "BMP")
    claims = bytearray(file.getvalue())
    claims[18:26] = 2 * (15_000).to_bytes(4, "little")
    with pytest.raises(tf.errors.InvalidArgumentError, match="size should match"):
        tf.io.decode_image(bytes(claims))
