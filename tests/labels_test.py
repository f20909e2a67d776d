"""Tests for labels.py."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tf_pseudofeat.labels import class_ids, labels_like

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


@pytest.mark.parametrize(
    ("labels", "num_classes", "message"),
    [
        (["cat", "dog"], None, r"must be numbers.*dtype <U3.*Map class names to ids"),
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
def test_what_names_no_class_is_refused(labels, num_classes, message):
    with pytest.raises(ValueError, match=message):
        class_ids(labels, num_classes)


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        ([0.3, 1.7, 0.0], "targets of a regression have none"),
        ([0, 1, np.nan], "targets of a regression have none"),
        ([0, -1, 1], "`ignore_class` of a loss skips, or give them the weight 0"),
        ([1, 2, 3], "Renumber the classes from 0, or give the model more outputs"),
    ],
)
def test_what_to_do_about_a_label_outside_follows_from_the_label(labels, advice):
    with pytest.raises(ValueError, match=advice):
        class_ids(labels, 3)
