"""Tests for labels.py."""

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tf_pseudofeat.core.labels import (
    check_class_names,
    class_ids,
    ids_of_names,
    labels_like,
    numbers_in,
)

IDS = np.array([2, 0, 1, 1, 0])
FORMS = {
    "sparse": IDS,
    "column": IDS[:, np.newaxis],
    "one-hot": np.eye(3, dtype="int64")[IDS],
}
DTYPES = [
    "int8",
    "uint8",
    "int32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
    ml_dtypes.bfloat16,
]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_and_dtype_names_the_same_classes(form, dtype, num_classes):
    ids = class_ids(FORMS[form].astype(dtype), num_classes)
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, IDS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_labels_like_is_the_inverse_of_class_ids(form, dtype):
    labels = FORMS[form].astype(dtype)
    back = labels_like(class_ids(labels), labels, 3)
    assert back.dtype == labels.dtype
    np.testing.assert_array_equal(back, labels)


@pytest.mark.parametrize("form", FORMS)
def test_the_number_of_ids_need_not_be_that_of_the_labels(form):
    encoded = labels_like([1, 2], FORMS[form], 3)
    assert encoded.shape == (2, *FORMS[form].shape[1:])
    np.testing.assert_array_equal(class_ids(encoded), [1, 2])


@pytest.mark.parametrize("convert", [list, tf.constant, tuple])
def test_lists_and_tensors_are_labels_too(convert):
    np.testing.assert_array_equal(class_ids(convert(IDS)), IDS)


@pytest.mark.parametrize("labels", [np.array([True, False]), [[0, 1], [1, 0]]])
def test_two_classes_may_come_as_truth_values_or_as_pairs(labels):
    np.testing.assert_array_equal(class_ids(labels, 2), [1, 0])


@pytest.mark.parametrize("labels", [np.zeros(0), np.zeros((0, 1)), np.zeros((0, 3))])
def test_no_labels_are_no_ids(labels):
    assert class_ids(labels, 3).shape == (0,)


def test_one_label_is_enough():
    np.testing.assert_array_equal(class_ids([[0, 0, 1]]), [2])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [int, float, bool])
def test_ids_that_are_objects_are_ids(form, dtype):
    labels = FORMS[form].astype(dtype)
    objects = labels.astype(object)
    assert numbers_in(objects).dtype == labels.dtype
    np.testing.assert_array_equal(class_ids(objects), class_ids(labels))


@pytest.mark.parametrize("values", [["a", 1], [None, 1], [[1], [1, 2]], ["1"]])
def test_objects_that_are_no_numbers_stay_as_they_are(values):
    objects = np.empty(len(values), object)
    objects[:] = values
    assert numbers_in(objects) is objects


@pytest.mark.parametrize(
    ("labels", "num_classes", "message"),
    [
        (["cat", "dog"], None, r"must be numbers.*dtype <U3.*Map class names to ids"),
        (np.array([0, None]), None, "dtype object, and label 1 is None"),
        (np.array([0, "cat"], object), None, "object, and label 1 is 'cat'. Map class"),
        ([0, 1, -1], None, r"class ids 0, 1, 2, .*; example 2 has label -1 \(1 such"),
        ([0, 3, 3], 3, r"class ids 0 to 2; example 1 has label 3 \(2 such .* of 3\)"),
        ([0.0, 0.5], None, r"example 1 has label 0.5"),
        ([np.nan, 1.0], None, r"example 0 has label nan"),
        ([0.0, np.inf], None, r"example 1 has label inf"),
        ([[0], [7]], 3, r"example 1 has label 7"),
        ([[1.0, 0.0], [0.3, 0.7]], None, r"row 1 is \[0.3, 0.7\] \(1 such rows\)"),
        ([[1, 1, 0], [0, 0, 0]], None, r"row 0 is \[1, 1, 0\] \(2 such rows\)"),
        ([[1.0, np.nan]], None, r"row 0 is \[1.0, nan\]"),
        ([[0, 1]], 3, r"One-hot labels are 2 wide, but there are 3 classes"),
        (3, None, r"must have shape \[N\], .*received shape \(\)"),
        (np.zeros((2, 2, 2)), None, r"received shape \(2, 2, 2\)"),
    ],
)
def test_what_names_no_class_raises(labels, num_classes, message):
    with pytest.raises(ValueError, match=message):
        class_ids(labels, num_classes)


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        ([0.3, 1.7, 0.0], "regression targets have no classes"),
        ([0, 1, np.nan], "regression targets have no classes"),
        ([0, -1, 1], "`ignore_class` of a loss skips, or give them weight 0"),
        ([1, 2, 3], "Renumber the classes from 0, or give the model more outputs"),
    ],
)
def test_what_to_do_about_a_label_outside_follows_from_the_label(labels, advice):
    with pytest.raises(ValueError, match=advice):
        class_ids(labels, 3)


