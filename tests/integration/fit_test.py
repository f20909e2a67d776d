"""Tests for fit.py: training a head on features, and undoing it to the bit."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.metrics import balanced_accuracy_score, recall_score

from tests import heads
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.head import optimizers, training
from tf_pseudofeat.head.optimizers import head_optimizer

COUNTS = [60, 20, 10]


def blobs(seed=0, counts=COUNTS, spread=1.0):
    """Three overlapping classes of four features, in a random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(range(len(counts)), counts))
    features = 2 * np.eye(4)[labels] + spread * rng.normal(size=(labels.size, 4))
    return LabeledFeatures(features.astype("float32"), labels)


def make_head(*between, units=3, activation="softmax"):
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [keras.Input((4,)), *between, layers.Dense(units, activation=activation)]
    )


def fit(head, training=None, scoring=None, **settings):
    training = training or blobs()
    defaults = {
        "loss": "sparse_categorical_crossentropy",
        "num_classes": 3,
        "optimizer": keras.optimizers.SGD(0.5),
        "epochs": 2,
        "batch_size": 30,
    }
    return heads.fit(head, training, scoring or training, **defaults | settings)


def state(model):
    """Every variable of a model, dropout's included, as bytes."""
    values = map(keras.ops.convert_to_numpy, model.variables)
    return [(value.dtype.name, value.tobytes()) for value in values]


def predicted_ids(head, features):
    """What a head says, without a function to be traced for it."""
    return keras.ops.convert_to_numpy(head(features)).argmax(axis=1)


def full_head():
    """A head with all that can change: weights, statistics, a random state."""
    keras.utils.set_random_seed(7)
    return make_head(
        layers.Dense(6, activation="relu"),
        layers.BatchNormalization(),
        layers.Dropout(0.2),
    )


def gaussian_of(data):
    gaussian = ClassConditionalGaussian(3)
    gaussian.adapt(data.features, data.labels)
    return gaussian


# ---- Classes and scores. -------------------------------------------------------------


@pytest.mark.parametrize("form", ["sparse", "column", "one-hot"])
def test_scores_agree_with_scikit_learn(form):
    data, head = blobs(), make_head()
    given = {"sparse": data.labels, "column": data.labels[:, None]}
    labels = given.get(form, np.eye(3)[data.labels])
    result = heads.score(head, LabeledFeatures(data.features, labels), 3, [1, 2])
    predicted = predicted_ids(head, data.features)
    expected = balanced_accuracy_score(data.labels, predicted)
    assert result["balanced_accuracy"] == pytest.approx(expected)
    recalls = recall_score(data.labels, predicted, average=None, labels=range(3))
    np.testing.assert_allclose(result["recall"], recalls)


# ---- Training. -----------------------------------------------------------------------


def test_training_finds_the_classes_of_held_out_features():
    head, unseen = make_head(), blobs(seed=1)
    result = fit(head, scoring=unseen, epochs=20)
    assert result.kept and result.reason == ""
    # The weights that others than TensorFlow start from find more: 0.59, not 0.18.
    gain = 0.2 if keras.backend.backend() == "tensorflow" else 0.1
    assert result.after["balanced_accuracy"] > result.before["balanced_accuracy"] + gain
    assert result.after == heads.score(head, unseen, 3, [1, 2])
    assert result.loss[-1] < result.loss[0] or len(result.loss) == 1


def test_pseudo_features_raise_the_recall_of_the_rare_class():
    data, unseen = blobs(counts=[300, 300, 6]), blobs(1, [200, 200, 200])
    recalls = []
    for counts in ({}, {2: 294}):
        head = make_head()
        fit(head, data, gaussian=gaussian_of(data), counts=counts, epochs=20)
        recalls.append(heads.score(head, unseen, 3, [2])["recall"][2])
    assert recalls[1] > recalls[0] + 0.2


