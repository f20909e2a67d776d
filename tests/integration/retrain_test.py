"""Tests for retrain.py: real models, really trained, really retrained."""

import json
import textwrap
import warnings

import imblearn
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits
from sklearn.metrics import recall_score

from tests import programs
from tests.py_datasets import ArrayBatches
from tests.small_models import small_classifier
from tests.trained import compiled, train
from tf_pseudofeat.extraction import features as features_module
from tf_pseudofeat.extraction import options as options_module
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.head import fit as fit_module
from tf_pseudofeat.head.logit_adjustment import adjust_logits
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.retraining.diagnose import diagnose
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.retraining.tune import tune
from tf_pseudofeat.sampling.counts import multiply_minority
from tf_pseudofeat.splitting.trunk_and_head import Split

RARE = [0, 1, 2, 3]


def state(*layers_or_variables):
    """Every variable, random states included, as bytes."""
    variables = []
    for item in layers_or_variables:
        variables += getattr(item, "variables", [item])
    values = map(keras.ops.convert_to_numpy, variables)
    return [(value.dtype.name, value.tobytes()) for value in values]


# ---- A network for handwritten digits, four of which are rare. -----------------------


@pytest.fixture(scope="module")
def digits():
    """(training, validation, test), each (x, y); only training is imbalanced."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype("float32"), y[order]
    pool = [np.flatnonzero(y[:1000] == c)[: 8 if c in RARE else 80] for c in range(10)]
    train = np.sort(np.concatenate(pool))
    return (x[train], y[train]), (x[1000:1400], y[1000:1400]), (x[1400:], y[1400:])


def digits_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(32, name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(16, activation="relu", name="features"),
            layers.BatchNormalization(name="head_norm"),
            layers.Dropout(0.1, name="dropout"),
            layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    loss = "sparse_categorical_crossentropy"
    return compiled(model, "adam", loss, metrics=["accuracy"], jit_compile=False)


@pytest.fixture(scope="module")
def trained_once(digits):
    model = digits_model()
    train(model, *digits[0], epochs=30)
    return model, [variable.numpy() for variable in model.variables]


@pytest.fixture
def trained(trained_once):
    """The trained network, as it came out of training in every variable."""
    model, values = trained_once
    assign(model, values)
    return model


def assign(model, values):
    for variable, value in zip(model.variables, values, strict=True):
        variable.assign(value)


UNTRAINED = {"blend": 1.0, "tau": 1.0}  # the head's bias is shifted, at once


def retrain(model, data, layer_name="features", **settings):
    return retrain_head(model, layer_name, data, **{"verbose": 0, **settings})


def outputs_of(model, x):
    """What it says, without a function to be traced for it."""
    return keras.ops.convert_to_numpy(model(x, training=False)).astype(np.float64)


def ids_of(model, x):
    return outputs_of(model, x).argmax(axis=-1)


@pytest.fixture(scope="module")
def retrained(trained_once, digits):
    """A report, and what the network said before and after of data never seen."""
    (model, values), (train, validation, test) = trained_once, digits
    assign(model, values)
    said = []

    def look():
        said.append([ids_of(model, x) for x, _ in (validation, test)])

    look()
    report = retrain(model, train, validation_data=validation, epochs=20)
    look()
    return report, said


def test_rare_classes_are_found_more_often_in_data_never_seen(retrained, digits):
    report, said = retrained
    y = digits[2][1]
    before, after = (
        recall_score(y, ids, labels=RARE, average="macro") for _, ids in said
    )
    assert report.kept
    assert after > before + 0.1


def test_report_holds_what_the_model_does_before_and_after(retrained, digits, tmp_path):
    report, said = retrained
    train, validation, _ = digits
    recalls = [recall_score(validation[1], ids, average=None) for ids, _ in said]
    np.testing.assert_allclose(report.before["recall"], recalls[0])
    np.testing.assert_allclose(report.after["recall"], recalls[1])
    assert report.scored_on == "validation data"
    assert report.real == np.bincount(train[1]).tolist()
    assert report.pseudo == [72] * 4 + [0] * 6
    assert report.minority == RARE
    assert report.feature_shape == (16,)
    assert report.covariance.feature_size == 16
    assert report.recipe.epochs == 20
    assert report.optimizer == "Adam"
    assert report.learning_rate == pytest.approx(0.001)
    assert set(report.seconds) == {"check", "extract", "fit gaussians", "train"}
    saved = json.loads(json.dumps(report.to_dict()))
    assert saved["after"] == report.after
    assert f"{100 * report.after['min_class_accuracy']:.1f}" in str(report)
    report.plot().savefig(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 1000


def test_only_the_weights_of_the_head_change(trained, digits):
    trunk = [trained.get_layer(name) for name in ("hidden", "norm", "features")]
    norm, last = trained.get_layer("head_norm"), trained.get_layer("digit")
    trained.get_layer("hidden").trainable = False
    optimizer, loss, metrics = trained.optimizer, trained.loss, trained.metrics
    flags = [layer.trainable for layer in trained.layers]
    before = [state(*trunk, norm, optimizer), state(last)]
    assert int(optimizer.iterations) > 0
    try:
        report = retrain(trained, digits[0], epochs=3)
        assert report.kept
        assert [layer.trainable for layer in trained.layers] == flags
        assert state(*trunk, norm, optimizer) == before[0]
        assert state(last) != before[1]
        assert trained.optimizer is optimizer and trained.loss is loss
        assert [id(m) for m in trained.metrics] == [id(m) for m in metrics]
        iterations = int(optimizer.iterations)
        if keras.backend.backend() == "jax":  # all that an optimizer was built for
            trained.get_layer("hidden").trainable = True
        history = trained.fit(*digits[0], batch_size=256, verbose=0)
        assert set(history.history) == {"loss", "accuracy"}
        assert int(optimizer.iterations) == iterations + 2
    finally:
        trained.get_layer("hidden").trainable = True


def test_same_seed_same_report_and_weights_to_the_bit(trained, digits):
    start, reports, weights = trained.get_weights(), [], []
    for seed in [(1, 2), (1, 2), (5, 6)]:
        trained.set_weights(start)
        report = retrain(trained, digits[0], epochs=2, seed=seed, fresh_head=True)
        reports.append({**report.to_dict(), "seconds": None})
        weights.append([w.tobytes() for w in trained.get_weights()])
    assert reports[0] == reports[1] and weights[0] == weights[1]
    assert reports[0] != reports[2] and weights[0] != weights[2]


def test_worse_head_is_rolled_back_with_a_warning(trained, digits):
    x = digits[1][0]
    as_predicted = x, ids_of(trained, x)  # never wrong
    before = state(trained)
    settings = {"validation_data": as_predicted, "fresh_head": True, "epochs": 1}
    with pytest.warns(UserWarning, match="rolled back.*balanced_accuracy.*fell from 1"):
        report = retrain(trained, digits[0], **settings)
    assert not report.kept and "balanced_accuracy" in report.reason
    assert report.after["balanced_accuracy"] < report.before["balanced_accuracy"] == 1
    assert "ROLLED BACK" in str(report)
    assert state(trained) == before
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        report = retrain(trained, digits[0], monitor=None, **settings)
    assert report.kept and state(trained) != before


def test_loss_of_nan_is_rolled_back_with_a_warning(trained, digits):
    before = state(trained)
    optimizer = keras.optimizers.SGD(float("inf"))
    with pytest.warns(UserWarning, match="the model did not change.*infinite or NaN"):
        report = retrain(trained, digits[0], optimizer=optimizer, epochs=2)
    assert not report.kept and report.before == report.after
    assert state(trained) == before


def test_error_in_the_loss_leaves_the_model_as_it_was(trained, digits):
    def broken(y_true, y_pred):
        raise RuntimeError("a loss of the user's own")

    before = state(trained, trained.optimizer)
    with pytest.raises(RuntimeError, match="a loss of the user's own"):
        retrain(trained, digits[0], loss=broken, freeze_batch_norm=False)
    assert state(trained, trained.optimizer) == before


def test_error_in_the_settings_leaves_the_model_as_it_was(trained, digits):
    before = state(trained)
    with pytest.raises(
        ValueError, match=r"asks for 1 .* class 4, which already has 80"
    ):
        retrain(trained, digits[0], sampling_strategy={4: 1})
    assert state(trained) == before


@pytest.mark.parametrize("freeze", [True, False])
def test_head_of_convolutions_learns_from_sampled_feature_maps(digits, freeze):
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, activation="relu", name="maps"),
            layers.Conv2D(8, 2, use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dropout(0.2),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    norm, conv = model.layers[2], model.layers[1]
    before = [state(model.layers[0]), state(norm), state(conv)]
    x, y = digits[0]
    data = x.reshape(-1, 8, 8, 1), y
    report = retrain(
        model, data, "maps", epochs=2, freeze_batch_norm=freeze, batch_size=64
    )
    assert report.kept and report.feature_shape == (3, 3, 4)
    assert state(model.layers[0]) == before[0]
    assert (state(norm) == before[1]) == freeze
    assert state(conv) != before[2]
    losses = np.array(report.loss)
    assert np.isfinite(losses).all()


# ---- Models of every kind, on three small clouds of points. --------------------------

N = 120
RNG = np.random.default_rng(0)
Y = RNG.permutation(np.repeat([0, 1, 2], [80, 30, 10]))
X = (RNG.normal(size=(N, 4)) + 2 * np.eye(4)[Y]).astype("float32")
BINARY = (Y > 0).astype("float32")
ONE_HOT = np.eye(3, dtype="float32")[Y]


def assert_cured(model, data=(X, Y), layer_name="features", **settings):
    """Retrains, and checks what must hold of every model; returns the report.

    The first layer with weights is the trunk, in all of these models.
    """
    model.build(X.shape) if not model.built else None
    trunk, head = model.weights[:2], model.weights[2:]
    before = state(*trunk), state(*head)
    settings = {"epochs": 2, "batch_size": 40, **settings}
    report = retrain(model, data, layer_name, **settings)
    assert report.kept and np.isfinite(report.loss).all()
    assert report.recipe.epochs == settings["epochs"]
    assert state(*trunk) == before[0]
    assert state(*head) != before[1]
    return report


def adam(learning_rate):
    return keras.optimizers.Adam(learning_rate)


def nested_model():
    inputs = keras.Input((4,))
    backbone = keras.Sequential(
        [layers.Dense(5, name="features"), layers.Dense(4, activation="relu")],
        name="backbone",
    )
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(backbone(inputs)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def dict_model():
    left, right = keras.Input((1,), name="left"), keras.Input((3,), name="right")
    x = layers.Concatenate()([left, right])
    x = layers.Dense(5, activation="relu", name="features")(x)
    outputs = layers.Dense(3, activation="softmax")(x)
    model = keras.Model({"left": left, "right": right}, outputs)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


SPARSE, CATEGORICAL, BINARY_LOSS = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
)
LOGITS = {
    "sparse": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "binary": keras.losses.BinaryCrossentropy(from_logits=True),
}


@pytest.mark.parametrize(
    "units, activation, loss, labels",
    [
        (3, "softmax", SPARSE, Y),
        (3, "softmax", SPARSE, Y[:, None].astype("float32")),
        (3, "softmax", CATEGORICAL, ONE_HOT),
        (3, None, LOGITS["sparse"], Y),
        (3, "softmax", None, Y),
        (3, "softmax", None, ONE_HOT),
        (1, "sigmoid", BINARY_LOSS, BINARY),
        (1, "sigmoid", BINARY_LOSS, BINARY[:, None]),
        (1, "sigmoid", None, BINARY),
        (1, None, LOGITS["binary"], BINARY),
    ],
)
def test_outputs_losses_and_labels_of_every_form(units, activation, loss, labels):
    model = small_classifier(units, activation, loss)
    settings = {"epochs": 30, "batch_size": 2 * N, "optimizer": adam(0.1)}
    report = assert_cured(model, (X, labels), blend=0.0, tau=0.0, **settings)
    real = [80, 30, 10] if units == 3 else [80, 40]
    assert report.real == real
    assert report.pseudo == [80 - n for n in real]
    outputs = outputs_of(model, X)
    cut = 0.0 if activation is None else 0.5
    ids = outputs.argmax(1) if units == 3 else (outputs[:, 0] > cut).astype(int)
    truth = Y if units == 3 else BINARY
    assert report.after["accuracy"] == pytest.approx(np.mean(ids == truth))
    assert report.after["balanced_accuracy"] > 0.65


def test_logits_of_a_model_that_was_not_compiled_need_a_loss():
    model = small_classifier(activation=None, loss=None)
    with pytest.raises(ValueError, match="Pass `loss`"):
        retrain(model, (X, Y))
    assert_cured(model, loss=LOGITS["sparse"])
    assert getattr(model, "loss", None) is None and not model.compiled


def test_custom_loss_object_is_the_one_that_trains():
    class Counting(keras.losses.Loss):
        """It could not be made again from a config."""

        def __init__(self, calls):
            super().__init__()
            self.calls = calls

        def call(self, y_true, y_pred):
            self.calls.append(y_pred.shape)
            return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)

    calls = []
    model = small_classifier(loss=Counting(calls))
    assert_cured(model)
    assert calls and all(shape[-1] == 3 for shape in calls)


def test_nested_backbone():
    report = assert_cured(nested_model(), layer_name="backbone/features")
    assert report.layer_name == "backbone/features"


@pytest.mark.parametrize("built", [True, False])
def test_sequential_model_without_an_input(built):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([layers.Dense(5, name="features"), layers.Dense(3)])
    model.compile("sgd", LOGITS["sparse"])
    if built:
        assert_cured(model)
    else:
        assert retrain(model, (X, Y), epochs=1).kept and model.built


def test_inputs_in_a_dict():
    assert_cured(dict_model(), ({"left": X[:, :1], "right": X[:, 1:]}, Y))


class Subclassed(keras.Model):
    """What it computes is written in Python."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(5, activation="relu")
        self.last = layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.last(self.first(x))


