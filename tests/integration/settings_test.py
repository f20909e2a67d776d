"""Whatever a network was compiled and fitted with, its head alone is retrained.

Each row of the table is a real `fit` that ends in a retraining. Between the end of the
training and the end of the retraining nothing but the head may change, and the same
`fit` goes on from there.
"""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, losses, ops, optimizers
from sklearn.metrics import balanced_accuracy_score

from tests.each_backend import one_step
from tests.model_state import bits, compiled_state, layers_of
from tests.py_datasets import ArrayBatches
from tests.trained import compiled
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.retraining.callback import PseudoFeatureHeadRetrainer
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.serving.export import export_classifier

N, COUNTS = 120, [80, 30, 10]
RNG = np.random.default_rng(0)
Y = RNG.permutation(np.repeat([0, 1, 2], COUNTS))
X = (RNG.normal(size=(N, 4)) + 2 * np.eye(4)[Y]).astype("float32")
UNSEEN_Y = np.repeat([0, 1, 2], 40)
UNSEEN_X = (RNG.normal(size=(N, 4)) + 2 * np.eye(4)[UNSEEN_Y]).astype("float32")
ONE_HOT = np.eye(3, dtype="float32")[Y]
SPARSE = "sparse_categorical_crossentropy"


def network(kind=keras.Model, trunk=None, head=None, units=3, activation="softmax"):
    """Four layers, the last two are the head; `trunk` and `head` are dtypes."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((4,))
    x = layers.Dense(6, activation="relu", name="hidden", dtype=trunk)(inputs)
    x = layers.Dense(5, activation="relu", name="features", dtype=trunk)(x)
    x = layers.Dense(4, activation="relu", name="middle", dtype=head)(x)
    x = layers.Dense(units, activation=activation, name="end", dtype=head)(x)
    return kind(inputs, x)


def frozen(*names):
    """A network some of whose layers are not trained."""

    def make():
        model = network()
        for name in names:
            model.get_layer(name).trainable = False
        return model

    return make


WITHOUT_XLA = {"jit_compile": False}


class Witness(keras.callbacks.Callback):
    """Sees the model when training is over, before what stands after it."""

    def on_train_end(self, logs=None):
        self.state = state_of(self.model)
        self.head = head_of(self.model)


def state_of(model):
    """All but what is to be retrained."""
    head = {id(variable) for variable in head_of_layers(model)}
    others = [variable for variable in model.variables if id(variable) not in head]
    return {
        "weights": bits(others),
        "layers": layers_of(model),
        "compiled": compiled_state(model),
    }


def head_of_layers(model):
    middle, end = model.get_layer("middle"), model.get_layer("end")
    return [*middle.trainable_variables, *end.trainable_variables]


def head_of(model):
    return bits(head_of_layers(model))


def score(model):
    predicted = ops.convert_to_numpy(model(UNSEEN_X)).argmax(axis=1)
    return balanced_accuracy_score(UNSEEN_Y, predicted)


class OwnStep(keras.Model):
    """A training step written out, that counts how often it was traced."""

    traced = 0

    def train_step(self, data):
        x, y = data
        type(self).traced += 1
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


@dataclasses.dataclass
class Setting:
    """A row of the table: what differs from a plain `compile` and `fit`."""

    model: object = network
    optimizer: object = functools.partial(optimizers.SGD, momentum=0.9)
    compile: dict = dataclasses.field(default_factory=dict)
    data: object = lambda: (X, Y)
    fit: dict = dataclasses.field(default_factory=dict)
    keeps_averages: bool = False
    steps: int = 3


SETTINGS = {
    "nothing special": Setting(),
    "eager": Setting(compile={"run_eagerly": True}),
    "XLA": Setting(compile={"jit_compile": True}),
    "several steps at once": Setting(compile={"steps_per_execution": one_step(4)}),
    "own train_step": Setting(model=lambda: network(OwnStep)),
    "frozen trunk": Setting(model=frozen("hidden", "features")),
    "frozen layer of the head": Setting(model=frozen("middle")),
    "class weights": Setting(
        fit={"class_weight": {0: 1.0, 1: 2.0, 2: 8.0}, "validation_split": 0.25}
    ),
    "sample weights": Setting(
        data=lambda: (X, Y, np.linspace(0.1, 2.0, N)),
        fit={"validation_data": (UNSEEN_X, UNSEEN_Y)},
    ),
    "optimizer with much to do": Setting(
        optimizer=lambda: optimizers.Adam(
            0.01, clipnorm=0.1, weight_decay=0.1, gradient_accumulation_steps=2
        )
    ),
    "scaled loss and moving averages": Setting(
        optimizer=lambda: optimizers.LossScaleOptimizer(optimizers.Adam(use_ema=True)),
        keeps_averages=True,
    ),
    "PyDataset in threads": Setting(
        data=lambda: ArrayBatches(X, Y, batch_size=30, workers=2), steps=4
    ),
}


def fit(model, setting, callbacks):
    settings = {"verbose": 0, "callbacks": callbacks, **setting.fit}
    match setting.data():
        case (x, y):
            model.fit(x, y, batch_size=40, **settings)
        case (x, y, weight):
            model.fit(x, y, batch_size=40, sample_weight=weight, **settings)
        case batches:
            model.fit(batches, **settings)


OF_XLA = ("nothing special", "XLA")
ON_TENSORFLOW = {
    "own train_step": "tf.GradientTape",
    "scaled loss and moving averages": "a model that outlives its use_ema",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.tensorflow(reason=ON_TENSORFLOW[name]))
        if name in ON_TENSORFLOW
        else name
        for name in SETTINGS
    ],
)
def test_only_the_head_changes_and_training_goes_on(name, recwarn):
    setting, witness = SETTINGS[name], Witness()
    model = setting.model()
    # Keras compiles by XLA unless told otherwise, which takes long.
    settings = setting.compile if name in OF_XLA else WITHOUT_XLA | setting.compile
    compiled(model, setting.optimizer(), SPARSE, **settings)
    optimizer = model.optimizer
    start = bits(model.variables)
    callback = PseudoFeatureHeadRetrainer(
        "features",
        setting.data(),
        validation_data=(UNSEEN_X, UNSEEN_Y),
        monitor=None,
        epochs=4,
        batch_size=60,
        verbose=0,
    )
    fit(model, setting, [witness, callback])
    assert callback.report.kept and callback.report.real == COUNTS
    assert np.isfinite(callback.report.loss).all()
    assert state_of(model) == witness.state
    assert head_of(model) != witness.head
    assert callback.report.after["balanced_accuracy"] == pytest.approx(score(model))

    steps = getattr(optimizer, "inner_optimizer", optimizer).variables[0]
    assert int(steps) == setting.steps  # whether or not gradients are accumulated
    fit(model, setting, [])
    assert model.optimizer is optimizer and int(steps) == 2 * setting.steps
    for layer in model.layers:
        if not layer.trainable:  # it was never trained by anyone
            place = [id(variable) for variable in model.variables]
            for variable in layer.variables:
                assert bits([variable])[0] == start[place.index(id(variable))]
    told = [str(one.message) for one in recwarn if "use_ema" in str(one.message)]
    assert len(told) == setting.keeps_averages


@pytest.mark.tensorflow(reason="tf.GradientTape")
def test_a_training_step_of_its_own_is_not_what_trains_the_head():
    model = network(OwnStep)
    model.compile("sgd", SPARSE, **WITHOUT_XLA)
    model.fit(X, Y, batch_size=N, verbose=0)
    OwnStep.traced = 0
    report = retrain_head(model, "features", (X, Y), epochs=2, verbose=0)
    assert report.kept and OwnStep.traced == 0
    model.fit(X, Y, batch_size=N, verbose=0)
    assert isinstance(model, OwnStep)


def test_accumulated_gradients_do_not_slow_the_head():
    """Its rate falls over the steps there are, and each of them is one."""
    heads = []
    for settings in ({}, {"gradient_accumulation_steps": 4}):
        model = network()
        model.compile(optimizers.Adam(**settings), SPARSE)
        retrain_head(model, "features", (X, Y), epochs=3, batch_size=60, verbose=0)
        heads.append(head_of(model))
    assert heads[0] == heads[1]


# ---- Precision. ----------------------------------------------------------------------

POLICIES = {
    "all float16": ("mixed_float16", "mixed_float16"),
    "all bfloat16": ("mixed_bfloat16", "mixed_bfloat16"),
    "trunk float16": ("mixed_float16", "float32"),
    "head float16": ("float32", "mixed_float16"),
}


def retrained_in(trunk, head):
    """A network of these precisions, trained for a while and then retrained."""
    model, gaussian = network(trunk=trunk, head=head), ClassConditionalGaussian(3)
    optimizer = optimizers.Adam(0.02)
    if "mixed_float16" in (trunk, head):
        optimizer = optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**10)
    compiled(model, optimizer, SPARSE, **WITHOUT_XLA)
    callback = PseudoFeatureHeadRetrainer(
        "features",
        (X, Y),
        validation_data=(UNSEEN_X, UNSEEN_Y),
        monitor=None,
        gaussian=gaussian,
        epochs=30,
        verbose=0,
    )
    model.fit(X, Y, batch_size=40, epochs=10, verbose=0, callbacks=[callback])
    return model, gaussian, callback.report


@pytest.fixture(scope="module")
def in_float32():
    return retrained_in("float32", "float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", POLICIES)
def test_half_precision_of_all_or_part_scores_as_float32_does(
    name, in_float32, tmp_path
):
    trunk, head = POLICIES[name]
    model, gaussian, report = retrained_in(trunk, head)
    expected = in_float32[2]
    assert report.kept
    assert report.optimizer == type(model.optimizer).__name__
    for scores in ("before", "after"):
        for which in ("accuracy", "balanced_accuracy"):
            received = getattr(report, scores)[which]
            wanted = getattr(expected, scores)[which]
            assert received == pytest.approx(wanted, abs=0.05)
    assert report.after["balanced_accuracy"] == pytest.approx(score(model))
    assert gaussian.moments.scatter.dtype == np.float64
    assert gaussian.moments.count.tolist() == COUNTS
    for parameter in gaussian.parameters():
        assert parameter.dtype == tf.float32
    reference = in_float32[1].moments.mean
    np.testing.assert_allclose(gaussian.moments.mean, reference, rtol=0.1, atol=0.1)
    assert {v.dtype for v in model.trainable_variables} == {"float32"}

    export_classifier(model, str(tmp_path / "served"))
    loaded = tf.saved_model.load(str(tmp_path / "served" / "1"))
    serve = loaded.signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    served = serve(**{name: tf.constant(UNSEEN_X)})["probabilities"]
    predicted = model.predict(UNSEEN_X, verbose=0)  # compiled, as what is served is
    np.testing.assert_allclose(
        np.asarray(served, np.float32), predicted.astype(np.float32), atol=1e-2
    )


def test_overflow_of_half_precision_raises_with_its_reason():
    model = network(trunk="mixed_float16", head="float32")
    model.compile("adam", SPARSE, run_eagerly=True)
    model.fit(X, Y, batch_size=N, verbose=0)
    hidden = model.get_layer("hidden")
    hidden.kernel.assign(tf.ones_like(hidden.kernel) * 3e4)
    model.get_layer("features").kernel.assign(tf.ones((6, 5)))
    before = bits([*model.variables, *model.optimizer.variables])
    large = np.abs(X) + 1
    with pytest.raises(ValueError, match="The features at 'features' are NaN or inf"):
        retrain_head(model, "features", (large, Y), verbose=0)
    with pytest.raises(ValueError, match=r"look for an overflow \(float16\?\)"):
        retrain_head(model, "features", (large, Y), verbose=0)
    assert bits([*model.variables, *model.optimizer.variables]) == before


# ---- Labels and losses. --------------------------------------------------------------


def focal(y_true, y_pred):
    """A loss of a user's own, on class ids: what is sure weighs little."""
    ids = ops.cast(ops.reshape(y_true, (-1, 1)), "int32")
    share = ops.maximum(ops.take_along_axis(y_pred, ids, axis=1)[:, 0], 1e-6)
    return -((1 - share) ** 2) * ops.log(share)