@pytest.mark.parametrize(
    "rows, batch_size, epochs",
    [(90, 30, 7), (90, 90, 1), (90, 30, 120), (90, 7, 13), (31, 31, 101)],
)
def test_epochs_that_are_asked_for_are_run_to_the_step(rows, batch_size, epochs):
    data, optimizer = blobs(), keras.optimizers.SGD(0.01)
    data = LabeledFeatures(data.features[:rows], data.labels[:rows])
    result = fit(
        make_head(), data, optimizer=optimizer, batch_size=batch_size, epochs=epochs
    )
    assert int(optimizer.iterations) == epochs * -(-rows // batch_size)
    assert result.epochs == epochs


@pytest.mark.parametrize("batch_size, epochs", [(90, 100), (2, 23), (1, 12)])
def test_epochs_by_default_make_about_a_thousand_steps(batch_size, epochs):
    optimizer = keras.optimizers.SGD(0.01)
    result = fit(make_head(), optimizer=optimizer, epochs=None, batch_size=batch_size)
    assert result.epochs == epochs
    assert int(optimizer.iterations) == epochs * -(-90 // batch_size)


def test_epochs_by_default_are_five_at_least():
    data = blobs(counts=[150, 50, 50])
    assert fit(make_head(), data, epochs=None, batch_size=1).epochs == 5


@pytest.mark.parametrize("epochs", [0, -1, 2.5])
def test_epochs_that_are_no_number_of_epochs_raise(epochs):
    with pytest.raises(ValueError, match=f"`epochs` must be a whole number.*{epochs}"):
        fit(make_head(), epochs=epochs)


def test_examples_of_no_weight_teach_nothing():
    data, head = blobs(spread=0.3), make_head()
    wrong = np.arange(data.labels.size) % 3 == 0
    labels = np.where(wrong, (data.labels + 1) % 3, data.labels)
    weight = np.where(wrong, 0.0, 1.0).astype("float32")
    training = LabeledFeatures(data.features, labels, weight)
    result = fit(head, training, data, epochs=60)
    assert result.after["balanced_accuracy"] > 0.95


def test_same_seed_same_weights_to_the_bit_and_another_seed_others():
    data, results = blobs(), []
    for seed in [(1, 2), (1, 2), (1, 3)]:
        head = full_head()
        # The state that Dropout is in must not matter.
        head.layers[2].seed_generator.state.assign([len(results), 5])
        gaussian = gaussian_of(data)
        fit(head, data, gaussian=gaussian, counts={2: 50}, seed=seed, epochs=3)
        results.append(state(head))
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_two_dropout_layers_draw_different_masks():
    head = make_head(layers.Dropout(0.5), layers.Dropout(0.5))
    fit(head)
    first, second = (layer.seed_generator.state.numpy() for layer in head.layers[:2])
    assert first[0] != second[0]


def test_one_bar_counts_the_steps_to_their_full_number(capsys):
    fit(make_head(), epochs=122, verbose="auto")  # of 3 steps; no 32 divides them
    printed = capsys.readouterr().out
    assert "366/366" in printed and "loss" in printed
    fit(make_head(), epochs=2, verbose=0)
    assert capsys.readouterr().out == ""


# ---- BatchNormalization, frozen layers, a fresh start. -------------------------------


@pytest.mark.parametrize("freeze", [True, False])
def test_batch_normalization_changes_only_if_it_may(freeze):
    head = full_head()
    norm = head.layers[1]
    before = state(norm)
    result = fit(head, freeze_batch_norm=freeze)
    assert result.kept
    assert (state(norm) == before) == freeze
    assert norm.trainable and len(norm.trainable_variables) == 2


def test_batch_normalization_in_a_nested_model_is_frozen_too():
    inner = keras.Sequential([layers.Dense(5), layers.BatchNormalization()])
    head = make_head(keras.Sequential([inner]))
    before = state(inner.layers[1])
    dense = state(inner.layers[0])
    fit(head)
    assert state(inner.layers[1]) == before
    assert state(inner.layers[0]) != dense


def test_frozen_layer_stays_frozen_and_the_rest_trains():
    head = full_head()
    head.layers[0].trainable = False
    head.layers[1].trainable = False
    before, last = state(head.layers[0]), state(head.layers[-1])
    fit(head, fresh_head=True)
    assert state(head.layers[0]) == before
    assert state(head.layers[-1]) != last
    assert [layer.trainable for layer in head.layers] == [False, False, True, True]


def test_head_without_a_weight_to_train_raises():
    inputs = keras.Input((4,))
    norm = layers.BatchNormalization(name="norm")
    head = keras.Model(inputs, layers.Softmax(name="end")(norm(inputs)))
    with pytest.raises(ValueError, match="no trainable weights") as caught:
        fit(head, num_classes=4)
    assert "'norm', 'end'" in str(caught.value)
    assert "1 BatchNormalization frozen" in str(caught.value)
    assert norm.trainable


def test_fresh_head_starts_from_initial_weights_that_follow_from_the_seed():
    results = []
    for seed in [(1, 2), (1, 2), (3, 4)]:
        head = make_head(layers.Dense(6, activation="relu"))
        head.layers[0].kernel.assign(100 * head.layers[0].kernel)
        fit(head, fresh_head=True, seed=seed, optimizer=keras.optimizers.SGD(1e-6))
        results.append(state(head))
        assert abs(head.layers[0].kernel.numpy()).max() < 1  # Glorot's limit
        assert not np.allclose(head.layers[0].kernel, 0)
    assert results[0] == results[1] != results[2]


def test_fresh_head_leaves_pythons_random_numbers_alone():
    head = make_head()
    random.seed(5)
    following = random.random()
    random.seed(5)
    training.initialize_head(head, (1, 2))
    assert random.random() == following


def test_warm_head_starts_from_the_weights_it_has():
    head = make_head()
    before = head.get_weights()
    fit(head, optimizer=keras.optimizers.SGD(1e-6))
    np.testing.assert_allclose(head.get_weights()[0], before[0], atol=1e-4)


# ---- Rollback. -----------------------------------------------------------------------


def raises_when_traced(y_true, y_pred):
    raise RuntimeError("a loss of the user's own")


def raises_in_step(step):
    seen = []

    def count(value):
        seen.append(value)
        if len(seen) >= step:
            raise RuntimeError("a loss of the user's own")
        return value

    def loss(y_true, y_pred):
        value = keras.losses.sparse_categorical_crossentropy(y_true, y_pred)
        counted = tf.py_function(count, [value], value.dtype)
        return value + 0 * tf.ensure_shape(counted, value.shape)

    return loss


in_tensorflow = pytest.mark.tensorflow(reason="tf.py_function in a loss")


@pytest.mark.parametrize(
    "loss",
    [raises_when_traced, pytest.param(raises_in_step(4), marks=in_tensorflow)],
)
def test_exception_in_training_restores_every_variable(loss):
    head = full_head()
    before = state(head)
    with pytest.raises(Exception, match="a loss of the user's own"):
        fit(head, loss=loss, freeze_batch_norm=False, fresh_head=True)
    assert state(head) == before
    assert all(layer.trainable for layer in head.layers)


def test_interrupt_restores_every_variable_after_they_had_changed(monkeypatch):
    head, seen = full_head(), []
    before = state(head)

    def interrupt(progress, epoch, logs=None):
        seen.append(state(head))
        raise KeyboardInterrupt

    monkeypatch.setattr(training._Progress, "on_epoch_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(head, freeze_batch_norm=False)
    assert seen[0] != before
    assert state(head) == before
    assert all(layer.trainable for layer in head.layers)


def nan_loss(y_true, y_pred):
    return float("nan") * keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


@pytest.mark.parametrize(
    "harm",
    [{"optimizer": keras.optimizers.SGD(float("inf"))}, {"loss": nan_loss}],
    ids=["infinite learning rate", "loss of NaN"],
)
def test_loss_that_is_not_finite_rolls_back(harm):
    head = full_head()
    before = state(head)
    result = fit(head, freeze_batch_norm=False, **harm)
    assert not result.kept
    assert result.reason.startswith("the loss or the weights became infinite or NaN")
    assert state(head) == before
    assert result.after == result.before


def test_weights_that_break_in_the_last_step_roll_back():
    """The loss of a step is measured before the weights change."""
    head = full_head()
    before = state(head)
    optimizer = keras.optimizers.SGD(float("inf"))
    result = fit(head, optimizer=optimizer, epochs=1, batch_size=90)
    assert np.isfinite(result.loss).all()
    assert not result.kept and "became infinite or NaN" in result.reason
    assert state(head) == before


def contradiction(head):
    """Features with the labels that an untrained head gives them: it is never wrong."""
    features = blobs(1).features
    return LabeledFeatures(features, predicted_ids(head, features))


def test_worse_score_rolls_back_and_says_from_where_to_where():
    head = full_head()
    before, scoring = state(head), contradiction(head)
    result = fit(head, scoring=scoring, monitor="accuracy", freeze_batch_norm=False)
    assert not result.kept
    assert result.before["accuracy"] == 1.0 > result.after["accuracy"]
    assert result.reason == (
        f"accuracy on the validation data fell from 1.0000 to "
        f"{result.after['accuracy']:.4f}"
    )
    assert state(head) == before


def test_worse_score_stays_if_nothing_is_monitored():
    head = full_head()
    before = state(head)
    result = fit(head, scoring=contradiction(head), monitor=None)
    assert result.kept
    assert result.after["accuracy"] < result.before["accuracy"]
    assert state(head) != before


def test_a_tie_leaves_the_head_as_it_was():
    head = make_head()
    before, scoring = state(head), contradiction(head)
    optimizer = keras.optimizers.SGD(1e-6)
    result = fit(head, scoring=scoring, monitor="accuracy", optimizer=optimizer)
    assert result.before["accuracy"] == result.after["accuracy"]
    assert not result.kept and result.reason.endswith("which is a tie")
    assert state(head) == before


def test_monitored_score_that_has_no_value_raises_before_training():
    head, data = make_head(), blobs()
    before = state(head)
    scoring = LabeledFeatures(data.features[:3], np.zeros(3, int))
    message = r"two classes or more to score on; all 3 are of class 0"
    with pytest.raises(ValueError, match=message):
        fit(head, scoring=scoring, monitor="mean_minority_accuracy")
    assert state(head) == before


# ---- The blend. ----------------------------------------------------------------------


def test_blend_is_the_mean_of_before_and_after():
    before = [weight.copy() for weight in make_head().get_weights()]
    trained, blended, untouched = make_head(), make_head(), make_head()
    fit(trained)
    fit(blended, blend=0.25)
    fit(untouched, blend=1.0)
    for old, new, mean, same in zip(
        before,
        *(head.get_weights() for head in (trained, blended, untouched)),
        strict=True,
    ):
        assert not np.allclose(old, new, atol=1e-4)
        np.testing.assert_allclose(mean, 0.25 * old + 0.75 * new, rtol=1e-6)
        np.testing.assert_array_equal(same, old)


def test_blend_leaves_statistics_and_random_states_as_they_became():
    plain, blended = full_head(), full_head()
    for head, blend in ((plain, 0.0), (blended, 0.5)):
        fit(head, blend=blend, freeze_batch_norm=False)
    pairs = list(zip(plain.variables, blended.variables, strict=True))
    trained = {id(variable) for variable in plain.trainable_variables}
    for one, other in pairs:
        same = np.array_equal(one.numpy(), other.numpy())
        assert same == (id(one) not in trained), one.path


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"blend": 1.5}, r"must be in \[0, 1\]; received 1.5"),
        ({"blend": -0.1}, r"must be in \[0, 1\]; received -0.1"),
        ({"blend": float("nan")}, r"must be in \[0, 1\]; received nan"),
        ({"blend": "half"}, r"must be in \[0, 1\]; received 'half'"),
        ({"blend": 0.5, "fresh_head": True}, "a fresh head is not trained from it"),
    ],
)
def test_blend_is_a_share_and_needs_a_trained_head(settings, message):
    head = make_head()
    before = state(head)
    with pytest.raises(ValueError, match=message):
        fit(head, **settings)
    assert state(head) == before