def test_subclassed_model_with_its_two_halves():
    model = Subclassed()
    model.compile("sgd", SPARSE)
    model(X)
    trunk = keras.Sequential([keras.Input((4,)), model.first], name="front")
    head = keras.Sequential([keras.Input((5,)), model.last])
    before = outputs_of(model, X)
    report = assert_cured(model, layer_name=Split(trunk, head))
    assert report.layer_name == "front"
    assert abs(outputs_of(model, X) - before).max() > 1e-4


class Half(keras.Model):
    """One layer of a subclassed model, without a graph."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x):
        return self.layer(x)


def test_halves_may_be_subclassed_models_themselves():
    model = Subclassed()
    model.compile("sgd", SPARSE)
    model(X)
    halves = Split(Half(model.first), Half(model.last), "split")
    assert_cured(model, layer_name=halves)
    with pytest.raises(ValueError, match="fresh_head=True needs a head with a graph"):
        retrain_head(model, halves, (X, Y), fresh_head=True, verbose=0)


def test_subclassed_model_without_its_halves_raises():
    model = Subclassed()
    model.compile("sgd", SPARSE)
    with pytest.raises(ValueError, match=r"Split\(trunk, head\)"):
        retrain(model, (X, Y))


# ---- Data of every kind. -------------------------------------------------------------


def dataset(labels=Y):
    return tf.data.Dataset.from_tensor_slices((X, labels))


@pytest.mark.parametrize(
    "data, settings",
    [
        ((X, Y), {}),
        (dataset().shuffle(N, reshuffle_each_iteration=True).batch(32), {}),
        (dataset().batch(32).filter(lambda x, y: True), {}),  # of unknown length
        (dataset({"label": Y}).batch(32), {}),
        (dataset().batch(40).repeat(), {"steps": 3}),
        (ArrayBatches(X, Y, batch_size=30), {}),
    ],
    ids=["arrays", "shuffled", "unknown length", "dict y", "infinite", "PyDataset"],
)
def test_data_of_every_kind_are_read_once_with_their_own_labels(data, settings):
    model, gaussian = small_classifier(), ClassConditionalGaussian(3)
    report = assert_cured(model, data, gaussian=gaussian, **settings)
    assert report.real == [80, 30, 10]
    kernel, bias = model.layers[0].get_weights()
    features = np.maximum(X @ kernel + bias, 0)
    for class_id in range(3):
        expected = features[class_id == Y].mean(axis=0)
        np.testing.assert_allclose(gaussian.moments.mean[class_id], expected, atol=1e-5)


def test_sample_weights_reach_the_head():
    wrong = np.arange(N) % 3 == 0
    labels = np.where(wrong, (Y + 1) % 3, Y)
    after = []
    for weight in (np.ones(N), np.where(wrong, 1e-6, 1.0)):
        model = small_classifier()
        model.layers[0].set_weights([np.eye(4, 5), np.ones(5)])
        report = assert_cured(
            model,
            (X, labels, weight.astype("float32")),
            validation_data=(X, Y),
            monitor=None,
            sampling_strategy={},
            epochs=30,
            batch_size=N,
            optimizer=adam(0.1),
        )
        after.append(report.after["accuracy"])
    assert after[1] > after[0]


# ---- Where the pseudo-features come from. --------------------------------------------


@pytest.mark.parametrize(
    "covariance_type", ["full", "diag", "tied", "spherical", "low_rank"]
)
def test_gaussian_of_the_users_own(covariance_type):
    gaussian = ClassConditionalGaussian(3, covariance_type, shrinkage=0.3)
    report = assert_cured(small_classifier(), gaussian=gaussian)
    assert report.covariance == gaussian.report
    assert report.covariance.covariance_type == covariance_type
    assert gaussian.moments.count.tolist() == [80, 30, 10]
    assert gaussian.feature_shape == (5,)


@pytest.mark.parametrize(
    "sampler, pseudo",
    [
        (imblearn.over_sampling.SMOTE(random_state=0), [0, 50, 70]),
        (imblearn.over_sampling.RandomOverSampler(random_state=0), [0, 50, 70]),
        (imblearn.under_sampling.RandomUnderSampler(random_state=0), [-70, -20, 0]),
    ],
    ids=["SMOTE", "RandomOverSampler", "RandomUnderSampler"],
)
def test_samplers_of_imbalanced_learn(sampler, pseudo):
    report = assert_cured(small_classifier(), sampler=sampler)
    assert report.pseudo == pseudo
    assert report.covariance is None
    assert report.recipe.sampler is sampler
    assert report.to_dict()["recipe"]["sampler"] == str(sampler)
    assert set(report.seconds) == {"check", "extract", "resample", "train"}


def test_sampler_sees_flat_features_and_class_ids_and_the_head_gets_maps_back():
    class Doubling:
        def fit_resample(self, features, ids):
            self.seen = features.shape, features.dtype, np.bincount(ids).tolist()
            return np.repeat(features, 2, axis=0), np.repeat(ids, 2)

    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6),
            layers.Reshape((2, 3), name="features"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", CATEGORICAL)
    sampler = Doubling()
    report = assert_cured(model, (X, ONE_HOT), sampler=sampler)
    assert sampler.seen == ((N, 6), np.float32, [80, 30, 10])
    assert report.pseudo == [80, 30, 10] and report.feature_shape == (2, 3)


@pytest.mark.parametrize(
    "sampling_strategy, pseudo",
    [
        ("auto", [0, 50, 70]),
        ("minority", [0, 0, 70]),
        ({1: 35, 2: 12}, [0, 5, 2]),
        ({}, [0, 0, 0]),
        (multiply_minority(50), [0, 49 * 30, 49 * 10]),
    ],
    ids=["auto", "minority", "totals", "none", "minority times 50"],
)
def test_sampling_strategy_says_how_many_pseudo_features(sampling_strategy, pseudo):
    optimizer = keras.optimizers.SGD(0.1)
    report = assert_cured(
        small_classifier(), sampling_strategy=sampling_strategy, optimizer=optimizer
    )
    assert report.pseudo == pseudo
    assert int(optimizer.iterations) == 2 * -(-(N + sum(pseudo)) // 40)


def test_multiplied_minority_works_with_samplers_too():
    sampler = imblearn.over_sampling.RandomOverSampler(
        sampling_strategy=multiply_minority(3), random_state=0
    )
    assert assert_cured(small_classifier(), sampler=sampler).pseudo == [0, 60, 20]


# ---- Settings. -----------------------------------------------------------------------


def test_fresh_head_follows_from_the_seed_and_forgets_what_was_learnt():
    results = []
    for seed, scale in [((1, 2), 1), ((1, 2), 50), ((3, 4), 1)]:
        model = small_classifier()
        model.layers[-1].kernel.assign(scale * model.layers[-1].kernel)
        assert_cured(model, fresh_head=True, seed=seed)
        results.append(state(model))
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.SGD(1e-8, momentum=0.9),
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(1e-2, 10), clipnorm=1.0
        ),
    ],
    ids=["SGD", "AdamW"],
)
def test_optimizer_of_the_models_kind_and_its_own_is_untouched(optimizer):
    model = small_classifier()
    compiled(model, optimizer, SPARSE, run_eagerly=True)
    model.fit(X, Y, batch_size=N, verbose=0)
    before = state(optimizer)
    report = assert_cured(model)
    assert report.optimizer == type(optimizer).__name__
    assert state(optimizer) == before and model.optimizer is optimizer
    model.fit(X, Y, batch_size=N, verbose=0)
    assert int(optimizer.iterations) == 2


def test_optimizer_by_name():
    assert assert_cured(small_classifier(), optimizer="sgd").optimizer == "SGD"


def test_epochs_by_default_make_about_a_thousand_steps():
    report = retrain(small_classifier(), (X, Y), batch_size=12)  # 20 batches an epoch
    assert report.recipe.epochs == 50


def test_without_validation_data_the_training_data_are_scored():
    model = small_classifier()
    with pytest.warns(UserWarning, match="`monitor` is 'accuracy', but there are no"):
        report = assert_cured(model, monitor="accuracy")
    assert "any head is kept" in report.notes[0]
    assert report.scored_on == "training data"
    assert report.monitor is None
    assert report.after["accuracy"] == pytest.approx(np.mean(ids_of(model, X) == Y))


def test_verbose_says_what_is_done_and_silence_is_silent(capsys):
    assert_cured(small_classifier(), verbose=0)
    assert capsys.readouterr().out == ""
    assert_cured(small_classifier(), verbose="auto")
    printed = capsys.readouterr().out
    assert "Extracting features at 'features'" in printed
    assert "Fitting Gaussians to 120 features of shape [5]" in printed
    assert "Training the head on 240 features" in printed
    assert "12/12" in printed


# ---- A strategy; of two devices and of two processes, see strategies_test.py. -------


@pytest.mark.tensorflow(reason="tf.distribute")
def test_model_mirrored_on_one_device():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = small_classifier(between=[layers.Dropout(0.1)])
    assert_cured(model, fresh_head=True)


# ---- Views, a lean towards the rare, and logit adjustment afterwards. ----------------


def jitter(x, seed):
    return x + 0.1 * tf.random.stateless_normal(tf.shape(x), seed)


def test_views_are_fitted_and_trained_on_together(trained, digits):
    train, validation, _ = digits
    report = retrain(
        trained, train, validation_data=validation, augment=jitter, views=2, epochs=10
    )
    real = np.bincount(train[1])
    assert report.real == real.tolist()
    assert report.used == (2 * real).tolist()
    assert [entry.count for entry in report.covariance.classes] == report.used
    assert report.view_source == "augment"
    assert (report.recipe.blend, report.recipe.tau) == (0.2, 0.5)
    assert report.after["balanced_accuracy"] > report.before["balanced_accuracy"]


def test_validation_data_are_not_augmented(trained, digits):
    train, validation, _ = digits
    plain = np.mean(ids_of(trained, validation[0]) == validation[1])
    settings = {"augment": jitter, "monitor": None, **UNTRAINED}
    report = retrain(trained, train, validation_data=validation, **settings)
    assert report.before["accuracy"] == pytest.approx(plain)


@pytest.mark.parametrize("sampler", [None, imblearn.over_sampling.SMOTE(k_neighbors=3)])
def test_tau_is_logit_adjustment_after_the_training(trained, digits, sampler):
    train, _, test = digits
    settings = {"epochs": 2, "monitor": None, "sampler": sampler, "blend": 0.0}
    if sampler:
        settings["sampler"].set_params(random_state=0)
    before = [variable.numpy() for variable in trained.variables]
    retrain(trained, train, tau=0.0, **settings)
    prior = np.bincount(train[1]) / len(train[1])
    p = outputs_of(trained, test[0]) * prior**-0.5
    assign(trained, before)
    report = retrain(trained, train, tau=0.5, **settings)
    adjusted = p / p.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        outputs_of(trained, test[0]), adjusted, rtol=1e-3, atol=1e-5
    )
    assert report.recipe.tau == 0.5


@pytest.mark.parametrize("blend, tau", [(0.0, 0.0), (0.0, 0.5), (0.25, 0.5)])
def test_the_report_knows_the_prior_for_logit_adjustment(trained, digits, blend, tau):
    train, _, test = digits
    strategy = multiply_minority(5)
    settings = {"epochs": 2, "blend": blend, "tau": tau}
    report = retrain(trained, train, sampling_strategy=strategy, **settings)
    real = np.bincount(train[1])
    mix = np.where(np.isin(np.arange(10), RARE), 5, 1) * real
    p = outputs_of(trained, test[0])
    p *= real.astype(float) ** (tau - blend) / mix ** (1 - blend)
    adjusted = adjust_logits(trained, report)
    np.testing.assert_allclose(
        outputs_of(adjusted, test[0]),
        p / p.sum(axis=1, keepdims=True),
        rtol=1e-3,
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "blend, targets",
    [(0.0, ["uniform"]), (0.25, ["training", np.arange(1, 11) / 55])],
    ids=["untied", "blended"],
)
def test_outputs_assume_the_target_prior(trained, digits, blend, targets):
    train, _, test = digits
    settings = {"epochs": 2, "blend": blend}
    settings["sampling_strategy"] = multiply_minority(5)
    before = [variable.numpy() for variable in trained.variables]
    report = retrain(trained, train, **settings)
    outputs = outputs_of(trained, test[0])
    real = np.bincount(train[1])
    named = {"uniform": np.full(10, 0.1), "training": real / real.sum()}
    for target in targets:
        assign(trained, before)
        aimed = retrain(trained, train, target_prior=target, **settings)
        expected = named[target] if isinstance(target, str) else target
        np.testing.assert_allclose(aimed.prior, expected, rtol=1e-12)
        p = outputs * expected / np.array(report.prior)
        np.testing.assert_allclose(
            outputs_of(trained, test[0]),
            p / p.sum(axis=1, keepdims=True),
            rtol=1e-3,
            atol=1e-5,
        )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"views": 2}, "views=2, but nothing makes views"),
        ({"augment": lambda x: x[:, :3]}, "`augment` returns inputs of shapes"),
        ({"tau": float("nan")}, "`tau` must be a finite number"),
        ({"blend": 2}, "`blend` must be in .0, 1"),
        ({"target_prior": "flat"}, "`target_prior` must be one of.*'flat'"),
        (
            {"target_prior": [0.5, 0.5]},
            r"must have shape \[10\].* received shape \[2\]",
        ),
        (
            {"target_prior": [0.1] * 9 + [0.0]},
            "needs a positive number.* class 9 has 0",
        ),
        ({"target_prior": "uniform", "tau": 1}, "both adjust the logits"),
        ({"recipe": "auto", "blend": 0.5}, r"\['blend'\] cannot be passed"),
    ],
)
def test_views_and_tau_are_checked_before_any_work(trained, digits, settings, message):
    before = state(trained)
    with pytest.raises(ValueError, match=message):
        retrain(trained, digits[0], **settings)
    assert state(trained) == before


def test_tau_needs_a_bias_of_the_last_layer():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, name="features"),
            layers.Dense(2, use_bias=False, activation="softmax"),
        ]
    )
    data = (np.ones((4, 3), "float32"), np.array([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="tau=0.5 shifts the bias.*adjust_logits"):
        retrain(model, data, tau=0.5)


def test_tau_needs_an_example_of_every_class(trained, digits):
    x, y = digits[0]
    with pytest.raises(ValueError, match=r"classes \[3\] have no example"):
        retrain(trained, (x[y != 3], y[y != 3]), tau=0.5)


# ---- A signal. -----------------------------------------------------------------------

INTERRUPTED = """
    import os, signal, sys, tempfile, threading
    import keras, numpy as np
    from keras import layers
    from tf_pseudofeat.retraining.retrain import retrain_head

    os.chdir(sys.argv[1])
    tempfile.tempdir = None  # look for it again
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also in the background
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)), np.repeat([0, 1, 2], [200, 80, 20])
    inputs = keras.Input((4,))
    features = layers.BatchNormalization(name="features")(inputs)
    hidden = layers.Dropout(0.1)(layers.Dense(8, activation="relu")(features))
    hidden = layers.BatchNormalization()(hidden)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(hidden))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)

    def state():
        variables = [*model.variables, *model.optimizer.variables]
        return [variable.numpy().tobytes() for variable in variables]

    before, wait = state(), threading.Event()

    def changed():
        try:
            return state() != before
        except (RuntimeError, TypeError):  # jax has weights in the model between epochs
            return False

    def interrupt():
        while not changed():
            wait.wait(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    settings = {"freeze_batch_norm": False, "fresh_head": True, "epochs": 10**6}
    try:
        retrain_head(model, "features", (x, y), verbose=0, **settings)
    except KeyboardInterrupt:
        print("interrupted, and", "as it was" if state() == before else "changed")
    print("files:", os.listdir())
"""


def test_sigint_after_weights_have_changed_gives_them_back_to_the_bit(tmp_path):
    code = textwrap.dedent(INTERRUPTED)
    done = programs.run("-c", code, tmp_path, TMPDIR=str(tmp_path))
    assert done.stdout == "interrupted, and as it was\nfiles: []\n", done.stderr[-3000:]


# ---- What the trunk looks at. --------------------------------------------------------


def counted(data, reads):
    """A dataset that notes what is read of it."""

    def rows():
        for x, y in zip(*data, strict=True):
            reads.append(int(y))
            yield x, y

    signature = tuple(tf.TensorSpec(a.shape[1:], a.dtype) for a in data)
    return tf.data.Dataset.from_generator(rows, output_signature=signature).batch(30)


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_the_trunk_sees_so_many_of_each_class_and_the_data_are_read_once(
    kind, monkeypatch
):
    seen, reads = [], []
    run = features_module.features_of

    def watched(trunk, x):
        seen.append(np.array(x))
        return run(trunk, x)

    monkeypatch.setattr(features_module, "features_of", watched)
    model = small_classifier()
    data = (X, Y) if kind == "arrays" else counted((X, Y), reads)
    report = retrain(model, data, per_class=20, **UNTRAINED)
    assert report.real == [80, 30, 10]
    assert report.used == [20, 20, 10]
    assert report.pseudo == [0, 0, 10]
    assert report.minority == [1, 2]
    seen = np.concatenate(seen)
    assert len(seen) == 50
    assert {row.tobytes() for row in seen} <= {row.tobytes() for row in X}
    if kind == "dataset":
        assert len(reads) <= 30 + N + 30  # the first batch is looked at beforehand


def test_the_prior_that_tau_takes_off_is_that_of_all_the_data(trained, digits):
    train, _, test = digits
    settings = {"epochs": 2, "blend": 0.0, "per_class": 15}
    before = [variable.numpy() for variable in trained.variables]
    report = retrain(trained, train, tau=0.0, **settings)
    assert max(report.used) == 15
    np.testing.assert_allclose(report.prior, np.full(10, 0.1))
    p = outputs_of(trained, test[0])
    assign(trained, before)
    report = retrain(trained, train, tau=0.5, **settings)
    prior = np.bincount(train[1]) / len(train[1])
    p *= prior**-0.5
    np.testing.assert_allclose(
        outputs_of(trained, test[0]),
        p / p.sum(axis=1, keepdims=True),
        rtol=1e-3,
        atol=1e-5,
    )
    np.testing.assert_allclose(report.prior, prior**-0.5 / (prior**-0.5).sum())


@pytest.mark.parametrize(
    "options, blend, tau, used",
    [
        ({}, 0.7, 1.0, 60),
        ({"augment": jitter}, 0.2, 0.5, 60),
        ({"augment": jitter, "blend": 0.4}, 0.4, 0.7, 60),
        ({"tau": 0.2}, 0.7, 0.2, 60),
        ({"target_prior": "training"}, 0.0, 0.0, 60),
        ({"sampling_strategy": "minority"}, 0.0, 0.0, None),
        ({"fresh_head": True}, 0.0, 0.0, None),
        ({"sampler": imblearn.over_sampling.RandomOverSampler()}, 0.0, 0.0, None),
        ({"recipe": HeadRecipe.paper()}, 0.0, 0.0, None),
    ],
)
def test_what_is_not_said_follows_from_what_is(
    trained, digits, monkeypatch, options, blend, tau, used
):
    monkeypatch.setattr(options_module, "_PER_CLASS", 60)
    trained_to = {"loss": [0.0], "epochs": 1, "optimizer": "", "learning_rate": 0.0}
    monkeypatch.setattr(fit_module, "train_head", lambda *args: dict(trained_to))
    report = retrain(trained, digits[0], epochs=1, **options)
    assert (report.recipe.blend, report.recipe.tau) == (blend, tau)
    assert report.extraction.per_class == used
    assert f"blend {blend:g}; tau {tau:g}" in str(report)
    assert max(report.used) == min(used or 1000, max(report.real))


def test_a_default_tau_is_left_out_where_it_cannot_be(trained, digits):
    x, y = digits[0]
    report = retrain(trained, (x[y != 3], y[y != 3]), epochs=1)
    assert (report.recipe.blend, report.recipe.tau) == (0.7, 0.0)


def test_all_of_the_old_head_is_the_old_head_and_tau_alone_is_logit_adjustment(
    trained, digits
):
    train, _, test = digits
    expected = outputs_of(adjust_logits(trained, np.bincount(train[1])), test[0])
    report = retrain(trained, train, **UNTRAINED)
    outputs = outputs_of(trained, test[0])
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-5)
    assert (report.loss, report.optimizer) == ([], "none")
    assert "kept" in str(report)
    report.plot()


def test_a_retraining_once_more_leans_no_further(trained, digits):
    train, _, test = digits
    priors, scores = [], []
    for _ in range(3):
        report = retrain(trained, train, augment=jitter, epochs=3)
        priors.append(report.prior)
        predicted = ids_of(trained, test[0])
        scores.append(
            np.mean([np.mean(predicted[test[1] == c] == c) for c in range(10)])
        )
    lean = (np.bincount(train[1]) / len(train[1])) ** -0.3
    np.testing.assert_allclose(priors, np.tile(lean / lean.sum(), (3, 1)), rtol=1e-4)
    assert min(scores) > scores[0] - 0.03
    trained.fit(*train, verbose=0)  # and now it follows the data again
    assert retrain(trained, train, augment=jitter, epochs=1).recipe.tau == 0.5


@pytest.mark.parametrize("target", ["uniform", "training"])
def test_a_target_prior_is_exact_whatever_the_head_was_left_with(
    trained, digits, target
):
    train, _, test = digits
    retrain(trained, train, epochs=2)
    before = [variable.numpy() for variable in trained.variables]
    settings = {"epochs": 2, "target_prior": target}
    retrain(trained, train, blend=0, tau=0, **settings)
    expected = outputs_of(trained, test[0])
    assign(trained, before)
    report = retrain(trained, train, **settings)
    assert report.recipe.blend == 0
    np.testing.assert_allclose(outputs_of(trained, test[0]), expected, atol=1e-5)


def test_a_bias_that_is_frozen_is_not_shifted(trained, digits):
    last = trained.get_layer("digit")
    kept = [weight.copy() for weight in last.get_weights()]
    last.trainable = False
    try:
        with pytest.raises(ValueError, match="no trainable weights"):
            retrain(trained, digits[0], tau=0.5)
        report = retrain(trained, digits[0], freeze_batch_norm=False, epochs=1)
    finally:
        last.trainable = True
    assert report.recipe.tau == 0
    for now, then in zip(last.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(now, then)


def test_an_augmentation_may_write_into_its_batch(trained, digits):
    x, y = digits[0]
    copy, means = x.copy(), []

    def in_place(batch):
        means.append(float(batch.mean()))
        batch += 0.5
        return batch

    settings = {"augment": in_place, "views": 2, "per_class": None}
    retrain(trained, (x, y), **settings, **UNTRAINED)
    np.testing.assert_array_equal(x, copy)
    assert max(means) - min(means) < 0.1  # no view is made of another


def test_batches_of_many_shapes_are_not_joined():
    def batches():
        rng = np.random.default_rng(0)
        for size in (8, 6, 8, 8, 10):
            labels = np.arange(20) % 3
            yield (
                rng.normal(size=(20, size, 3)).astype("f4") + labels[:, None, None],
                labels,
            )

    data = tf.data.Dataset.from_generator(
        batches,
        output_signature=(
            tf.TensorSpec((None, None, 3), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.GlobalAveragePooling1D(name="features"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", SPARSE)
    report = retrain(model, data, per_class=25, **UNTRAINED)
    assert report.used == [25, 25, 25] and report.real == [35, 35, 30]


@pytest.mark.parametrize("call", [retrain_head, diagnose, tune])
def test_validation_data_that_are_training_data_are_told(call):
    settings = {"monitor": "accuracy", "epochs": 1, "verbose": 0}
    with pytest.warns(UserWarning, match="are examples of the training data") as told:
        found = call(
            small_classifier(), "features", (X, Y), validation_data=(X, Y), **settings
        )
    told = [warning for warning in told if "are examples" in str(warning.message)]
    assert [warning.filename for warning in told] == [__file__]
    if call is retrain_head:
        assert any("are examples of the training" in note for note in found.notes)


def test_inputs_of_nan_that_a_layer_makes_numbers_of_are_told():
    x = X.copy()
    x[[5, 7], 0] = np.nan
    with pytest.warns(UserWarning, match="NaN is in 2 of the inputs of `data`") as told:
        report = retrain_head(
            model_without_nan(), "features", (x, Y), epochs=1, monitor=None, verbose=0
        )
    assert any("NaN is in 2 of the" in note for note in report.notes)
    assert len([w for w in told if "NaN is in" in str(w.message)]) == 1


def model_without_nan():
    """A model to which a number that is none is 0, as to ReLU on some devices."""
    inputs = keras.Input((4,))
    x = keras.ops.where(keras.ops.isnan(inputs), 0.0, inputs)
    x = layers.Dense(5, activation="relu", name="features")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model