BINARY = (Y > 0).astype("float32")
OF_TWO = np.bincount(BINARY.astype(int)).tolist()
FORMS = {
    "Keras chooses, class ids": (3, "softmax", "crossentropy", Y[:, None]),
    "Keras chooses, one-hot": (3, "softmax", "ce", ONE_HOT),
    "smoothed": (
        *(3, "softmax"),
        losses.CategoricalCrossentropy(label_smoothing=0.1),
        ONE_HOT,
    ),
    "smoothed logits": (
        *(3, None),
        losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        ONE_HOT,
    ),
    "focal": (3, "softmax", losses.CategoricalFocalCrossentropy(), ONE_HOT),
    "own function": (3, "softmax", focal, Y[:, None]),
    "two, focal": (1, "sigmoid", losses.BinaryFocalCrossentropy(), BINARY[:, None]),
    "two, smoothed logits": (
        *(1, None),
        losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1),
        BINARY,
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_labels_and_losses_that_fit_each_other(name):
    """Those that are not in the table of retrain_test.py."""
    units, activation, loss, labels = FORMS[name]
    model = network(units=units, activation=activation)
    compiled(model, optimizers.Adam(0.02), loss, run_eagerly=True)
    model.fit(X, labels, batch_size=N, verbose=0)
    before = state_of(model)
    settings = {"epochs": 30, "blend": 0.0, "tau": 0.0, "verbose": 0}
    settings["optimizer"] = optimizers.Adam(0.1)
    report = retrain_head(model, "features", (X, labels), **settings)
    real = COUNTS if units == 3 else OF_TWO
    assert report.kept and report.real == real
    assert report.pseudo == [real[0] - n for n in real]
    assert state_of(model) == before
    outputs = ops.convert_to_numpy(model(X))
    cut = 0.5 if activation else 0.0
    ids = outputs.argmax(1) if units == 3 else outputs[:, 0] > cut
    expected = balanced_accuracy_score(Y if units == 3 else BINARY, ids)
    assert report.after["balanced_accuracy"] == pytest.approx(expected)
    assert expected > 0.7


ONE_HOT_OF_TWO = np.eye(2, dtype="float32")[BINARY.astype(int)]


@pytest.mark.parametrize(
    "units, loss, labels, advice",
    [
        (3, "categorical_crossentropy", Y, "These labels are class ids"),
        (3, "categorical_crossentropy", Y[:, None], "sparse_categorical_crossentropy"),
        (3, losses.CategoricalFocalCrossentropy(), Y, "one-hot, to_categorical"),
        (3, losses.CategoricalFocalCrossentropy(), Y[:, None], "are class ids"),
        (3, "kl_divergence", Y[:, None], "are class ids"),
        (3, SPARSE, ONE_HOT, "These labels are one-hot: .*y.argmax"),
        (3, losses.SparseCategoricalCrossentropy(), ONE_HOT, "These labels are one"),
        (1, SPARSE, BINARY, "For one output, labels are 0 or 1"),
        (1, "binary_crossentropy", ONE_HOT_OF_TWO, "For one output, labels are"),
    ],
)
def test_a_loss_that_does_not_take_the_labels_raises_before_any_work(
    units, loss, labels, advice, capsys
):
    """Also where one row, or as many rows as classes, would fit by chance."""
    model = network(units=units, activation="softmax" if units == 3 else "sigmoid")
    model.compile("adam", loss)
    model.optimizer.build(model.trainable_variables)
    before = bits([*model.variables, *model.optimizer.variables])
    message = f"does not take labels.*{advice}"
    for rows in (1, 3, N):
        with pytest.raises(ValueError, match=message) as caught:
            retrain_head(model, "features", (X[-rows:], labels[-rows:]))
        if units == 3:
            assert "outputs [B, 3]" in str(caught.value)
        assert caught.value.__cause__ is not None  # what the loss itself said
        assert not capsys.readouterr().out
        assert bits([*model.variables, *model.optimizer.variables]) == before
