"""Tests of class names: labels that are names do what class ids do."""

import pytest
import tensorflow as tf

import tf_pseudofeat as tfpf
from tests.model_state import weights
from tests.py_datasets import ArrayBatches
from tests.small_fraud import NAMES, classifier, payments, word

TRAINING, VALIDATION = payments(0), payments(1, (1000, 100))
# A shift of the bias alone, which trains nothing.
BIAS = {"blend": 1.0, "tau": 0.7, "verbose": 0}


def retrain(model, training=TRAINING, validation=VALIDATION, **settings):
    settings = {"validation_data": validation, **BIAS, **settings}
    return tfpf.retrain_head(model, "features", training, **settings)


def dataset(x, labels):
    return tf.data.Dataset.from_tensor_slices((x, labels)).batch(256)


def objects(x, labels):
    return x, labels.astype(object) if labels.dtype.kind == "U" else labels


FORMS = {
    "arrays": lambda x, labels: (x, labels),
    "objects": objects,
    "a column": lambda x, labels: (x, labels[:, None]),
    "dataset": dataset,
    "PyDataset": lambda x, labels: ArrayBatches(x, labels, batch_size=256),
}


def named(data, form="arrays"):
    x, ids = data
    return FORMS[form](x, word(ids))


def forms(*quick):
    """Forms as parameters, slow but for those that are named."""
    slow = pytest.mark.slow
    return [pytest.param(f, marks=() if f in quick else slow) for f in FORMS]


@pytest.mark.parametrize("form", forms("arrays", "dataset"))
def test_labels_that_are_names_do_what_ids_do(form):
    by_id, by_name = classifier(), classifier()
    names = dict(enumerate(NAMES)) if form == "arrays" else list(NAMES)
    settings = {"class_names": names}
    data = (FORMS[form](*one) for one in (TRAINING, VALIDATION))
    expected = retrain(by_id, *data, **settings)
    data = (named(one, form) for one in (TRAINING, VALIDATION))
    report = retrain(by_name, *data, **settings)
    assert report.kept and report.class_names == NAMES
    assert report.real == [1455, 45]
    assert report.before == expected.before
    assert report.after == expected.after
    assert weights(by_name) == weights(by_id) != weights(classifier())


@pytest.mark.parametrize("form", ["arrays", "PyDataset"])
def test_a_label_of_no_class_is_named(form):
    training = named(TRAINING, form)
    message = r"label 'fraud' is not among the class names \['ok', 'theft'\]"
    with pytest.raises(ValueError, match=message):
        retrain(classifier(), training, None, class_names=["ok", "theft"])


def test_a_label_of_no_class_in_a_dataset_is_an_error_where_it_is_read():
    training = named(TRAINING, "dataset")
    with pytest.raises(tf.errors.InvalidArgumentError, match="not among the class nam"):
        retrain(classifier(), training, None, class_names=["ok", "theft"])


def test_names_without_class_names_raise():
    with pytest.raises(ValueError, match="must be numbers.*Map class names to ids"):
        retrain(classifier(), named(TRAINING), None)
    with pytest.raises(ValueError, match="3 names for 2 classes"):
        retrain(classifier(), class_names=["ok", "fraud", "theft"])