# ---- The optimizer. ------------------------------------------------------------------


def compiled(optimizer):
    model = make_head()
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


class ScaledSGD(keras.optimizers.SGD):
    """A user's optimizer whose constructor wants something."""

    def __init__(self, scale, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def cosine():
    return keras.optimizers.schedules.CosineDecay(0.3, decay_steps=10)


@pytest.mark.parametrize(
    "optimizer, learning_rate, same",
    [
        (keras.optimizers.SGD(1e-9, momentum=0.9, nesterov=True), 0.01, ["momentum"]),
        (
            keras.optimizers.AdamW(cosine(), clipnorm=1.0, weight_decay=0.1),
            0.001,
            ["clipnorm", "weight_decay"],
        ),
        (keras.optimizers.Adam(beta_1=0.5, use_ema=True), 0.001, ["beta_1"]),
        (keras.optimizers.Ftrl(l1_regularization_strength=0.1), 0.001, []),
        (ScaledSGD(2.0, learning_rate=1e-9, momentum=0.5), 0.01, ["scale", "momentum"]),
    ],
    ids=["SGD", "AdamW", "Adam with EMA", "Ftrl", "a user's own"],
)
def test_optimizer_is_a_new_one_of_the_models_kind(optimizer, learning_rate, same):
    fresh = head_optimizer(100, like=compiled(optimizer).optimizer)
    assert fresh is not optimizer and type(fresh) is type(optimizer)
    assert float(fresh.learning_rate) == pytest.approx(learning_rate)
    assert not fresh.use_ema
    for name in same:
        assert fresh.get_config()[name] == optimizer.get_config()[name]


def test_loss_scaling_is_kept_with_a_scale_of_its_own():
    inner = keras.optimizers.SGD(1e-9, momentum=0.9)
    optimizer = keras.optimizers.LossScaleOptimizer(inner)
    fresh = head_optimizer(100, like=compiled(optimizer).optimizer)
    assert isinstance(fresh, keras.optimizers.LossScaleOptimizer)
    assert fresh is not optimizer and fresh.inner_optimizer is not inner
    assert fresh.inner_optimizer.momentum == 0.9
    assert float(fresh.learning_rate) == pytest.approx(0.01)


def test_optimizer_of_a_model_that_was_not_compiled_is_adam():
    assert isinstance(head_optimizer(100), keras.optimizers.Adam)


def test_learning_rate_falls_to_zero_in_the_last_quarter():
    optimizer = head_optimizer(100)
    rates = []
    for step in (0, 40, 75, 88, 100):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    middle = 1e-3 * (1 + np.cos(np.pi * 13 / 25)) / 2
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-3, middle, 0.0], atol=1e-9)


