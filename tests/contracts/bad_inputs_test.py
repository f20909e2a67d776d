"""What must not get in: one table of bad input for each public function.

A row is what is wrong, the arguments, the error, and a piece of its message. Where a
model is given it is the same afterwards, to the bit, and no step was trained.
"""

import contextlib
import dataclasses
import io
import itertools
import os
import resource
import shutil
import tempfile

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from imblearn.combine import SMOTEENN, SMOTETomek
from imblearn.over_sampling import (
    ADASYN,
    SMOTE,
    SVMSMOTE,
    BorderlineSMOTE,
    KMeansSMOTE,
)
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import RandomUnderSampler, TomekLinks
from keras import layers
from sklearn.neighbors import NearestNeighbors

import tf_pseudofeat as tfpf
from tests import heads
from tf_pseudofeat.gaussians.moments import zero_moments

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 4)).astype("float32")
Y = RNG.permutation(np.repeat([0, 1, 2], [200, 80, 20]))
ONE_HOT = np.eye(3, dtype="float32")[Y]
FRAME = pd.DataFrame(X, columns=list("abcd"))
NAN, INF = float("nan"), float("inf")


def table(*rows):
    """Rows of (what is wrong, arguments, error, piece of the message)."""
    return pytest.mark.parametrize(
        "given, error, message", [row[1:] for row in rows], ids=[row[0] for row in rows]
    )


def changed(array, place, value):
    """A copy, as floats where the value is one, with something wrong in one place."""
    array = array.astype("float32" if isinstance(value, float) else array.dtype)
    array[place] = value
    return array


