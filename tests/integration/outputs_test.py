"""Tests for outputs.py: the head of one output of several is retrained."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tf_pseudofeat.retraining.callback import PseudoFeatureHeadRetrainer
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.retraining.tune import tune
from tf_pseudofeat.splitting.outputs import Output, all_outputs, choose_output
from tf_pseudofeat.splitting.split_at import split_at
from tf_pseudofeat.splitting.trunk_and_head import Split

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 6)).astype("float32")
DISEASE = np.digitize(X[:, 0] + 0.3 * RNG.normal(size=300), [0.3, 1.3])  # 2 is rare
AGE = X[:, 1:2] + X[:, 2:3]
QUIET = {"epochs": 2, "verbose": 0}


def two_heads(structure="dict", shared=False):
    """Features, and behind them a classifier and a regression."""
    inputs = keras.Input((6,), name="scan")
    x = layers.Dense(8, activation="relu", name="features")(inputs)
    if shared:
        x = layers.Dense(8, activation="relu", name="both")(x)
    disease = layers.Dense(3, activation="softmax", name="disease")(x)
    age = layers.Dense(1, name="age")(x)
    outputs = {
        "dict": {"disease": disease, "age": age},
        "keys": {"what": disease, "how_old": age},
        "tuple": (age, disease),
    }[structure]
    model = keras.Model(inputs, outputs)
    losses = {"disease": "sparse_categorical_crossentropy", "age": "mse"}
    if structure == "keys":
        losses = {"what": losses["disease"], "how_old": "mse"}
    model.compile("sgd", losses, jit_compile=False)
    return model


def auxiliary():
    """An output that leaves before the cut."""
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="early")(inputs)
    age = layers.Dense(1, name="age")(x)
    x = layers.Dense(8, activation="relu", name="features")(x)
    outputs = {"age": age, "disease": layers.Dense(3, "softmax", name="disease")(x)}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"age": "mse", "disease": "sparse_categorical_crossentropy"})
    return model


def weights_of(model):
    return {variable.path: np.array(variable) for variable in model.variables}


def changed(model, before):
    after = weights_of(model)
    return {path for path in after if not np.array_equal(after[path], before[path])}


DATA = {
    "dict of arrays": (X, {"disease": DISEASE, "age": AGE}),
    "labels alone": (X, DISEASE),
    "with weights": (
        X,
        {"disease": DISEASE, "age": AGE},
        {"disease": np.ones(300, "float32"), "age": np.ones(300, "float32")},
    ),
    "weights of the other": (
        X,
        {"disease": DISEASE, "age": AGE},
        {"age": np.ones(300, "float32")},
    ),
    "dataset": tf.data.Dataset.from_tensor_slices(
        (X, {"disease": DISEASE, "age": AGE})
    ).batch(50),
}


def at(model):
    """Where the model is split for the output whose head is retrained."""
    return split_at(model, "features", output="disease")


@pytest.mark.parametrize(
    "make, data",
    [*((two_heads, name) for name in DATA), (auxiliary, "weights of the other")],
)
def test_labels_and_head_of_the_named_output(make, data):
    model = make()
    before = weights_of(model)
    report = retrain_head(model, at(model), DATA[data], **QUIET)
    assert report.real == np.bincount(DISEASE).tolist()
    assert changed(model, before) == {"disease/kernel", "disease/bias"}


@pytest.mark.parametrize(
    "structure, name, y",
    [
        ("keys", "what", {"what": DISEASE, "how_old": AGE}),
        ("keys", "disease", {"what": DISEASE, "how_old": AGE}),
        ("tuple", "disease", (AGE, DISEASE)),
        ("tuple", "disease", [AGE, DISEASE]),
        ("tuple", "disease", {"age": AGE, "disease": DISEASE}),
    ],
)
def test_outputs_and_labels_of_every_structure(structure, name, y):
    model = two_heads(structure)
    before = weights_of(model)
    where = split_at(model, "features", output=name)
    report = retrain_head(model, where, (X, y), validation_data=(X, y), **QUIET)
    assert report.real == np.bincount(DISEASE).tolist()
    assert changed(model, before) <= {"disease/kernel", "disease/bias"}


def test_the_compiled_loss_of_that_output_is_used():
    class Noted(keras.losses.Loss):
        calls = 0

        def call(self, y_true, y_pred):
            Noted.calls += 1
            return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    model = two_heads("tuple")
    model.compile("adam", ["mse", Noted()])
    retrain_head(model, at(model), (X, DISEASE), **QUIET)
    assert Noted.calls


def test_pydataset():
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            rows = slice(100 * index, 100 * index + 100)
            return X[rows], {"disease": DISEASE[rows], "age": AGE[rows]}

    model = two_heads()
    report = retrain_head(model, at(model), Batches(), **QUIET)
    assert report.real == np.bincount(DISEASE).tolist()


def test_callback_and_tune_take_it():
    model = two_heads()
    y = {"disease": DISEASE, "age": AGE}
    retrainer = PseudoFeatureHeadRetrainer(at(model), (X, y), **QUIET)
    model.fit(X, y, verbose=0, callbacks=[retrainer])
    assert retrainer.report.pseudo[2] > 0
    tuning = tune(
        model,
        at(model),
        (X, y),
        (X, y),
        epochs=2,
        verbose=0,
    )
    assert tuning.trials
    assert tuning.counts == np.bincount(DISEASE).tolist()


def test_other_outputs_are_as_they_were_unless_they_share_layers():
    model = auxiliary()
    before = keras.ops.convert_to_numpy(model(X)["age"])
    retrain_head(model, at(model), (X, DISEASE), **QUIET)
    after = keras.ops.convert_to_numpy(model(X)["age"])
    np.testing.assert_array_equal(after, before)
    model = two_heads(shared=True)
    with pytest.warns(UserWarning, match=r"shares layers with the outputs \['age'\]"):
        retrain_head(model, at(model), (X, DISEASE), **QUIET)


def test_subclassed_model_with_named_outputs_and_its_two_halves():
    class Both(keras.Model):
        def __init__(self):
            super().__init__()
            self.trunk = keras.Sequential([layers.Dense(8, activation="relu")])
            self.disease = keras.Sequential([layers.Dense(3, activation="softmax")])
            self.age = layers.Dense(1)

        def call(self, x):
            x = self.trunk(x)
            return {"disease": self.disease(x), "age": self.age(x)}

    model = Both()
    model.compile(loss={"disease": "sparse_categorical_crossentropy", "age": "mse"})
    model(X[:2])
    before = weights_of(model)
    data = X, {"disease": DISEASE, "age": AGE}
    halves = Split(model.trunk, model.disease, output="disease")
    report = retrain_head(model, halves, data, **QUIET)
    assert report.real == np.bincount(DISEASE).tolist()
    assert len(changed(model, before)) == 2
    with pytest.raises(ValueError, match=r"dict with keys \['age', 'disease'\].*'sex'"):
        other = Split(model.trunk, model.disease, output="sex")
        retrain_head(model, other, (X, DISEASE), **QUIET)


def test_without_it_the_error_names_the_outputs_before_any_work():
    for data in (X, DISEASE), (X, {"disease": DISEASE, "age": AGE}):
        with pytest.raises(
            ValueError, match="2 outputs, 'age', 'disease'. Pass output"
        ):
            retrain_head(two_heads(), "features", data, **QUIET)


@pytest.mark.parametrize(
    "y, message",
    [
        (
            {"age": AGE},
            r"dict with keys \['age'\], which do not include output 'disease'",
        ),
        ((AGE,), "tuple of 1, but output 'disease' has index 1"),
    ],
)
def test_labels_that_lack_it(y, message):
    model = two_heads("tuple")
    with pytest.raises(ValueError, match=message):
        retrain_head(model, at(model), (X, y), **QUIET)


def test_key_goes_before_the_name_of_another_outputs_layer():
    inputs = keras.Input((6,))
    first = layers.Dense(2, name="second")(inputs)
    second = layers.Dense(3, name="first")(inputs)
    model = keras.Model(inputs, {"first": first, "second": second})
    for name, width in [("first", 2), ("second", 3)]:
        chosen = choose_output(model, name)
        assert chosen.of(model.outputs).shape == (None, width)
        assert chosen.of(model(X[:4])).shape == (4, width)


def test_unknown_output():
    with pytest.raises(
        ValueError, match="no output 'x'; its outputs: 'age', 'disease'"
    ):
        split_at(two_heads(), "features", output="x")
    with pytest.raises(TypeError, match="name of an output, not int"):
        choose_output(two_heads(), 1)


def test_only_output_may_be_named_and_labels_may_name_it():
    inputs = keras.Input((6,))
    x = layers.Dense(8, name="features")(inputs)
    model = keras.Model(inputs, layers.Dense(3, "softmax", name="disease")(x))
    assert choose_output(model) == choose_output(model, "disease") == Output()
    for data in (X, DISEASE), (X, {"disease": DISEASE}):
        report = retrain_head(model, at(model), data, **QUIET)
        assert report.real == np.bincount(DISEASE).tolist()


def test_split_for_one_output_and_for_all():
    model = auxiliary()
    split = split_at(model, "features", output="disease")
    assert split.check(model, X[:4]) <= 1e-6
    assert split_at(model, "features", output="disease").head is split.head
    assert split.head.output_shape == (None, 3)
    with pytest.raises(ValueError, match="the output 'age' does not depend on it"):
        split_at(model, "features")
    whole = split_at(model, "early")
    assert set(whole.head.output) == {"age", "disease"}
    assert whole.check(model, X[:4]) <= 1e-6
    one = split_at(model, "early", output="age")
    assert one.head.output_shape == (None, 1)
    assert one.check(model, X[:4]) <= 1e-6


def test_layer_of_another_output():
    with pytest.raises(ValueError, match=r"'features' .* not on a path to the chosen"):
        split_at(auxiliary(), "features", output="age")


def test_one_layer_that_makes_two_outputs_gives_them_two_names():
    inputs = keras.Input((6,))
    layer = layers.Dense(2, name="twin")
    model = keras.Model(inputs, [layer(inputs), layer(-inputs)])
    names = [one.names for one in all_outputs(model)]
    assert names == [("twin:0",), ("twin:1",)]
