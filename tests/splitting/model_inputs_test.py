"""Tests for model_inputs.py: inputs get the rank that a model declares, or an error."""

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tensorflow as tf
from keras import layers

from tests.py_datasets import ArrayBatches
from tests.small_models import NoGraph, small_classifier
from tf_pseudofeat.data.batches import batches_of
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.splitting.model_inputs import batch_as_declared, data_as_declared

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(6, 4)).astype("float32")
IMAGES = RNG.normal(size=(6, 5, 5, 1)).astype("float32")
Y = np.array([0, 1, 0, 1, 0, 1])
WORDS = np.array(["a", "b", "c", "d", "e", "f"])


def model_of(*inputs):
    """A model that declares the inputs, which computes nothing of them."""
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], inputs[0])


def images_model():
    return model_of(keras.Input((5, 5, 1)))


def two_inputs(as_dict=False):
    tensors = [keras.Input((2,), name="pair"), keras.Input((1,), name="single")]
    inputs = {one.name: one for one in tensors} if as_dict else tensors
    return keras.Model(inputs, layers.Concatenate()(tensors))


def stream(x, y=Y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


def of_unknown_rank(x):
    """A dataset that says nothing of the shape of its inputs."""
    types = (x.dtype, "int64")
    return tf.data.Dataset.from_generator(lambda: iter([(x, Y)]), output_types=types)


KINDS = {
    "arrays": lambda x: (x, Y),
    "list": lambda x: [x, Y],
    "dataset": stream,
    "dataset of unknown rank": of_unknown_rank,
    "PyDataset": lambda x: ArrayBatches(x, Y, batch_size=4),
    "iterable": lambda x: Batches((x[:4], Y[:4]), (x[4:], Y[4:])),
}


class Batches:
    """An iterable of batches, which is no list."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def inputs_in(data):
    """All inputs of data, as one array."""
    batches = batches_of(data, Extraction(batch_size=4))
    return np.concatenate([np.asarray(x) for x, _, _ in batches])


@pytest.mark.parametrize("kind", KINDS)
def test_a_last_axis_of_one_is_added_or_removed(kind):
    model = images_model()
    for given in (IMAGES, IMAGES[..., 0], IMAGES[..., None]):
        data = data_as_declared(model, KINDS[kind](given))
        np.testing.assert_array_equal(inputs_in(data), IMAGES)


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("kind", ["arrays", "dataset", "PyDataset"])
def test_texts_get_the_declared_rank(kind, shape):
    model = model_of(keras.Input(shape, dtype="string"))
    for given in (WORDS, WORDS[:, None]):
        texts = inputs_in(data_as_declared(model, KINDS[kind](given)))
        assert texts.shape == (6, *shape)
        assert texts.ravel().astype("U").tolist() == WORDS.tolist()


def test_a_series_is_read_with_the_declared_rank():
    model = model_of(keras.Input((), dtype="string"))
    data = data_as_declared(model, (pd.Series(WORDS), pd.Series(Y)))
    assert inputs_in(data).tolist() == WORDS.tolist()


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_dict_is_matched_by_name(as_dict):
    x = {"single": ROWS[:, 0], "pair": ROWS[:, 1:3]}  # not in the order of the model
    changed = batch_as_declared(two_inputs(as_dict), x)
    np.testing.assert_array_equal(changed["single"], ROWS[:, :1])
    np.testing.assert_array_equal(changed["pair"], ROWS[:, 1:3])


def test_the_columns_of_a_data_frame_are_inputs_by_name():
    frame = pd.DataFrame(ROWS[:, :2], columns=["a", "b"])
    model = model_of(keras.Input((), name="a"), keras.Input((1,), name="b"))
    data = data_as_declared(model, (dict(frame), Y))
    ((x, _, _),) = batches_of(data, Extraction())
    np.testing.assert_array_equal(x["a"], ROWS[:, 0])
    np.testing.assert_array_equal(x["b"], ROWS[:, 1:2])


def test_data_that_fit_are_the_same_object():
    model = images_model()
    for data in ((IMAGES, Y), stream(IMAGES)):
        assert data_as_declared(model, data) is data


@pytest.mark.parametrize("made", [NoGraph, lambda: keras.Sequential([layers.Dense(2)])])
def test_a_model_without_a_graph_declares_nothing(made):
    data = (IMAGES[..., 0], Y)
    assert data_as_declared(made(), data) is data
    assert batch_as_declared(made(), data[0]) is data[0]


def test_sizes_that_are_open_take_any():
    model = model_of(keras.Input((None, None, 1)))
    assert data_as_declared(model, (IMAGES, Y))[0] is IMAGES


def test_sparse_and_ragged_inputs_stay_packed():
    sparse = scipy.sparse.csr_matrix(ROWS)
    assert batch_as_declared(small_classifier(loss=None), sparse) is sparse
    ragged = tf.ragged.constant([["a"], ["b", "c"]])
    model = model_of(keras.Input((None,), dtype="string"))
    assert batch_as_declared(model, ragged) is ragged


def test_an_optional_input_may_be_missing():
    tensors = [keras.Input((2,), name="pair")]
    tensors.append(keras.Input((1,), name="single", optional=True))
    model = keras.Model({one.name: one for one in tensors}, tensors[0])
    x = {"pair": ROWS[:, :2]}
    assert batch_as_declared(model, x) is x


@pytest.mark.parametrize("kind", KINDS)
def test_another_size_names_both_shapes_before_the_network_sees_it(kind):
    message = (
        r"^`validation_data` has inputs of shape \[(N|6|4), 3, 3, 1\], where the model "
        r"takes \[None, 5, 5, 1\]\."
    )
    wrong = KINDS[kind](IMAGES[:, :3, :3])
    with pytest.raises(ValueError, match=message):
        inputs_in(data_as_declared(images_model(), wrong, "validation_data"))


@pytest.mark.parametrize(
    "x, message",
    [
        (ROWS[:, :3], r"of shape \[N, 3\], where the model takes \[None, 4\]"),
        (ROWS[:, 0], r"of shape \[N\], where the model takes \[None, 4\]"),
        (ROWS[:, None], r"of shape \[N, 1, 4\], where"),
        (
            pd.DataFrame(np.zeros((6, 2)), columns=["age", "income"]),
            r"\[N, 2\] \(columns 'age', 'income'\), where the model takes",
        ),
        ((ROWS, ROWS), r"2 arrays of inputs, of shapes \[N, 4\], \[N, 4\], where the"),
    ],
    ids=["columns", "vector", "rank", "frame", "two"],
)
def test_another_number_of_columns(x, message):
    with pytest.raises(ValueError, match=message):
        data_as_declared(small_classifier(loss=None), (x, Y))


@pytest.mark.parametrize(
    "x, message",
    [
        (
            ROWS[:, :2],
            r"1 array of inputs, of shape \[N, 2\], where the model takes 2: "
            r"'pair', 'single'\. Pass all inputs as the first item, \(\(a, b\), y\)",
        ),
        (pd.DataFrame(ROWS), r"Pass the columns.*by name, \(dict\(frame\), y\)"),
        (
            {"pair": ROWS[:, :2]},
            "has inputs 'pair', and the model .*; missing: 'single'.",
        ),
        (
            (ROWS[:, :3], ROWS[:, :1]),
            r"the input 'pair' of shape \[N, 3\], where the model takes \[None, 2\]",
        ),
    ],
    ids=["one array", "a frame", "a name", "a size"],
)
def test_several_inputs(x, message):
    with pytest.raises(ValueError, match=message):
        data_as_declared(two_inputs(), (x, Y))


MIXED = pd.DataFrame(ROWS, columns=list("abcd")).assign(b=[True, False] * 3)


def test_numbers_that_are_objects_are_read_as_numbers():
    model = small_classifier(loss=None)
    expected = np.column_stack([ROWS[:, 0], [1, 0] * 3, ROWS[:, 2:]])
    iterable = Batches((MIXED[:4], Y[:4]), (MIXED[4:], Y[4:]))
    for data in ((MIXED, Y), (MIXED.to_numpy(), Y), iterable):
        inputs = inputs_in(data_as_declared(model, data))
        assert inputs.dtype.kind == "f"
        np.testing.assert_array_equal(inputs, expected)


def test_texts_stay_texts():
    model = model_of(keras.Input((2,), dtype="string"))
    frame = pd.DataFrame({"a": WORDS, "b": WORDS})
    assert data_as_declared(model, (frame, Y))[0] is frame


@pytest.mark.parametrize(
    "x, message",
    [
        (MIXED.assign(c=WORDS), r"with columns that are no numbers, 'c' \(dtype "),
        (ROWS.astype(str), "of dtype <U32, where the model takes numbers"),
        (np.where(ROWS > 0, "a", ROWS.astype(object)), "of dtype object .*'a'"),
        (tf.constant(ROWS.astype(str)), "of dtype string"),
    ],
    ids=["a column", "texts", "objects", "tensor"],
)
def test_inputs_that_are_no_numbers(x, message):
    with pytest.raises(ValueError, match=f"^`data` has inputs {message}"):
        data_as_declared(small_classifier(loss=None), (x, Y))


def test_the_input_that_is_no_number_is_named():
    with pytest.raises(ValueError, match="^`x` has the input 'pair' of dtype <U1"):
        batch_as_declared(two_inputs(), (np.full((6, 2), "a"), ROWS[:, :1]), "x")


def test_inputs_in_a_structure_are_matched_by_their_place():
    a, b, c = (keras.Input((size,), name=f"i{size}") for size in (1, 2, 3))
    outputs = layers.Dense(2)(layers.Concatenate()([a, b, c]))
    model = keras.Model({"u": a, "v": {"b": b, "c": [c]}}, outputs)
    x = {"u": np.ones(4), "v": {"b": np.ones((4, 2)), "c": [np.ones((4, 3))]}}
    fitted = batch_as_declared(model, x)
    assert fitted["u"].shape == (4, 1)
    assert fitted["v"]["b"] is x["v"]["b"]
    x["v"]["c"] = [np.ones((4, 2))]
    with pytest.raises(ValueError, match=r"input 'i3' of shape \[N, 2\]"):
        batch_as_declared(model, x)