# ---- Names of classes. ---------------------------------------------------------------

NAMES = ("cat", "dog", "häst")
WORDS = [NAMES[place] for place in IDS]


@pytest.mark.parametrize(
    "names",
    [
        list(NAMES),
        np.array(NAMES),
        pd.Series(NAMES),
        pd.Index(NAMES),
        dict(enumerate(NAMES)),
        {2: "häst", 0: "cat", 1: "dog"},
        {np.int64(place): np.str_(name) for place, name in enumerate(NAMES)},
        (name for name in NAMES),
    ],
)
def test_names_come_in_the_order_of_their_ids(names):
    received = check_class_names(names, 3)
    assert received == NAMES
    assert {type(name) for name in received} == {str}


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("abc", TypeError, "received the str 'abc'"),
        (b"abc", TypeError, "received the bytes"),
        ({"a", "b", "c"}, TypeError, "in the order of the class ids; received the set"),
        ([0, 1, 2], TypeError, "must be strings; received 0"),
        (["a", None, "c"], TypeError, "must be strings; received None"),
        ({0: "a", 1: 2, 2: "c"}, TypeError, "must be strings; received 2"),
        (["a", "b", "a"], ValueError, "has 'a' twice"),
        (["a", "", "c"], ValueError, "must have one line each; received ''"),
        (["a", "b\nc", "d"], ValueError, r"must have one line each; received 'b\\nc'"),
        (["a", "b"], ValueError, "has 2 names for 3 classes"),
        ({1: "a", 2: "b", 3: "c"}, ValueError, r"received the keys \[1, 2, 3\]"),
        ({"a": 0, "b": 1, "c": 2}, ValueError, r"received the keys \['a', 'b', 'c'\]"),
        ({"0": "a", "1": "b", "2": "c"}, ValueError, "received the keys"),
    ],
)
def test_names_that_do_not_name_the_classes_raise(names, error, message):
    with pytest.raises(error, match=message):
        check_class_names(names, 3)


@pytest.mark.parametrize(
    "labels",
    [
        WORDS,
        np.array(WORDS),
        np.array(WORDS, object),
        np.array([word.encode() for word in WORDS]),
        np.array(WORDS, np.dtypes.StringDType()),
        pd.Series(WORDS),
        pd.Series(WORDS, dtype="string"),
        pd.Series(WORDS, dtype="category"),
        tf.constant(WORDS),
        tf.constant(WORDS).numpy(),
    ],
)
def test_names_become_ids(labels):
    received = ids_of_names(labels, NAMES)
    np.testing.assert_array_equal(received, IDS)
    column = np.asarray(labels)[:, np.newaxis]
    column = tf.constant(column) if tf.is_tensor(labels) else column
    received = ids_of_names(column, NAMES)
    np.testing.assert_array_equal(received, IDS[:, np.newaxis])
    np.testing.assert_array_equal(class_ids(received, 3), IDS)


def test_names_of_a_dataset_become_ids_in_its_graph():
    data = tf.data.Dataset.from_tensor_slices(WORDS).batch(2)
    received = list(data.map(lambda y: ids_of_names(y, NAMES)).unbatch())
    np.testing.assert_array_equal(received, IDS)


@pytest.mark.parametrize("dtype", ["int64", "float32", "uint8"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("convert", [np.asarray, tf.constant])
def test_labels_that_are_no_names_stay_as_they_are(convert, form, dtype):
    labels = convert(FORMS[form].astype(dtype))
    assert ids_of_names(labels, NAMES) is labels


def test_no_labels_have_no_names():
    assert len(ids_of_names(np.zeros(0), NAMES)) == 0
    assert len(ids_of_names(tf.constant([], tf.string), NAMES)) == 0


@pytest.mark.parametrize("unknown", ["cow", "Cat", "cat ", ""])
def test_a_name_that_is_unknown_is_named(unknown):
    message = rf"The label '{unknown}' is not among the class names \['cat', 'dog'"
    with pytest.raises(ValueError, match=message):
        ids_of_names(np.array(["cat", unknown]), NAMES)
    data = tf.data.Dataset.from_tensors(["cat", unknown])
    with pytest.raises(tf.errors.InvalidArgumentError, match="not among the class nam"):
        list(data.map(lambda y: ids_of_names(y, NAMES)))


def test_a_label_that_is_missing_is_named():
    with pytest.raises(ValueError, match="The label None is not among the class names"):
        ids_of_names(np.array(["cat", None], dtype=object), NAMES)


def test_an_empty_array_of_names_has_no_ids():
    received = ids_of_names(np.array([], dtype="U4"), NAMES)
    assert class_ids(received, 3).shape == (0,)