@pytest.mark.parametrize("optimizer", [None, head_optimizer])
def test_learning_rate_reaches_zero_with_the_last_step(optimizer, monkeypatch):
    made = []

    def spy(kind, steps, **kwargs):
        made.append(fresh(kind, steps, **kwargs))
        return made[-1]

    fresh = optimizers._fresh
    monkeypatch.setattr(optimizers, "_fresh", spy)
    result = fit(make_head(), optimizer=optimizer, epochs=7)
    (used,) = made
    assert int(used.iterations) == 7 * 3
    assert float(used.learning_rate) == pytest.approx(0.0, abs=1e-9)
    assert (result.optimizer, result.learning_rate) == ("Adam", 0.001)


def test_optimizer_that_is_given_is_used():
    mine = keras.optimizers.SGD(0.5)
    assert head_optimizer(100, mine) is mine
    other = head_optimizer(100, "rmsprop")
    assert isinstance(other, keras.optimizers.RMSprop)


class Composite(keras.layers.Layer):
    """A layer that keeps BatchNormalization inside, where `model.layers` is blind."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3, activation="softmax")
        self.norm = keras.layers.BatchNormalization()

    def build(self, shape):
        self.norm.build(shape)
        self.dense.build(shape)

    def call(self, x, training=None):
        return self.dense(self.norm(x, training=training))


def test_batch_normalization_inside_a_composite_layer_is_frozen():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [40, 20, 10])
    features = (rng.normal(size=(70, 4)) + 3 * np.eye(4)[labels]).astype("float32")
    data = LabeledFeatures(features, labels)
    head = keras.Sequential([keras.Input((4,)), Composite()])
    norm = head.layers[0].norm
    before = [v.numpy().copy() for v in norm.variables]
    heads.fit(head, data, num_classes=3, epochs=3)
    assert norm.trainable
    for variable, value in zip(norm.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_after_a_rollback_the_prior_is_that_of_the_head_that_is_left():
    head, data = make_head(), blobs()
    shares = np.bincount(data.labels) / len(data.labels)
    back = fit(head, scoring=contradiction(head), monitor="accuracy", tau=1.0)
    assert not back.kept
    np.testing.assert_allclose(back.prior, shares)
    kept = fit(head, tau=1.0)
    again = fit(head, scoring=contradiction(head), monitor="accuracy", tau=1.0)
    assert not again.kept and again.prior == kept.prior
    assert not np.allclose(kept.prior, shares)