def stream(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(64)


class Batches(keras.utils.PyDataset):
    """A dataset of the batches that it is given."""

    def __init__(self, *batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def bits(*owners):
    """Every variable as bytes."""
    variables = [variable for owner in owners for variable in owner.variables]
    return [keras.ops.convert_to_numpy(variable).tobytes() for variable in variables]


@pytest.fixture(scope="module")
def network():
    inputs = keras.Input((4,), name="measures")
    features = layers.Dense(5, activation="tanh", name="features")(inputs)
    outputs = layers.Dense(3, activation="softmax", name="end")(features)
    model = keras.Model(inputs, outputs, name="network")
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.fixture
def model(network, monkeypatch):
    """The model; nobody trains while a table asks for it, and its bits stay."""

    def trained(*args, **kwargs):
        raise AssertionError("a step was trained")

    before = bits(network, network.optimizer)
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", trained)
        yield network
    assert bits(network, network.optimizer) == before


def fitted(num_classes=3, size=5):
    gaussian = tfpf.ClassConditionalGaussian(num_classes)
    features = np.random.default_rng(1).normal(size=(30, size))
    gaussian.adapt(features, np.arange(30) % num_classes)
    return gaussian


FITTED = fitted()

# ---- Labels. The same rows for whatever takes labels of three classes. ---------------

LABELS = (
    ("too high", Y + 1, "class ids 0 to 2; example .* has label 3"),
    ("negative", Y - 1, "has label -1"),
    ("between two", Y + 0.5, r"has label \d.5"),
    ("NaN", changed(Y, 299, NAN), "example 299 has label nan"),
    ("infinite", changed(Y, 299, INF), "example 299 has label inf"),
    ("one of many", changed(Y, 299, 9), r"example 299 has label 9 \(1 such .* of 300"),
    ("strings", Y.astype(str), "must be numbers.*Map class names to ids"),
    ("of another rank", ONE_HOT[:, :, None], r"shape \[N\].*received .*3, 1"),
    ("too wide", np.eye(4)[Y], "4 wide, but there are 3 classes"),
    ("soft", 0.9 * ONE_HOT, "must be one-hot.*Soft"),
    ("two at once", changed(ONE_HOT, 7, 1.0), "row 7 is .*1 such rows"),
)
LABEL_ROWS = [(f"labels {what}", y, ValueError, message) for what, y, message in LABELS]


@pytest.mark.parametrize(
    "take",
    [
        lambda y, model: tfpf.class_counts(y, 3),
        lambda y, model: tfpf.class_recalls(y, Y, 3),
        lambda y, model: tfpf.moments_of(X, y, 3),
        lambda y, model: tfpf.moments_of_batches(iter([(X, y)]), 3),
        lambda y, model: tfpf.ClassConditionalGaussian(3).adapt(X, y),
        lambda y, model: FITTED.sample(y, (1, 2)),
        lambda y, model: tfpf.interleave(X, y, fitted(size=4)),
        lambda y, model: retrain(model, data=(X, y)),
        lambda y, model: retrain(model, validation_data=(X, y)),
        lambda y, model: tfpf.tune(model, "features", (X, y), (X, Y)),
        lambda y, model: tfpf.tune(model, "features", (X, Y), (X, y)),
        lambda y, model: train_head(
            tfpf.split_at(model, "features").head, tfpf.LabeledFeatures(X, y)
        ),
    ],
    ids=[
        *("class_counts", "class_recalls", "moments_of", "moments_of_batches"),
        *("adapt", "sample", "interleave", "retrain_head", "validation_data"),
        *("tune", "tune on validation_data", "fit_head"),
    ],
)
@table(*LABEL_ROWS)
def test_labels(model, capsys, take, given, error, message):
    with pytest.raises(error, match=message):
        take(given, model)
    assert not capsys.readouterr().out  # nothing was extracted


# ---- A whole retraining. -------------------------------------------------------------


def retrain(model, layer="features", data=(X, Y), **settings):
    return tfpf.retrain_head(model, layer, data, verbose=1, **settings)


def few_of_class_2(count):
    """Data with so many examples of class 2."""
    few = np.flatnonzero((Y < 2) | (np.cumsum(Y == 2) <= count))
    return X[few], Y[few]


ONE_OF_CLASS_2 = few_of_class_2(1)
LAST = int(np.flatnonzero(Y == 2)[-1])
ORDER = np.argsort(Y, kind="stable")
OF_100 = tfpf.Extraction(batch_size=100)

KNOWN_AT_ONCE = (
    (
        "unknown layer",
        {"layer": "featuers"},
        ValueError,
        "Did you mean 'features'",
    ),
    ("last layer", {"layer": "end"}, ValueError, "output layer.*'features'"),
    ("a layer object", {"layer": 3}, TypeError, "must be the name of the layer.*3"),
    (
        "another number of columns",
        {"data": (X[:, :3], Y)},
        ValueError,
        r"^`data` has inputs of shape \[N, 3\], where the model takes \[None, 4\]",
    ),
    (
        "another number of columns to validate",
        {"validation_data": stream(X[:, :3], Y)},
        ValueError,
        r"^`validation_data` has inputs of shape \[N, 3\], where the model takes",
    ),
    (
        "two inputs for one",
        {"data": ((X, X), Y)},
        ValueError,
        "2 arrays of inputs.* where the model takes 1: 'measures'",
    ),
    (
        "a column of text",
        {"data": (FRAME.assign(c="red"), Y)},
        ValueError,
        r"^`data` has inputs with columns that are no numbers, 'c' \(dtype \w+\)",
    ),
    (
        "a column of text to validate",
        {"validation_data": (FRAME.assign(c=pd.Categorical(["a"] * 300)), Y)},
        ValueError,
        r"^`validation_data` has inputs with .* 'c' \(dtype category\).*Encode it",
    ),
    (
        "texts",
        {"data": stream(X.astype(str), Y)},
        ValueError,
        "`data` has inputs of dtype string, where the model takes numbers",
    ),
    (
        "columns in another order",
        {"data": (FRAME, Y), "validation_data": (FRAME[["b", "a", "c", "d"]], Y)},
        ValueError,
        r"^`validation_data` has the columns 'b', 'a', 'c', 'd', where `data` has "
        r"'a', 'b'.*another order.*validation_data\[0\]\[list\(data\[0\].columns\)\]",
    ),
    (
        "columns of other names",
        {"data": (FRAME, Y), "validation_data": (FRAME.rename(columns={"a": "z"}), Y)},
        ValueError,
        "it lacks 'a'; unknown are 'z'",
    ),
    ("no option", {"ouptut": "x"}, TypeError, "'ouptut' is not an option"),
    ("no labels", {"data": X}, TypeError, "received ndarray"),
    ("another length", {"data": (X, Y[:-1])}, ValueError, r"lengths \[299, 300\]"),
    ("empty arrays", {"data": (X[:0], Y[:0])}, ValueError, r"lengths \[0\]"),
    ("lists of text", {"data": ([["a"]] * 300, Y)}, ValueError, "np.asarray"),
    ("uneven lists", {"data": ([[1.0], []], Y[:2])}, ValueError, "different lengths"),
    ("a single label", {"data": (X, 3)}, ValueError, "single value 3"),
    ("empty", {"data": stream(X, Y).take(0)}, ValueError, "dataset is empty"),
    (
        "empty in the end",
        {"data": stream(X, Y).filter(lambda *_: False)},
        ValueError,
        "data has no batch",
    ),
    ("no batch", {"data": Batches()}, ValueError, "data has no batch"),
    ("no pairs", {"data": Batches(X)}, ValueError, r"must yield \(x, y\).*ndarray"),
    ("infinite", {"data": stream(X, Y).repeat()}, ValueError, "pass `steps`"),
    (
        "infinite validation data",
        {"validation_data": stream(X, Y).repeat(), "steps": 3},
        ValueError,
        r"`validation_data` is infinite.*validation_data.take\(n\)",
    ),
    (
        "no data",
        {"validation_data": "test"},
        TypeError,
        "^`validation_data` must be a tf.data.Dataset.*received str",
    ),
    (
        "inputs alone",
        {"validation_data": X},
        TypeError,
        r"^`validation_data` must .*received ndarray, inputs without labels",
    ),
    (
        "negative weight",
        {"data": (X, Y, changed(np.ones(300), 7, -1.0))},
        ValueError,
        "example 7 has weight -1.0",
    ),
    (
        "weight of NaN",
        {"data": (X, Y, changed(np.ones(300), 7, NAN))},
        ValueError,
        "example 7 has weight nan",
    ),
    (
        "weights in a column",
        {"data": (X, Y, np.ones((300, 1)))},
        ValueError,
        r"shape \[256\]; received shape \[256, 1\]",
    ),
    ("no epoch", {"epochs": 0}, ValueError, "`epochs` must be a whole .*received 0"),
    ("half an epoch", {"epochs": 1.5}, ValueError, "received 1.5"),
    (
        "epochs NaN",
        {"epochs": NAN},
        ValueError,
        "`epochs` .* at least 1; received nan",
    ),
    ("endless epochs", {"epochs": INF}, ValueError, "received inf"),
    ("epochs in words", {"epochs": "3"}, ValueError, "received '3'"),
    ("empty batches", {"batch_size": 0}, ValueError, "`batch_size`.*received 0"),
    ("batches of NaN", {"batch_size": NAN}, ValueError, "`batch_size`.*received nan"),
    ("no step", {"steps": 0}, ValueError, "`steps` must be a whole .*received 0"),
    ("half a step", {"steps": 2.5}, ValueError, "`steps`.*received 2.5"),
    ("one seed", {"seed": 3}, ValueError, "two integers.*received 3"),
    ("three seeds", {"seed": (1, 2, 3)}, ValueError, "two integers"),
    ("float seeds", {"seed": (1.5, 2)}, ValueError, "two integers"),
    ("one seed tensor", {"seed": tf.constant(3)}, ValueError, "two integers"),
    ("float tensor", {"seed": tf.constant([1.0, 2])}, ValueError, "two integers"),
    ("no score", {"monitor": "f2"}, ValueError, "`monitor` must be one of.*'f2'"),
    ("blend above 1", {"blend": 1.5}, ValueError, r"must be in \[0, 1\]; received 1.5"),
    (
        "blend of fresh",
        {"blend": 0.5, "fresh_head": True},
        ValueError,
        "fresh head is not",
    ),
    (
        "tau NaN",
        {"tau": NAN},
        ValueError,
        "`tau` must be a finite number.*received nan",
    ),
    ("tau in words", {"tau": "1"}, ValueError, "`tau` must be a finite .*received '1'"),
    ("strategy", {"sampling_strategy": "auot"}, ValueError, "'auot'"),
    ("no strategy", {"sampling_strategy": None}, TypeError, "'auto'.*received None"),
    ("list", {"sampling_strategy": [1, 2]}, TypeError, r"totals.*received \[1, 2\]"),
    ("ratio 2", {"sampling_strategy": 2.0}, ValueError, r"\(0, 1\]; received 2.0"),
    ("ratio NaN", {"sampling_strategy": NAN}, ValueError, "received nan"),
    (
        "class 7",
        {"sampling_strategy": {7: 9}},
        ValueError,
        "class 7; .* classes 0 to 2",
    ),
    ("class -1", {"sampling_strategy": {-1: 9}}, ValueError, "class -1; the model has"),
    (
        "strategy beside a sampler",
        {"sampler": SMOTE(), "sampling_strategy": "minority"},
        ValueError,
        r"Set it there, SMOTE\(sampling_strategy=",
    ),
    ("two sources", {"sampler": SMOTE(), "gaussian": FITTED}, ValueError, "not both"),
    ("no sampler", {"sampler": "SMOTE"}, ValueError, "fit_resample.*received str"),
    ("no gaussian", {"gaussian": SMOTE()}, ValueError, "received SMOTE.*`sampler`"),
    (
        "gaussian of 4",
        {"gaussian": tfpf.ClassConditionalGaussian(4)},
        ValueError,
        r"4 classes, but the model 3. Pass ClassConditionalGaussian\(3\)",
    ),
    ("the class SMOTE", {"sampler": SMOTE}, TypeError, r"`sampler` .*Pass SMOTE\(\)"),
    (
        "the class of gaussians",
        {"gaussian": tfpf.ClassConditionalGaussian},
        TypeError,
        r"`gaussian` must be an instance; .*ClassConditionalGaussian\(num_classes\)",
    ),
    (
        "a class of layers",
        {"augment": layers.RandomFlip},
        TypeError,
        r"received the class RandomFlip. Pass RandomFlip\(\)",
    ),
    (
        "a class of optimizers",
        {"optimizer": keras.optimizers.Adam},
        TypeError,
        r"received the class Adam. Pass Adam\(\)",
    ),
    (
        "a class of metrics",
        {"monitor": tfpf.BalancedAccuracy},
        TypeError,
        "received the class BalancedAccuracy",
    ),
    (
        "one class",
        {"data": (X, 0 * Y)},
        ValueError,
        "All 300 examples are of class 0, one class of 3, .*of two classes or more",
    ),
    (
        "one class of a sampler",
        {"data": (X, 0 * Y + 2), "sampler": SMOTE()},
        ValueError,
        "All 300 examples are of class 2",
    ),
    (
        "one class that counts",
        {"data": (X, Y, 1.0 * (Y == 1))},
        ValueError,
        "All 80 examples are of class 1, one class of 3",
    ),
    ("nothing that counts", {"data": (X, Y, 0.0 * Y)}, ValueError, "All 300 sample w"),
    (
        "a weight later",
        {"data": (X, Y, changed(np.ones(300), 299, -1.0))},
        ValueError,
        r"example 299 has weight -1.0 \(1 such examples of 300\)",
    ),
    (
        "one class in the steps",
        {"data": (X[ORDER], Y[ORDER]), "steps": 1, "extraction": OF_100},
        ValueError,
        "All 100 examples are of class 0",
    ),
    *(
        (
            f"one example and {covariance}",
            {"data": ONE_OF_CLASS_2, "gaussian": {"covariance_type": covariance}},
            ValueError,
            f"Class 2 has 1 example; a '{covariance}' .*covariance_type='tied'",
        )
        for covariance in ("full", "diag", "spherical", "low_rank")
    ),
    (
        "one example by its weight",
        {"data": (X, Y, 1.0 * (Y < 2) + (np.arange(300) == LAST)), "gaussian": {}},
        ValueError,
        "Class 2 has 1 example",
    ),
    ("one of each", {"per_class": 1, "gaussian": {}}, ValueError, "Class 0 has 1 exam"),
    (
        "one of each and a shared covariance",
        {"per_class": 1, "gaussian": {"covariance_type": "tied"}},
        ValueError,
        "3 examples of 3 classes leave no deviation",
    ),
    (
        "rank",
        {"gaussian": {"covariance_type": "low_rank", "rank": 6}},
        ValueError,
        "at most the number of features, 5; received 6",
    ),
    (
        "other features",
        {"gaussian": fitted(size=4)},
        ValueError,
        r"holds features of shape \[B, 4\]; received \[None, 5\]",
    ),
    (
        "fewer than there are",
        {"sampling_strategy": {0: 199}},
        ValueError,
        "asks for 199 examples of class 0, which already has 200",
    ),
    (
        "fewer than there are, by a function",
        {"sampling_strategy": lambda ids: {2: 19}},
        ValueError,
        "asks for 19 examples of class 2, which already has 20",
    ),
    (
        "fewer than are looked at",
        {"sampling_strategy": {0: 49}, "per_class": 50},
        ValueError,
        "asks for 49 examples of class 0, which already has 50",
    ),
    (
        "fewer than there are views",
        {"sampling_strategy": {0: 99}, "per_class": 50, "augment": abs, "views": 2},
        ValueError,
        "asks for 99 examples of class 0, which already has 100",
    ),
    (
        "a class that is missing",
        {"data": (X, Y % 2), "sampling_strategy": {2: 9}},
        ValueError,
        r"class 2, which has no example; .*\[0, 1\]",
    ),
    ("a ratio of three", {"sampling_strategy": 0.5}, ValueError, "target is binary"),
    (
        "a ratio below",
        {"data": (X, np.minimum(Y, 1)), "sampling_strategy": 0.4},
        ValueError,
        "asks for 80 examples of class 1 .*already has 100. Pass a ratio from 0.5 to 1",
    ),
    (
        "fewer than a sampler has",
        {"sampler": SMOTE(sampling_strategy={0: 199})},
        ValueError,
        "number of samples in a class should be greater",
    ),
    (
        "more than an under-sampler has",
        {"sampler": RandomUnderSampler(sampling_strategy={2: 21})},
        ValueError,
        "should be less or equal",
    ),
    *(
        (
            f"neighbors of {type(sampler).__name__} {there}",
            {"sampler": sampler, "data": few_of_class_2(there)},
            ValueError,
            rf"needs {needed}, but class 2 has {there} .*\[2\]\).*{way_out}",
        )
        for sampler, there, needed, way_out in (
            (SMOTE(), 5, 6, "k_neighbors=4 or less"),
            (SMOTE(k_neighbors=20), 20, 21, "k_neighbors=19 or less"),
            (SMOTE(k_neighbors=NearestNeighbors(n_neighbors=21)), 20, 21, ""),
            (BorderlineSMOTE(), 5, 6, "k_neighbors=4 or less"),
            (SVMSMOTE(), 5, 6, "k_neighbors=4 or less"),
            (KMeansSMOTE(), 2, 3, "k_neighbors=1 or less"),
            (ADASYN(), 5, 6, "n_neighbors=4 or less"),
            (SMOTE(), 1, 6, r"Pass RandomOverSampler\(\)"),
            (SMOTETomek(), 5, 6, "k_neighbors=4 or less"),
            (SMOTEENN(smote=SMOTE(k_neighbors=7)), 7, 8, "k_neighbors=6"),
            (make_pipeline(SMOTE(), TomekLinks()), 5, 6, "k_neighbors=4"),
        )
    ),
    (
        "one example of a sampler of Gaussians",
        {"data": ONE_OF_CLASS_2, "sampler": tfpf.GaussianOverSampler()},
        ValueError,
        "Class 2 has 1 example; a 'full' covariance",
    ),
    (
        "tau of a class that is missing",
        {"data": (X, Y % 2), "tau": 0.5},
        ValueError,
        r"classes \[2\] have no example",
    ),
    (
        "views of no images",
        {"views": 2},
        ValueError,
        "views=2, but nothing makes views",
    ),
    ("optimizer", {"optimizer": "adamm"}, ValueError, "adamm"),
    ("loss", {"loss": "sparse_crossentropy"}, ValueError, "sparse_crossentropy"),
    (
        "loss of other labels",
        {"loss": "categorical_crossentropy"},
        ValueError,
        r"does not take labels of shape \[N\] .*These labels are class ids",
    ),
    ("other labels", {"data": (X, ONE_HOT)}, ValueError, "These labels are one-hot"),
    (
        "out of step from the start",
        {"data": Batches((X[:8], Y[:7]))},
        ValueError,
        "first batch has 8 inputs and 7 labels",
    ),
    (
        "views alone",
        {"views": 2, "augment": None},
        ValueError,
        "views=2 needs `augment`",
    ),
    ("views NaN", {"augment": abs, "views": NAN}, ValueError, "`views`.*received nan"),
    ("no function", {"augment": "flip"}, TypeError, "`augment` must be 'auto'.*'flip'"),
    ("no example", {"per_class": 0}, ValueError, "`per_class`.*received 0"),
    ("half an example", {"per_class": 2.5}, ValueError, "`per_class`.*received 2.5"),
    ("examples in words", {"per_class": "all"}, ValueError, "`per_class`.*'all'"),
    ("crop", {"augment": lambda x: x[:, 1:]}, ValueError, "`augment` returns .*256, 3"),
    ("recipe", {"recipe": "best"}, TypeError, "HeadRecipe, or 'auto'.*'best'"),
    ("cache in a number", {"cache_dir": 3}, TypeError, "must be a path; received 3"),
    ("cache in a file", {"cache_dir": __file__}, NotADirectoryError, "is a file"),
    (
        "cache for a sampler",
        {"cache_dir": "cache", "sampler": SMOTE()},
        ValueError,
        "SMOTE needs all features in memory.*Leave one",
    ),
    (
        "auto and tau",
        {"recipe": "auto", "tau": 1},
        ValueError,
        r"\['tau'\] cannot be passed where .* recipe='auto' do",
    ),
    (
        "auto and nothing to judge by",
        {"recipe": "auto"},
        ValueError,
        "'auto' chooses by validation data.*Pass `validation_data`",
    ),
)
# At the start of a training, where the callback looks, it may be the network's fault.
NAN_FROM_THE_START = (
    "NaN from the start",
    {"data": (changed(X, (3, 2), NAN), Y)},
    ValueError,
    "at 'features' are NaN .* in 1 of 32 rows.*inputs of 1 of them.* row 3: clean",
)


@table(*KNOWN_AT_ONCE, NAN_FROM_THE_START)
def test_retrain_head_before_anything_is_extracted(
    model, capsys, given, error, message
):
    with pytest.raises(error, match=message):
        retrain(model, **given)
    assert not capsys.readouterr().out


@table(
    ("no model", "network", TypeError, "must be a keras.Model, not str"),
    ("a layer", layers.Dense(3), TypeError, "must be a keras.Model, not Dense"),
)
def test_model(tmp_path, given, error, message):
    for use in (
        lambda: retrain(given),
        lambda: tfpf.tune(given, "features", (X, Y), (X, Y)),
        lambda: tfpf.split_at(given, "features"),
        lambda: tfpf.separating_layers(given),
        lambda: tfpf.adjust_logits(given, [3, 2, 1]),
        lambda: tfpf.extract_features(given, (X, Y)),
        lambda: train_head(given),
        lambda: tfpf.export_classifier(given, tmp_path / "served"),
    ):
        with pytest.raises(error, match=message):
            use()
    assert not (tmp_path / "served").exists()


def test_optimizer_of_the_model_itself(model, capsys):
    with pytest.raises(ValueError, match="compiled with.*Pass a new one"):
        retrain(model, optimizer=model.optimizer)
    assert not capsys.readouterr().out


def test_head_with_nothing_to_train(model, capsys):
    model.get_layer("end").trainable = False
    try:
        with pytest.raises(ValueError, match="no trainable weights"):
            retrain(model)
    finally:
        model.get_layer("end").trainable = True
    assert not capsys.readouterr().out


LATE = changed(X, (280, 2), NAN)  # in the second batch


@table(
    (
        "NaN in a later batch",
        {"data": (LATE, Y)},
        ValueError,
        "Batch 1, .* features are NaN or infinite in 1 of 44 rows, .* row 24",
    ),
    (
        "NaN to score on",
        {"validation_data": (LATE, Y)},
        ValueError,
        "Batch 1, .* features are NaN or infinite in 1 of 44 rows",
    ),
    ("a label later", {"data": stream(X, changed(Y, 299, 9))}, ValueError, "label 9"),
    (
        "batches out of step",
        {
            "data": Batches((X[:8], Y[:8]), (X[:8], Y[:7]), (X[:7], Y[:8])),
            "per_class": None,
        },
        ValueError,
        r"Batch 1, .*lengths \[7, 8\]",
    ),
    (
        "weights out of step",
        {"data": Batches((X, Y, np.ones(300)), (X, Y, np.ones(299)))},
        ValueError,
        r"Batch 1, .*shape \[300\]; received shape \[299\]",
    ),
)
def test_retrain_head_before_a_step_is_trained(model, given, error, message):
    with pytest.raises(error, match=message):
        retrain(model, **given)


@pytest.mark.parametrize("rows", [(100, 99), (99, 100)], ids=str)
def test_batches_out_of_step_of_which_some_examples_are_chosen(model, rows):
    inputs, labels = (slice(100, 100 + number) for number in rows)
    later = X[inputs], Y[labels]
    with pytest.raises(ValueError, match="Batch 1, .*(100.*99|99.*100)"):
        retrain(model, data=Batches((X[:100], Y[:100]), later, (X[200:], Y[200:])))


def lacks_what_fit_has(case):
    """Validation data, after an epoch, and the steps of one."""
    return case[0] == "infinite" or case[1] == {"recipe": "auto"}


@table(
    *itertools.filterfalse(lacks_what_fit_has, KNOWN_AT_ONCE),
    ("half an interval", {"every": 1.5}, ValueError, "`every` must be a whole .*1.5"),
    ("an interval of NaN", {"every": NAN}, ValueError, "`every`.*received nan"),
    ("a setting that is none", {"epoch": 3}, TypeError, "epoch"),
    NAN_FROM_THE_START,
)
def test_callback_before_a_step_is_trained(network, given, error, message):
    settings = {"layer": "features", "data": (X, Y)} | given
    before = bits(network, network.optimizer)
    with pytest.raises(error, match=message):
        retrainer = tfpf.PseudoFeatureHeadRetrainer(**settings)
        network.fit(X, Y, verbose=0, callbacks=[retrainer])
    assert bits(network, network.optimizer) == before


@table(
    (
        "nothing to judge by",
        {"validation_data": None},
        ValueError,
        "chooses by validation data",
    ),
    ("nothing", {"validation_data": (X[:0], Y[:0])}, ValueError, r"lengths \[0\]"),
    ("no score", {"monitor": "f2"}, ValueError, "`monitor` must be one of.*'f2'"),
    ("what it finds", {"blend": 0.5}, ValueError, r"\['blend'\] .* `tune`.*leave"),
    ("class weights", {"class_weight": {0: 1}}, TypeError, "third item of `data`"),
    ("a time budget", {"time_budget": 60}, TypeError, "'time_budget' is not an option"),
    ("unknown layer", {"layer": "featuers"}, ValueError, "Did you mean"),
    ("epochs NaN", {"epochs": NAN}, ValueError, "`epochs`.*received nan"),
    ("infinite", {"data": stream(X, Y).repeat()}, ValueError, "pass `steps`"),
    ("cache in a file", {"cache_dir": __file__}, NotADirectoryError, "is a file"),
)
def test_tune(model, given, error, message):
    settings = {"layer": "features", "data": (X, Y), "validation_data": (X, Y)}
    with pytest.raises(error, match=message):
        tfpf.tune(model, verbose=0, **settings | given)


def test_tune_by_a_score_that_the_validation_data_do_not_have(model):
    largest = X[Y == 0], Y[Y == 0]
    with pytest.raises(ValueError, match="two classes or more to score on"):
        tfpf.tune(
            *(model, "features", (X, Y), largest),
            monitor="mean_minority_accuracy",
            epochs=1,
            verbose=0,
        )


# ---- The steps by themselves. --------------------------------------------------------


@table(
    (
        "unknown layer",
        {"layer_name": "featuers"},
        ValueError,
        "Did you mean 'features'",
    ),
    ("no name", {"layer_name": ""}, ValueError, "no layer ''.*'features'"),
    ("an object", {"layer_name": 3}, TypeError, "must be a string.*layer.name"),
    ("last layer", {"layer_name": "end"}, ValueError, "output layer.*'features'"),
    ("inside", {"layer_name": "features/x"}, ValueError, "'features'"),
    ("call 1", {"call_index": 1}, ValueError, r"called 1 time\(s\).*call_index=0"),
    ("call -1", {"call_index": -1}, ValueError, "call_index=-1 is out of range"),
    ("call 0.0", {"call_index": 0.0}, TypeError, "int or None, not 0.0"),
    ("no output", {"output": "x"}, ValueError, "no output 'x'; its outputs: 'end'"),
    ("output 0", {"output": 0}, TypeError, "name of an output, not int"),
)
def test_split_at(model, given, error, message):
    with pytest.raises(error, match=message):
        tfpf.split_at(model, **{"layer_name": "features"} | given)


TO_HALF = keras.Sequential([keras.Input((4,)), layers.Identity(dtype="float16")])


@table(
    ("NaN", {"data": (LATE, Y)}, ValueError, "Batch 1, .* 1 of 44 rows, .* row 24"),
    (
        "float16 overflow",
        {"trunk": TO_HALF, "data": (changed(X, (3, 0), 1e6), Y)},
        ValueError,
        r"Batch 0, .* 1 of 256 rows, the first is row 3.*overflow \(float16\?\)",
    ),
    (
        "batches out of step",
        {"data": Batches((X[:8], Y[:7]), (X[:7], Y[:8]))},
        ValueError,
        r"Batch 0, .*lengths \[7, 8\]",
    ),
    (
        "weights out of step",
        {"data": Batches((X[:8], Y[:8], np.ones(7)))},
        ValueError,
        r"Batch 0, .*shape \[8\]; received shape \[7\]",
    ),
    ("lists", {"data": Batches((X[:2], [0, 1]))}, ValueError, "`y` is a list of 2"),
    ("no batch", {"data": Batches()}, ValueError, "data has no batch"),
    ("one seed", {"augment": abs, "seed": 3}, ValueError, "two integers"),
    ("no views", {"augment": abs, "views": 0}, ValueError, "`views`.*received 0"),
    ("steps in words", {"steps": "3"}, ValueError, "`steps`.*received '3'"),
    ("infinite", {"data": stream(X, Y).repeat()}, ValueError, "pass `steps`"),
    ("cache in a number", {"cache_dir": 3}, TypeError, "must be a path; received 3"),
    ("cache of no name", {"cache_dir": ""}, TypeError, "must be a path; received ''"),
    ("cache in a file", {"cache_dir": __file__}, NotADirectoryError, "is a file"),
)
def test_extract_features(given, error, message):
    trunk = keras.Sequential([keras.Input((4,)), layers.Identity()])
    settings = {"trunk": trunk, "data": (X, Y), "verbose": 0} | given
    with pytest.raises(error, match=message):
        tfpf.extract_features(**settings)


COLUMN = np.ones((300, 1), "float32")
TEXT = X.astype(str)

FEATURE_ROWS = (
    ("NaN", (LATE, Y), ValueError, r"Class \d has 1 of \d+ examples with NaN or inf"),
    ("infinite", (changed(X, 5, INF), Y), ValueError, "NaN or infinite.* in row 5"),
    ("too large to square", (X * 1e30, Y), ValueError, "overflow float32.*Scale"),
    ("text", (TEXT, Y), ValueError, "real numbers; received dtype <U"),
    ("complex", (X * 1j, Y), ValueError, "real numbers; received dtype complex64"),
    ("no feature", (X[:, :0], Y), ValueError, r"received .*\(\w+, 0\)"),
    ("no example", (X[:0], Y[:0]), ValueError, r"features of shape \(0, 4\) and 0 la"),
    ("another length", (X[:-1], Y), ValueError, r"shape \(299, 4\) and 300 labels"),
)


@table(
    *FEATURE_ROWS,
    ("one row", (X[0], Y[:4]), ValueError, r"features of shape \(4,\) and 4 labels"),
    ("no class", (X, Y, 0), ValueError, "`num_classes` must be a whole .*received 0"),
    ("half a class", (X, Y, 2.5), ValueError, "`num_classes`.*received 2.5"),
    ("classes in words", (X, Y, "3"), ValueError, "`num_classes`.*received '3'"),
    ("kind", (X, Y, 3, "half"), ValueError, "`kind` must be one of .*'half'"),
)
def test_moments_of(given, error, message):
    features, labels, *rest = given
    with pytest.raises(error, match=message):
        tfpf.moments_of(features, labels, *(rest or [3]))


@table(
    *((what, [given], *rest) for what, given, *rest in FEATURE_ROWS),
    ("nothing", [], ValueError, "stream of features is empty"),
    ("an array", X, ValueError, r"\(features, labels\).*a ndarray.*their labels"),
    ("features alone", stream(X).map(lambda x: x), ValueError, "EagerTensor"),
    ("a pair alone", (X, Y), ValueError, "received a ndarray"),
    ("infinite", stream(X, Y).repeat(), ValueError, r"infinite.*`dataset.take\(n\)`"),
)
def test_streams_of_features(given, error, message):
    with pytest.raises(error, match=message):
        tfpf.moments_of_batches(given, 3)
    with pytest.raises(error, match=message):
        tfpf.ClassConditionalGaussian(3, "diag").adapt(given)


@table(
    ("a gaussian", FITTED, TypeError, "received ClassConditionalGaussian.*`moments`"),
    ("nothing", None, TypeError, "received NoneType"),
    ("another kind", tfpf.moments_of(X, Y, 3, "diag"), ValueError, "and diag"),
    ("more classes", tfpf.moments_of(X, Y, 4), ValueError, r"\[3, 4\] and .*\[4, 4\]"),
    ("one feature", tfpf.moments_of(COLUMN, Y, 3), ValueError, r"\[3, 4\] .*\[3, 1\]"),
)
def test_merge(given, error, message):
    with pytest.raises(error, match=message):
        tfpf.merge_moments(tfpf.moments_of(X, Y, 3), given)


def test_a_rank_above_the_number_of_features_raises_where_they_are_seen():
    gaussian = tfpf.ClassConditionalGaussian(3, "low_rank", rank=X.shape[1] + 1)
    for use in (
        lambda: gaussian.adapt(X, Y),
        lambda: gaussian(X),
        lambda: tfpf.moments_of(X, Y, 3, "low_rank", X.shape[1] + 1),
        lambda: tfpf.moments_of_batches(iter([(X, Y)]), 3, "low_rank", 99),
    ):
        message = rf"at most the number of features, {X.shape[1]}; received \d+\. Pass"
        with pytest.raises(ValueError, match=message):
            use()
    assert gaussian.moments is None


LOW_RANK = {"covariance_type": "low_rank"}


@table(
    ("no class", {"num_classes": 0}, ValueError, "at least 1; received 0"),
    ("half a class", {"num_classes": 2.5}, ValueError, "received 2.5"),
    ("classes unknown", {"num_classes": None}, ValueError, "received None"),
    ("classes NaN", {"num_classes": NAN}, ValueError, "`num_classes`.*received nan"),
    ("endless classes", {"num_classes": INF}, ValueError, "received inf"),
    ("type", {"covariance_type": "half"}, ValueError, "must be one of .*'half'"),
    ("shrinkage", {"shrinkage": -0.1}, ValueError, "from 0 to 1; received -0.1"),
    ("shrinkage NaN", {"shrinkage": NAN}, ValueError, "received nan"),
    ("scale 0", {"covariance_scale": 0}, ValueError, "positive number; received 0"),
    ("scale NaN", {"covariance_scale": NAN}, ValueError, "received nan"),
    ("scale in words", {"covariance_scale": "2"}, ValueError, "received '2'"),
    (
        "rank of full",
        {"rank": 4},
        ValueError,
        "'low_rank'; received rank=4 with 'full'",
    ),
    ("rank 0", LOW_RANK | {"rank": 0}, ValueError, "`rank`.* at least 1; received 0"),
    ("half a rank", LOW_RANK | {"rank": 2.5}, ValueError, "`rank`.* received 2.5"),
    ("rank NaN", LOW_RANK | {"rank": NAN}, ValueError, "`rank`.* received nan"),
    ("rank in words", LOW_RANK | {"rank": "4"}, ValueError, "`rank`.* received '4'"),
)
def test_gaussian(given, error, message):
    with pytest.raises(error, match=message):
        tfpf.ClassConditionalGaussian(**{"num_classes": 3} | given)


ADAPT_ROWS = (
    *FEATURE_ROWS[:5],
    *FEATURE_ROWS[6:],
    ("one row", (X[0], Y[:4]), ValueError, r"\[B, D\] or \[B, ...\]; received \(None,"),
    ("one example", (X[:1], Y[:1]), ValueError, "has 1 example; a 'full' covariance"),
    ("labels forgotten", (X, None), ValueError, "pass their labels, too"),
)


@table(*ADAPT_ROWS)
def test_adapt_that_fails_leaves_no_gaussian_where_there_was_none(
    given, error, message
):
    gaussian = tfpf.ClassConditionalGaussian(3)
    with pytest.raises(error, match=message):
        gaussian.adapt(*given)
    assert gaussian.moments is None
    with pytest.raises(ValueError, match=r"call `adapt\(features, labels\)` first"):
        gaussian.sample([0], (1, 2))


@table(*ADAPT_ROWS, ("five features", (np.ones((300, 5)), Y), ValueError, r"\[B, 4\]"))
def test_adapt_that_fails_leaves_the_gaussian_that_was_there(given, error, message):
    gaussian = fitted(size=4)
    before, moments = bits(gaussian), gaussian.moments
    with pytest.raises(error, match=message):
        gaussian.adapt(*given)
    assert bits(gaussian) == before and gaussian.moments is moments
    assert str(gaussian.report) == str(fitted(size=4).report)


def test_features_that_are_not_finalized_are_not_sampled():
    gaussian = tfpf.ClassConditionalGaussian(3)
    gaussian.update_state(X, Y)
    with pytest.raises(ValueError, match=r"call `adapt\(features, labels\)` first"):
        gaussian.sample([0], (1, 2))


@table(
    ("class 3", ([3], (1, 2)), ValueError, "class ids 0 to 2; .* label 3"),
    ("text", (["cat"], (1, 2)), ValueError, "Map class names to ids"),
    ("one seed", ([0], 3), ValueError, "two integers"),
    ("no seed", ([0], None), ValueError, "two integers"),
    ("float seeds", ([0], (1.0, 2.0)), ValueError, "two integers"),
    ("one seed tensor", ([0], tf.constant(3)), ValueError, "two integers"),
)
def test_sample(given, error, message):
    with pytest.raises(error, match=message):
        FITTED.sample(*given)


@table(
    ("twice as wide", np.ones((3, 10)), ValueError, "incompatible.*5.*3, 10"),
    ("a map", np.ones((3, 1, 5)), ValueError, "incompatible"),
    ("one row", np.ones(5), ValueError, "incompatible"),
)
def test_densities(given, error, message):
    with pytest.raises(error, match=message):
        FITTED(given)


@table(
    ("not in a list", FITTED, TypeError, "not iterable"),
    ("moments", [FITTED, FITTED.moments], TypeError, "a ClassMoments"),
    ("more classes", [FITTED, fitted(4)], ValueError, "has 3 classes .* has 4"),
    ("fewer features", [FITTED, fitted(3, 4)], ValueError, r"\[B, 5\]; received .*4\]"),
)
def test_merge_state_adds_all_or_nothing(given, error, message):
    for gaussian in (fitted(), tfpf.ClassConditionalGaussian(3)):
        before = gaussian.moments
        with pytest.raises(error, match=message):
            gaussian.merge_state(given)
        assert gaussian.moments is before


FIVE = np.random.default_rng(2).normal(size=(300, 5))
MOMENTS = tfpf.moments_of(FIVE, Y, 3)


@table(
    (
        "a gaussian",
        [FITTED],
        TypeError,
        "received ClassConditionalGaussian. Pass features",
    ),
    ("more classes", [fitted(4).moments], ValueError, "3 classes .*received 4 classes"),
    (
        "another kind",
        [tfpf.moments_of(FIVE, Y, 3, "diag")],
        ValueError,
        "'full', which takes moments of kind 'full'; received 3 classes and .*'diag'",
    ),
    ("a map", [MOMENTS, (2, 2)], ValueError, r"5 features; \[2, 2\] has 4"),
    ("one row a class", [tfpf.moments_of(FIVE[:3], [0, 1, 2], 3)], ValueError, "1 ex"),
    ("no row", [zero_moments(3, 5)], ValueError, r"no example.*\[0. 0. 0.\]"),
    (
        "NaN",
        [dataclasses.replace(MOMENTS, scatter=NAN * MOMENTS.scatter)],
        ValueError,
        "or are NaN or infinite",
    ),
)
def test_adapt_moments_fits_or_leaves_all_as_it_was(given, error, message):
    for gaussian in (fitted(), tfpf.ClassConditionalGaussian(3)):
        before = gaussian.moments, gaussian.seen_shape
        weights = bits(gaussian)
        with pytest.raises(error, match=message):
            gaussian.adapt_moments(*given)
        assert (gaussian.moments, gaussian.seen_shape) == before
        assert bits(gaussian)[: len(weights)] == weights


def test_adapt_moments_of_fewer_features():
    gaussian = fitted()
    with pytest.raises(ValueError, match=r"4 features; \[5\] has 5.*new layer"):
        gaussian.adapt_moments(fitted(size=4).moments)


@table(
    ("a gaussian", FITTED, TypeError, "received ClassConditionalGaussian.*`moments`"),
    ("nothing", None, TypeError, "received NoneType"),
)
def test_save_moments_leaves_no_file(tmp_path, given, error, message):
    with pytest.raises(error, match=message):
        tfpf.save_moments(given, tmp_path / "moments.npz")
    assert not os.listdir(tmp_path)


def npz(**changes):
    """A file of moments with something wrong; what is None is left out."""
    fields = ("count", "mean", "scatter", "kind")
    arrays = {field: getattr(MOMENTS, field) for field in fields} | changes
    file = io.BytesIO()
    np.savez(file, **{k: array for k, array in arrays.items() if array is not None})
    return file.getvalue()


@table(
    ("empty", b"", ValueError, "moments.npz is not a file of moments.*save_moments"),
    ("text", b"moments", ValueError, "not a file of moments"),
    ("a half", npz()[:400], ValueError, "not a file of moments"),
    ("no mean", npz(mean=None), ValueError, "not a file of moments.*mean"),
    ("objects", npz(mean=np.array([{}])), ValueError, "not a file.*needs pickle"),
    ("another kind", npz(kind="round"), ValueError, "`kind` must be .*'round'"),
    ("diag", npz(kind="diag"), ValueError, r"\[3, 5, 5\]; kind 'diag' .*\[3, 5\]"),
    ("two counts", npz(count=np.ones(2)), ValueError, r"float64 \[2\]; .* \[3\]"),
    ("float32", npz(count=np.ones(3, "f4")), ValueError, "of float32 .*need float64"),
    ("one mean", npz(mean=np.ones(4)), ValueError, r"means of shape \[4\], not"),
    ("NaN", npz(mean=MOMENTS.mean * NAN), ValueError, "NaN or infinity in `mean`"),
    ("negative", npz(count=-MOMENTS.count), ValueError, "negative count, -200"),
)
def test_load_moments(tmp_path, given, error, message):
    (tmp_path / "moments.npz").write_bytes(given)
    with pytest.raises(error, match=message):
        tfpf.load_moments(tmp_path / "moments.npz")


@table(
    ("unknown", "evrything", ValueError, "must be one of 'auto'.*'evrything'"),
    (
        "nothing",
        None,
        TypeError,
        "`sampling_strategy` must be a string .*received None",
    ),
    ("a list", [1, 2], TypeError, r"received \[1, 2\]"),
    ("what gives nothing", lambda labels: None, TypeError, "received None"),
    ("a ratio of 0", 0.0, ValueError, r"in \(0, 1\]; received 0.0"),
    ("a ratio above 1", 1.5, ValueError, "received 1.5. For more, pass totals"),
    ("a ratio of NaN", NAN, ValueError, "received nan"),
    ("a ratio of three", 0.5, ValueError, "only when the type of target is binary"),
    ("class 3", {3: 9}, ValueError, r"class 3, which has no example; .*\[0, 1, 2\]"),
    ("class -1", {-1: 9}, ValueError, "class -1, which has no example"),
    ("too few", {2: 19}, ValueError, "asks for 19 .* class 2, which already has 20"),
    ("negative", {2: -5}, ValueError, "asks for -5 examples of class 2"),
    ("half", {2: 30.5}, ValueError, "asks for 30.5 .*Totals are whole numbers"),
    ("NaN", {2: NAN}, ValueError, "asks for nan"),
    ("infinite", {2: INF}, ValueError, "asks for inf"),
    ("in words", {2: "30"}, ValueError, "asks for '30' examples"),
    ("none", {2: None}, ValueError, "asks for None examples"),
)
def test_pseudo_counts(given, error, message):
    with pytest.raises(error, match=message):
        tfpf.pseudo_counts(Y, given)


@table(
    ("less", {"multiplier": 0.5}, ValueError, "at least 1; received 0.5"),
    ("NaN", {"multiplier": NAN}, ValueError, "received nan"),
    ("infinite", {"multiplier": INF}, ValueError, "finite number.*received inf"),
    ("in words", {"multiplier": "20"}, ValueError, "received '20'"),
    ("unknown", {"multiplier": None}, ValueError, "received None"),
    ("below 0", {"below": 0}, ValueError, r"must be in \(0, 1\]; received 0"),
    ("below 2", {"below": 2}, ValueError, "received 2"),
    ("below a half", {"below": "half"}, ValueError, "received 'half'"),
)
def test_multiply_minority(given, error, message):
    with pytest.raises(error, match=message):
        tfpf.multiply_minority(**{"multiplier": 20} | given)


@table(
    ("NaN", {"features": LATE}, ValueError, "NaN or infinite in 1 of 300 .* row 280"),
    ("text", {"features": TEXT}, ValueError, "real numbers; received dtype <U"),
    ("one row", {"features": X[0]}, ValueError, r"'features': \[4\]"),
    ("flat", {"features": X[:, 0]}, ValueError, r"one number for each.*shape \[300\]"),
    ("another length", {"labels": Y[1:]}, ValueError, r"'labels': \[299\]"),
    ("no gaussian", {"gaussian": None}, ValueError, "no `gaussian` to draw them from"),
    ("a sampler", {"gaussian": SMOTE()}, ValueError, "received SMOTE"),
    (
        "a class",
        {"gaussian": tfpf.ClassConditionalGaussian},
        TypeError,
        r"received the class .*Pass ClassConditionalGaussian\(num_classes\)",
    ),
    ("other features", {"gaussian": fitted()}, ValueError, r"\[5\]; .* shape \[4\]"),
    (
        "a list",
        {"counts": [0, 9]},
        TypeError,
        r"`counts` must be a dict.*received \[0, 9\]",
    ),
    ("class 3", {"counts": {3: 9}}, ValueError, r"classes 0 to 2 .*received \{3: 9\}"),
    ("negative", {"counts": {2: -9}}, ValueError, "received {2: -9}"),
    ("half", {"counts": {2: 9.5}}, ValueError, "received {2: 9.5}"),
    ("NaN", {"counts": {2: NAN}}, ValueError, "received {2: nan}"),
    ("in words", {"counts": {2: "9"}}, ValueError, "received {2: '9'}"),
    ("none", {"counts": {2: None}}, ValueError, "received {2: None}"),
    ("no batch", {"batch_size": 0}, ValueError, "`batch_size`.*received 0"),
    ("batch of NaN", {"batch_size": NAN}, ValueError, "`batch_size`.*received nan"),
    ("batch unknown", {"batch_size": None}, ValueError, "`batch_size`.*received None"),
    ("one seed", {"seed": 3}, ValueError, "two integers"),
    ("3 weights", {"sample_weight": np.ones(3)}, ValueError, r"'sample_weight': \[3\]"),
    ("a column", {"sample_weight": COLUMN}, ValueError, r"\[300\]; .*\[300, 1\]"),
    ("negative", {"sample_weight": -COLUMN[:, 0]}, ValueError, "0 has weight -1.0"),
    ("infinite", {"sample_weight": INF * COLUMN[:, 0]}, ValueError, "weight inf"),
)
def test_interleave(given, error, message):
    settings = {"features": X, "labels": Y, "gaussian": fitted(size=4)}
    with pytest.raises(error, match=message):
        tfpf.interleave(**settings | {"counts": {2: 9}} | given)


HEAD_FEATURES = RNG.normal(size=(300, 5)).astype("float32")
LABELED = tfpf.LabeledFeatures(HEAD_FEATURES, Y)


def train_head(head, training=LABELED, scoring=LABELED, **settings):
    parts = [training, scoring]
    for i, part in enumerate(parts):
        if callable(part):
            parts[i] = part()  # made where its error is expected
    return heads.fit(head, *parts, **{"num_classes": 3, "epochs": 1} | settings)


def labeled(features=HEAD_FEATURES, labels=Y, sample_weight=None):
    return lambda: tfpf.LabeledFeatures(features, labels, sample_weight)


WRONG = changed(HEAD_FEATURES, (280, 2), NAN)


@table(
    ("a pair", {"scoring": (HEAD_FEATURES, Y)}, TypeError, "LabeledFeatures.*tuple"),
    ("no scoring", {"scoring": None, "monitor": "accuracy"}, ValueError, "`scoring`"),
    ("NaN", {"training": labeled(WRONG)}, ValueError, "in 1 of 300 rows.* row 280"),
    (
        "NaN to score",
        {"scoring": labeled(WRONG)},
        ValueError,
        "in 1 of 300 rows.* row 280",
    ),
    (
        "lengths",
        {"training": labeled(labels=Y[1:])},
        ValueError,
        r"'features': \[300, 5\], 'labels': \[299\]",
    ),
    (
        "empty",
        {"scoring": labeled(WRONG[:0], Y[:0])},
        ValueError,
        "the same length, at least 1",
    ),
    ("4 labels", {"scoring": labeled(labels=Y + 1)}, ValueError, "0 to 2.* label 3"),
    ("a weight", {"training": labeled(sample_weight=-Y)}, ValueError, "has weight -1"),
    ("4 classes", {"num_classes": 4}, ValueError, r"\[B, 4\].*has \[None, 3\]"),
    ("classes NaN", {"num_classes": NAN}, ValueError, "`num_classes`.*received nan"),
    (
        "narrow",
        {"training": labeled(X), "scoring": labeled(X)},
        ValueError,
        r"\[None, 5\]; .*\[300, 4\]",
    ),
    ("no epoch", {"epochs": 0}, ValueError, "`epochs`.*received 0"),
    ("endless epochs", {"epochs": INF}, ValueError, "`epochs`.*received inf"),
    ("no batch", {"batch_size": 0}, ValueError, "`batch_size`.*received 0"),
    ("no score", {"monitor": "f2"}, ValueError, "`monitor` must be one of.*'f2'"),
    ("tau NaN", {"tau": NAN}, ValueError, "`tau` must be a finite.*received nan"),
    ("prior 0", {"tau": 1.0, "real": [3, 2, 0]}, ValueError, "no example"),
    ("target", {"target_prior": [1, 2]}, ValueError, "shape .3.*received shape .2"),
    ("blend", {"blend": 2}, ValueError, r"must be in \[0, 1\]; received 2"),
    ("optimizer", {"optimizer": 3}, TypeError, "Keras optimizer, its name.*received 3"),
    ("a name", {"optimizer": "adamm"}, ValueError, "adamm"),
    ("loss", {"loss": "entropy"}, ValueError, "Could not interpret.*entropy"),
    ("one seed", {"seed": 3}, ValueError, "two integers"),
    ("no source", {"counts": {2: 9}}, ValueError, "no `gaussian` to draw them from"),
    ("a sampler", {"gaussian": SMOTE()}, ValueError, "received SMOTE"),
)
def test_fit_head(model, given, error, message):
    with pytest.raises(error, match=message):
        train_head(tfpf.split_at(model, "features").head, **given)


# ---- After the training. -------------------------------------------------------------


@table(
    ("two counts", {"class_counts": [3, 2]}, ValueError, r"shape \[3\].*shape \[2\]"),
    ("no example", {"class_counts": [3, 0, 1]}, ValueError, "class 1 has 0"),
    ("negative", {"class_counts": [3, -2, 1]}, ValueError, "class 1 has -2"),
    ("NaN", {"class_counts": [3, NAN, 1]}, ValueError, "class 1 has nan"),
    ("in words", {"class_counts": "many"}, ValueError, "per class; received 'many'"),
    ("unknown", {"class_counts": None}, ValueError, "Pass `class_counts`"),
    (
        "tau NaN",
        {"tau": NAN},
        ValueError,
        "`tau` must be a finite number.*received nan",
    ),
    ("tau in words", {"tau": "1"}, ValueError, "received '1'"),
)
def test_adjust_logits(model, given, error, message):
    with pytest.raises(error, match=message):
        tfpf.adjust_logits(model, **{"class_counts": [3, 2, 1]} | given)


SCORES = (
    tfpf.accuracy,
    tfpf.balanced_accuracy,
    tfpf.class_recalls,
    tfpf.geometric_mean,
    tfpf.min_class_accuracy,
    lambda y_true, y_pred: tfpf.mean_minority_accuracy(y_true, y_pred, [2]),
    lambda y_true, y_pred: tfpf.classification_scores(y_true, y_pred, 3, [2]),
)


@pytest.mark.parametrize("score", SCORES)
@table(
    ("probabilities", (Y, 0.9 * ONE_HOT), ValueError, r"take the argmax\(axis=-1\)"),
    ("one output", (Y % 2, 0.3 * COLUMN), ValueError, "must be class ids.*label 0.3"),
    ("another length", (Y, Y[1:]), ValueError, "300 labels and 299 predictions"),
    ("nothing", ([], []), ValueError, "0 labels and 0 predictions"),
    ("NaN", (Y, changed(Y, 5, NAN)), ValueError, "example 5 has label nan"),
    ("negative", (Y, Y - 1), ValueError, "has label -1"),
    ("names", (Y.astype(str), Y), ValueError, "Map class names to ids"),
)
def test_scores(score, given, error, message):
    with pytest.raises(error, match=message):
        score(*given)


@table(
    ("a name", ["rare"], ValueError, "Map class names to ids"),
    ("negative", [-1], ValueError, "has label -1"),
    ("half", [0.5], ValueError, "has label 0.5"),
    ("not in a list", 2, TypeError, "not iterable"),
)
def test_minority(given, error, message):
    with pytest.raises(error, match=message):
        tfpf.mean_minority_accuracy(Y, Y, given)
    with pytest.raises(error, match=message):
        tfpf.MeanMinorityAccuracy(3, given)


def test_minority_may_be_a_set():
    found = tfpf.mean_minority_accuracy([0, 1, 2, 2], [1, 1, 2, 0], {1, 2})
    assert found == tfpf.mean_minority_accuracy([0, 1, 2, 2], [1, 1, 2, 0], [1, 2]) > 0


def test_metric_of_a_class_that_is_none():
    with pytest.raises(ValueError, match="class ids 0 to 2; .* label 3"):
        tfpf.MeanMinorityAccuracy(3, [3])


METRICS = (tfpf.BalancedAccuracy, tfpf.GeometricMean, tfpf.MinClassAccuracy)


@pytest.mark.parametrize("kind", METRICS)
@table(
    ("none", 0, ValueError, "`num_classes` must be a whole .*received 0"),
    ("half", 2.5, ValueError, "received 2.5"),
    ("NaN", NAN, ValueError, "received nan"),
    ("in words", "3", ValueError, "received '3'"),
)
def test_classes_of_a_metric(kind, given, error, message):
    with pytest.raises(error, match=message):
        kind(given)


@pytest.mark.parametrize("kind", METRICS)
@table(
    ("four outputs", (Y, np.ones((300, 4))), ValueError, r"\[B, 3\], .*\(300, 4\)"),
    ("wide labels", (np.eye(4)[Y], ONE_HOT), ValueError, r"3 classes.*\(300, 4\)"),
    ("both", (np.eye(4)[Y], np.eye(4)[Y]), ValueError, r"3 classes.*\(300, 4\)"),
)
def test_outputs_of_a_metric(kind, given, error, message):
    metric = kind(3)
    with pytest.raises(error, match=message):
        metric.update_state(*given)
    assert not np.any(metric.total)


# ---- Export. -------------------------------------------------------------------------


@table(
    ("two names", {"class_names": ["a", "b"]}, ValueError, "2 names for 3 classes"),
    ("twice", {"class_names": ["a", "b", "a"]}, ValueError, "'a' twice"),
    (
        "no name",
        {"class_names": ["a", "b", ""]},
        ValueError,
        "one line each; received ''",
    ),
    ("one string", {"class_names": "abc"}, TypeError, "list of strings .*'abc'"),
    ("ids", {"class_names": [0, 1, 2]}, TypeError, "must be strings; received 0"),
    ("no image", {"encoded_images": True}, ValueError, "for a model of one image"),
    ("unknown layer", {"layer_name": "featuers"}, ValueError, "Did you mean"),
    ("no layer", {"gaussian": FITTED}, ValueError, "pass `layer_name`"),
    (
        "a sampler",
        {"gaussian": SMOTE(), "layer_name": "features"},
        ValueError,
        "received SMOTE",
    ),
    (
        "not fitted",
        {"gaussian": tfpf.ClassConditionalGaussian(3), "layer_name": "features"},
        ValueError,
        "has not seen features yet",
    ),
    (
        "of another layer",
        {"gaussian": fitted(size=4), "layer_name": "features"},
        ValueError,
        r"features of shape \[4\]; layer 'features' has \[5\]",
    ),
    ("warmup", {"warmup": X[:, 1:]}, ValueError, r"one batch of .*\(300, 3\)"),
)
def test_export_classifier(model, tmp_path, given, error, message):
    with pytest.raises(error, match=message):
        tfpf.export_classifier(model, tmp_path / "served", **given)
    assert not (tmp_path / "served").exists()


def test_names_of_several_inputs_and_outputs_are_their_own(tmp_path):
    inputs = [keras.Input((2,), name=name) for name in ("left", "right")]
    outputs = [layers.Dense(2, name=f"end_{tensor.name}")(tensor) for tensor in inputs]
    twins = keras.Model(inputs, outputs, name="twins")
    for name, kept in (("input_name", "left"), ("output_name", "end_left")):
        with pytest.raises(ValueError, match=f"`{name}` is for a single .*'{kept}'"):
            tfpf.export_classifier(twins, tmp_path / "served", **{name: "x"})
    assert not (tmp_path / "served").exists()


@contextlib.contextmanager
def read_only(folder):
    """Nobody, the superuser included, may write to `folder`."""
    user = os.geteuid()
    os.chmod(folder, 0o555)
    try:
        if user == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(user)
        os.chmod(folder, 0o755)


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond a few bytes, as where a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def open_folder():
    """A folder that every user may reach, which those of pytest are not."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "disk, error, message",
    [
        (read_only, PermissionError, "Permission denied.*unfinished"),
        (lambda folder: full_disk(), OSError, "this export was removed"),
    ],
    ids=["read-only", "full"],
)
def test_folder_that_cannot_be_written_to(model, open_folder, disk, error, message):
    with pytest.raises(error, match=message), disk(open_folder):
        tfpf.export_classifier(model, open_folder)
    assert os.listdir(open_folder) == []
    assert tfpf.export_classifier(model, open_folder) == f"{open_folder}/1"


@pytest.mark.parametrize(
    "disk, error, message",
    [
        (read_only, PermissionError, r"cannot be created \(Permission denied\)"),
        (lambda folder: full_disk(), OSError, r"cannot be written \(File too large\)"),
    ],
    ids=["read-only", "full"],
)
def test_cache_that_cannot_be_written_to(open_folder, disk, error, message):
    trunk = keras.Sequential([keras.Input((4,)), layers.Identity()])
    settings = {"cache_dir": f"{open_folder}/features", "verbose": 0}
    with pytest.raises(error, match=message), disk(open_folder):
        tfpf.extract_features(trunk, (X, Y), **settings)
    assert os.listdir(open_folder) == []
    assert tfpf.extract_features(trunk, (X, Y), **settings).features.shape == (300, 4)
