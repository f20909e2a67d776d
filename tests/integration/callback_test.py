"""Tests for callback.py: real, tiny fits that end with a retrained head."""

import copy
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from sklearn.metrics import balanced_accuracy_score

from tests.model_state import weights
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.retraining import callback as callback_module
from tf_pseudofeat.retraining.callback import PseudoFeatureHeadRetrainer
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.splitting.split_at import split_at

N = 120
RNG = np.random.default_rng(0)
Y = RNG.permutation(np.repeat([0, 1, 2], [80, 30, 10]))
X = (RNG.normal(size=(N, 4)) + 2 * np.eye(4)[Y]).astype("float32")
UNSEEN_Y = np.repeat([0, 1, 2], 40)
UNSEEN_X = (RNG.normal(size=(N, 4)) + 2 * np.eye(4)[UNSEEN_Y]).astype("float32")


def make_model(optimizer="sgd", built=True, traced=False):
    """To trace a `fit` takes longer than the few steps of most of these do."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            layers.Dense(5, activation="relu", name="features"),
            layers.Dense(3, activation="softmax", name="end"),
        ]
    )
    if built:
        model.build((None, 4))
    model.compile(
        optimizer,
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        run_eagerly=not traced,
    )
    if built:
        model.optimizer.build(model.trainable_variables)
    return model


UNTRAINED = {"blend": 1, "tau": 1, "verbose": 0}  # the head's bias is shifted, at once


def retrainer(layer_name="features", data=(X, Y), **settings):
    settings = {"epochs": 2, "verbose": 0, **settings}
    return PseudoFeatureHeadRetrainer(layer_name, data, **settings)


def adjuster(layer_name="features", data=(X, Y), **settings):
    """For tests of when a head is retrained, and on what: it is no training."""
    return PseudoFeatureHeadRetrainer(layer_name, data, **UNTRAINED, **settings)


def fit(model, *callbacks, epochs=1, **settings):
    settings = {"batch_size": N, "verbose": 0, **settings}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **settings)


def score(model, x=UNSEEN_X, y=UNSEEN_Y):
    predicted = ops.convert_to_numpy(model(x)).argmax(axis=1)
    return balanced_accuracy_score(y, predicted)


class Recorder(keras.callbacks.Callback):
    """Keeps the weights of the model at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.epochs, self.last = [], None

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(weights(self.model))
        self.last = self.model.get_weights()


# ---- What it does. -------------------------------------------------------------------


def test_head_is_retrained_when_fit_ends():
    model, recorder, callback = make_model(traced=True), Recorder(), retrainer()
    assert callback.report is None
    fit(model, recorder, callback, epochs=2)
    assert callback.report.kept and callback.report.real == [80, 30, 10]
    assert weights(model)[:2] == recorder.epochs[-1][:2]  # the trunk
    assert weights(model)[2:] != recorder.epochs[-1][2:]
    assert int(model.optimizer.iterations) == 2


def test_it_does_what_retrain_head_does():
    settings = {"epochs": 3, "seed": (4, 5), "sampling_strategy": "minority"}
    retrained, plain = (make_model("adam", traced=True) for _ in range(2))
    fit(retrained, retrainer(**settings), shuffle=False)
    fit(plain, shuffle=False)
    retrain_head(plain, "features", (X, Y), verbose=0, **settings)
    assert weights(retrained) == weights(plain)


def test_fit_with_it_finds_the_rare_classes_more_often_than_without():
    callback = retrainer(
        validation_data=(UNSEEN_X, UNSEEN_Y),
        optimizer=keras.optimizers.Adam(0.05),
        epochs=20,
    )
    model, recorder = make_model(keras.optimizers.Adam(0.03), traced=True), Recorder()
    fit(model, recorder, callback, epochs=20)
    with_it = score(model)
    assert callback.report.after["balanced_accuracy"] == pytest.approx(with_it)
    model.set_weights(recorder.last)
    assert with_it > score(model) + 0.1


@pytest.mark.parametrize("how", ["arrays", "dataset"])
def test_sequential_model_that_fit_builds(how):
    model, callback = make_model(built=False), adjuster()
    if how == "arrays":
        fit(model, callback)
    else:
        data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(40)
        model.fit(data, callbacks=[callback], verbose=0)
    assert callback.report.kept


@pytest.mark.parametrize(
    "every, epochs, expected",
    [(None, 2, [2]), (1, 2, [1, 2]), (2, 3, [2, 3]), (5, 2, [2])],
)
def test_retrains_after_every_so_many_epochs_and_once_at_the_end(
    monkeypatch, every, epochs, expected
):
    model, retrained = make_model(), []

    def counting(model, *args, **settings):
        report = retrain_head(model, *args, **settings)
        retrained.append(int(model.optimizer.iterations))
        return report

    monkeypatch.setattr(callback_module, "retrain_head", counting)
    fit(model, adjuster(every=every), epochs=epochs)
    assert retrained == expected


def test_training_goes_on_from_the_retrained_head():
    model, before, after = make_model(), Recorder(), Recorder()
    model.optimizer.learning_rate = 0.0
    fit(model, before, adjuster(every=1), after, epochs=2)
    assert before.epochs[0] != after.epochs[0] == before.epochs[1]
    assert after.epochs[1] == weights(model)


def test_one_object_serves_two_fits():
    model, callback, seen = make_model(), adjuster(), []
    fit(model, callback)
    first = callback.report

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(callback.report)

    other = make_model()
    before = weights(model)
    fit(other, Watch(), callback)
    assert seen == [None]
    assert callback.report is not first and callback.report.kept
    assert weights(model) == before


def test_interrupt_of_the_retraining_leaves_what_fit_had_learnt(monkeypatch):
    from tf_pseudofeat.head import training

    model, recorder = make_model(), Recorder()

    def interrupt(progress, epoch, logs=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(training._Progress, "on_epoch_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(model, recorder, retrainer())
    assert weights(model) == recorder.epochs[-1]


def test_backup_after_it_keeps_the_training_until_the_head_is_retrained(
    tmp_path, monkeypatch
):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    def fit_with_backup(model, *callbacks):
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        fit(model, *callbacks, backup, epochs=2)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(callback_module, "retrain_head", interrupt)
        fit_with_backup(make_model(), first := Recorder(), adjuster())
    fit_with_backup(make_model(), second := Recorder(), callback := adjuster())
    assert len(first.epochs) == 2
    assert second.epochs == []  # nothing was trained again
    assert callback.report.kept

    whole = adjuster()
    fit(make_model(), whole, epochs=2)
    assert callback.report.after == whole.report.after


def test_checkpoint_of_an_epoch_is_from_before_the_retraining(tmp_path):
    model, recorder, callback = make_model(), Recorder(), adjuster()
    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    fit(model, recorder, checkpoint, callback, epochs=2)
    saved = keras.saving.load_model(tmp_path / "2.keras")
    assert weights(saved) == recorder.epochs[-1] != weights(model)
    assert retrain_head(saved, "features", (X, Y), **UNTRAINED).kept
    assert weights(saved) == weights(model)


class Stop(keras.callbacks.Callback):
    """Ends the training with the first batch."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def on_train_batch_end(self, batch, logs=None):
        if self.how == "interrupt":
            raise KeyboardInterrupt
        self.model.stop_training = True


def test_training_that_a_callback_stops_ends_in_a_retraining():
    model, callback = make_model(), adjuster()
    fit(model, Stop("stop"), callback, epochs=3, batch_size=40)
    assert int(model.optimizer.iterations) == 1 and callback.report.kept


def test_training_that_is_interrupted_is_left_as_it_is():
    model, callback, seen = make_model(), retrainer(), []

    class Seeing(Stop):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(weights(self.model))
            super().on_train_batch_end(batch, logs)

    with pytest.raises(KeyboardInterrupt):
        fit(model, Seeing("interrupt"), callback, epochs=3)
    assert seen == [weights(model)] and callback.report is None


@pytest.mark.parametrize("every", [None, 1])
@pytest.mark.parametrize("stopped", [False, True])
def test_training_that_breaks_down_is_told_of_and_keeps_its_history(every, stopped):
    """To raise would lose what `fit` returns, and which epoch was still good."""
    model, callback = (
        make_model(keras.optimizers.SGD(float("inf"))),
        retrainer(every=every),
    )
    callbacks = [keras.callbacks.TerminateOnNaN(), callback] if stopped else [callback]
    with pytest.warns(UserWarning, match="The head is not retrained: 4 weights"):
        history = fit(model, *callbacks, epochs=2, batch_size=40)
    assert len(history.history["loss"]) == (1 if stopped else 2)
    assert callback.report is None
    broken = weights(model)
    with pytest.raises(ValueError, match="4 weights of .*training has diverged"):
        retrain_head(model, "features", (X, Y), verbose=0)
    with pytest.raises(ValueError, match="Load an earlier checkpoint"):
        fit(model, retrainer())
    assert weights(model) == broken


@pytest.mark.parametrize("verbose", [0, 1, "auto"])
def test_verbose(capsys, verbose):
    fit(make_model(), retrainer(verbose=verbose))
    printed = capsys.readouterr().out
    assert ("Extracting features at 'features'" in printed) == bool(verbose)
    assert ("2/2" in printed) == bool(verbose)


# ---- What is checked before the first step. ------------------------------------------


@pytest.mark.parametrize(
    "error, message, settings",
    [
        (ValueError, "no layer 'featuers'", {"layer_name": "featuers"}),
        (ValueError, "output layer", {"layer_name": "end"}),
        (TypeError, "received ndarray", {"data": X}),
        (ValueError, "0 to 2; example .* label 3", {"data": (X, Y + 1)}),
        (ValueError, "0 to 2; .* label 8", {"validation_data": (X, Y + 7)}),
        (ValueError, "`monitor` must be one of", {"monitor": "loss"}),
        (ValueError, "4 classes", {"gaussian": ClassConditionalGaussian(4)}),
        (ValueError, "received 0", {"batch_size": 0}),
        (ValueError, "received -1", {"epochs": -1}),
        (ValueError, "auot", {"sampling_strategy": "auot"}),
        (ValueError, "two integers", {"seed": 3}),
        (ValueError, "fit_resample", {"sampler": "SMOTE"}),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_error_comes_before_a_single_step(error, message, settings):
    model, recorder = make_model(), Recorder()
    before = weights(model)
    with pytest.raises(error, match=message):
        fit(model, recorder, retrainer(**settings))
    assert int(model.optimizer.iterations) == 0 and recorder.epochs == []
    assert weights(model) == before


class FromTheFirstBatch(layers.Layer):
    """Divides by 0 before its first batch of training.

    So may a deep network in float16, whose BatchNormalization has seen no batch yet.
    """

    def build(self, input_shape):
        self.seen = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="seen"
        )

    def call(self, x, training=False):
        if training:
            self.seen.assign(ops.ones(()))
        return x / self.seen


def test_features_need_not_be_finite_before_the_first_step():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, activation="relu"),
            FromTheFirstBatch(name="features"),
            layers.Dense(3, activation="softmax", name="end"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    before = weights(model)
    with pytest.raises(ValueError, match="The features at 'features' are NaN or inf"):
        retrain_head(model, "features", (X, Y), verbose=0)
    with pytest.raises(ValueError, match="0 to 2; example .* label 3"):
        fit(model, retrainer(data=(X, Y + 1)))  # all else is checked
    assert weights(model) == before

    recorder, callback = Recorder(), retrainer()
    fit(model, recorder, callback)
    assert callback.report.kept and np.isfinite(callback.report.loss).all()
    assert weights(model)[:-2] == recorder.epochs[-1][:-2]  # the trunk
    assert weights(model)[-2:] != recorder.epochs[-1][-2:]


@pytest.mark.parametrize("setting", ["epoch", "trunc", "validation"])
def test_unknown_setting_raises_when_made(setting):
    with pytest.raises(TypeError, match=setting):
        retrainer(**{setting: 1})


@pytest.mark.parametrize("every", [0, -2, 1.5])
def test_every_is_a_number_of_epochs(every):
    with pytest.raises(ValueError, match=f"`every`.*received {every}"):
        retrainer(every=every)


# ---- What would undo it. -------------------------------------------------------------


def warned(model, *callbacks, epochs=1):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, *callbacks, epochs=epochs, validation_data=(UNSEEN_X, UNSEEN_Y))
    messages = [str(warning.message) for warning in caught]
    return [m for m in messages if "retrain" in m.lower() or "undo" in m]


def early_stopping(restore_best_weights=True):
    return keras.callbacks.EarlyStopping(
        patience=1, restore_best_weights=restore_best_weights
    )


def test_early_stopping_before_it_leaves_the_retrained_head():
    """The best epoch is restored first, and its head is then retrained."""
    model, recorder = make_model(keras.optimizers.SGD(3.0)), Recorder()
    stopping = early_stopping()
    callback = adjuster(validation_data=(UNSEEN_X, UNSEEN_Y), monitor=None)
    fit(
        model,
        recorder,
        stopping,
        callback,
        epochs=20,
        validation_data=(UNSEEN_X, UNSEEN_Y),
    )
    assert stopping.stopped_epoch > 0  # it did stop, and restored an earlier epoch
    best = recorder.epochs[stopping.best_epoch]
    assert weights(model)[:2] == best[:2] != recorder.epochs[-1][:2]
    assert weights(model)[2:] != best[2:]
    assert score(model) == pytest.approx(callback.report.after["balanced_accuracy"])


def test_early_stopping_that_restores_after_the_last_retraining_gets_another():
    """With `every`, the epoch that stopped was retrained just before."""
    model, recorder = make_model(keras.optimizers.SGD(3.0)), Recorder()
    stopping = early_stopping()
    unseen = UNSEEN_X, UNSEEN_Y
    callback = adjuster(every=1, validation_data=unseen, monitor=None)
    fit(model, recorder, stopping, callback, epochs=20, validation_data=unseen)
    assert stopping.stopped_epoch > stopping.best_epoch
    best = recorder.epochs[stopping.best_epoch]
    assert weights(model)[:2] == best[:2] and weights(model)[2:] != best[2:]
    assert score(model) == pytest.approx(callback.report.after["balanced_accuracy"])


@pytest.mark.parametrize("every", [None, 1])
def test_a_report_of_weights_that_were_put_back_warns(every):
    """The best epoch is restored after the head was retrained."""
    model, unseen = make_model(), (UNSEEN_X, UNSEEN_Y)
    callback = adjuster(every=every, validation_data=unseen, monitor=None)
    stopping = keras.callbacks.EarlyStopping(
        "accuracy", mode="min", patience=1, restore_best_weights=True
    )
    fit(model, callback, stopping, epochs=4, validation_data=unseen)
    assert stopping.stopped_epoch > 0
    with pytest.warns(UserWarning, match="weights have changed since .* put the ret"):
        report = callback.report
    assert report.kept


def test_a_report_of_weights_as_they_are_does_not_warn():
    model, callback = make_model(), retrainer(monitor=None)
    fit(model, callback, early_stopping(), epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert callback.report.kept
        assert copy.deepcopy(callback).report is None
    model.layers[-1].bias.assign_add([1.0, 0.0, 0.0])
    with pytest.warns(UserWarning, match="further training"):
        assert callback.report.kept


# On jax Keras itself loses the averages in the `predict` or `fit` after a `fit`.
with_averages = pytest.mark.tensorflow(reason="a model that outlives its use_ema")


@with_averages
@pytest.mark.parametrize(
    ("every", "swap"),
    [
        (1, True),
        pytest.param(1, False, marks=pytest.mark.slow),
        pytest.param(None, False, marks=pytest.mark.slow),
        pytest.param(None, True, marks=pytest.mark.slow),
    ],
)
def test_report_is_of_the_head_that_averages_leave(every, swap):
    """They become the weights after the last epoch, and so after its retraining."""
    model = make_model(keras.optimizers.Adam(use_ema=True))
    before = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if swap else []
    unseen = UNSEEN_X, UNSEEN_Y
    callback = retrainer(every=every, validation_data=unseen, monitor=None, epochs=20)
    with pytest.warns(UserWarning, match="use_ema"):
        fit(model, *before, callback, epochs=2)
    assert score(model) == pytest.approx(callback.report.after["balanced_accuracy"])
    trunk, head = model.layers
    averages = {v.path: v.numpy() for v in model.optimizer.variables}
    at_end = {path: value for path, value in averages.items() if "average" in path}
    of_trunk, of_head = (
        [v for path, v in at_end.items() if f"{layer.name}_kernel" in path]
        for layer in (trunk, head)
    )
    np.testing.assert_array_equal(of_trunk[0], trunk.kernel)
    assert not np.array_equal(of_head[0], head.kernel)


@with_averages
def test_next_fit_does_what_is_warned_of():
    model = make_model(keras.optimizers.Adam(use_ema=True))
    with pytest.warns(UserWarning, match="the next `fit` would overwrite it"):
        fit(model, adjuster())
    retrained = weights(model)
    model.optimizer.learning_rate = 0.0
    fit(model)
    assert weights(model)[2:] != retrained[2:]

    model = make_model(keras.optimizers.Adam(use_ema=True))
    with pytest.warns(UserWarning, match="compile with a new optimizer before"):
        fit(model, adjuster())
    retrained = weights(model)
    optimizer = keras.optimizers.Adam(0.0)
    model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
    fit(model)
    assert weights(model) == retrained


def test_moving_averages_of_the_optimizer_are_warned_of():
    model = make_model(keras.optimizers.Adam(use_ema=True))
    (message,) = warned(model, adjuster(validation_data=None))
    assert "use_ema=True" in message and "compile with a new optimizer" in message


@pytest.mark.parametrize("given", [{}, {"blend": 0.4}])
def test_only_the_first_retraining_keeps_a_share_of_a_head_of_the_data(given):
    reports = []

    class Noted(PseudoFeatureHeadRetrainer):
        def _retrain(self):
            super()._retrain()
            reports.append(self.report)

    noted = Noted("features", (X, Y), every=1, epochs=1, verbose=0, **given)
    fit(make_model(), noted, epochs=3)
    blends = [report.recipe.blend for report in reports]
    assert blends == ([0.4] * 3 if given else [0.7, 0.0, 0.0])


# ---- What `fit` is given. ------------------------------------------------------------


class Later(keras.utils.PyDataset):
    """The unseen examples, in two batches."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return UNSEEN_X[index::2], UNSEEN_Y[index::2]


UNSEEN = {
    "arrays": (UNSEEN_X, UNSEEN_Y),
    "dataset": tf.data.Dataset.from_tensor_slices((UNSEEN_X, UNSEEN_Y)).batch(32),
    "PyDataset": Later(),
}


@pytest.fixture(scope="module")
def by_hand():
    """The report of a retraining that was given validation data of its own."""
    callback = adjuster(validation_data=(UNSEEN_X, UNSEEN_Y))
    fit(make_model(), callback, shuffle=False)
    return callback.report


@pytest.mark.parametrize("kind", UNSEEN)
def test_the_validation_data_of_fit_guard_the_retraining(kind, by_hand):
    by_fit = adjuster()
    fit(make_model(), by_fit, validation_data=UNSEEN[kind], shuffle=False)
    assert by_fit.report.scored_on == "validation data"
    assert by_fit.report.before["accuracy"] == pytest.approx(by_hand.before["accuracy"])
    assert by_fit.report.after["log_loss"] == pytest.approx(
        by_hand.after["log_loss"], rel=1e-5
    )


def test_no_guard_may_be_asked_for_where_fit_has_validation_data():
    without = adjuster(validation_data=None)
    fit(make_model(), without, validation_data=(UNSEEN_X, UNSEEN_Y))
    assert without.report.scored_on == "training data"


def test_a_search_takes_the_validation_data_of_fit():
    searching = retrainer(recipe="auto", epochs=3)
    fit(make_model(), searching, validation_data=(UNSEEN_X, UNSEEN_Y))
    assert searching.report.tuning.counts == np.bincount(UNSEEN_Y).tolist()


def test_a_search_without_validation_data_ends_after_one_epoch():
    recorder = Recorder()
    with pytest.raises(ValueError, match="'auto' chooses by validation data"):
        fit(make_model(), recorder, retrainer(recipe="auto"), epochs=9)
    assert len(recorder.epochs) == 1


@pytest.mark.parametrize(("verbose", "lines"), [(0, 0), (1, 3)])
def test_verbose_is_that_of_fit(verbose, lines, capsys):
    silent = PseudoFeatureHeadRetrainer("features", (X, Y), epochs=2)
    make_model().fit(X, Y, verbose=verbose, callbacks=[silent])
    titles = [
        line for line in capsys.readouterr().out.splitlines() if "features" in line
    ]
    assert len(titles) >= min(lines, 2) if lines else not titles


def test_scores_are_in_the_history_of_fit():
    callback = adjuster(validation_data=(UNSEEN_X, UNSEEN_Y), monitor=None)
    history = fit(make_model(), callback, epochs=2).history
    for name in ("accuracy", "log_loss"):
        first, last = history[f"retrained_{name}"]
        assert np.isnan(first) and last == callback.report.after[name]
    assert {len(values) for values in history.values()} == {2}


def test_with_every_the_scores_are_in_the_logs_of_each_epoch(tmp_path):
    callback = adjuster(every=2, validation_data=(UNSEEN_X, UNSEEN_Y), monitor=None)
    logger = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    history = fit(make_model(), callback, logger, epochs=4).history
    received = np.array(history["retrained_macro_f1"])
    assert np.isnan(received).tolist() == [True, False, True, False]
    assert received[3] == callback.report.after["macro_f1"]
    written = np.genfromtxt(tmp_path / "log.csv", delimiter=",", names=True)
    np.testing.assert_allclose(written["retrained_macro_f1"], received)


def test_a_retraining_that_fails_late_leaves_the_history_of_fit():
    """A label that is no class in a later batch: only reading it tells."""
    late = np.where(np.arange(len(Y)) == 110, 7, Y)
    broken = tf.data.Dataset.from_tensor_slices((X, late)).batch(50)
    model, callback = make_model(), retrainer(data=broken, per_class=None)
    recorder = Recorder()
    with pytest.warns(UserWarning, match="is not retrained.*ValueError.*label 7"):
        history = fit(model, recorder, callback, epochs=2)
    assert len(history.history["loss"]) == 2 and callback.report is None
    assert weights(model) == recorder.epochs[-1]


# ---- What `fit` bounds. --------------------------------------------------------------


class Endless:
    """The examples in batches of 40, over and over, counted."""

    def __init__(self, x=X, y=Y, last=10**6):
        self.x, self.y, self.last, self.given = x, y, last, 0

    def __call__(self):
        for number in range(self.last):
            self.given += 1
            rows = slice(number % 3 * 40, (number % 3 + 1) * 40)
            yield self.x[rows], self.y[rows]

    def dataset(self):
        signature = tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int64)
        return tf.data.Dataset.from_generator(self, output_signature=signature)


class Items(keras.utils.PyDataset):
    """The same by index; `num_batches` of None is no end."""

    num_batches = None

    def __init__(self, x=X, y=Y):
        super().__init__()
        self.x, self.y = x, y

    def __getitem__(self, index):
        assert index < 1000, "it is read for ever"
        rows = slice(index % 3 * 40, (index % 3 + 1) * 40)
        return self.x[rows], self.y[rows]


UNBOUNDED = {
    "unknown": lambda: Endless(last=500).dataset(),
    "infinite": lambda: Endless(last=3).dataset().repeat(),
    "PyDataset": Items,
}
DATASET = tf.data.Dataset.from_tensor_slices((X, Y)).batch(40)
PLAINLY = {"per_class": None, "augment": None}


@pytest.mark.parametrize("kind", UNBOUNDED)
def test_of_data_with_no_end_as_many_batches_as_an_epoch_of_fit_are_read(kind):
    data, model = UNBOUNDED[kind](), make_model()
    callbacks = [trained := Recorder(), callback := adjuster(data=data, **PLAINLY)]
    model.fit(data, steps_per_epoch=4, epochs=2, callbacks=callbacks, verbose=0)
    assert sum(callback.report.real) == 160 and callback.report.kept
    plain = make_model()
    plain.set_weights(trained.last)
    settings = {**UNTRAINED, **PLAINLY}
    report = retrain_head(plain, "features", data, steps=4, **settings)
    assert weights(plain) == weights(model)
    assert report.before == callback.report.before  # of the same features


@pytest.mark.parametrize("how", ["steps", "extraction"])
@pytest.mark.parametrize("kind", UNBOUNDED)
def test_steps_go_before_those_of_fit(kind, how):
    given = {"steps": 2} if how == "steps" else {"extraction": Extraction(steps=2)}
    callback = adjuster(data=UNBOUNDED[kind](), **given)
    fit(make_model(), callback)
    assert sum(callback.report.real) == 80


def test_data_with_an_end_are_read_to_it():
    """Also where `fit` takes fewer steps, or knows of none."""
    known = tf.data.Dataset.from_tensor_slices((X, Y)).batch(40)
    unknown = known.filter(lambda *_: True)
    for data, given, steps in (
        ((X, Y), {}, 1),
        (known, {}, 1),
        (unknown, {}, None),
        (unknown, {"steps": None}, 1),
    ):
        callback = adjuster(data=data, **given)
        make_model().fit(
            data if steps is None else known,
            steps_per_epoch=steps,
            callbacks=[callback],
            verbose=0,
        )
        assert callback.report.real == [80, 30, 10]


@pytest.mark.parametrize("kind", ["unknown", "infinite", "PyDataset"])
def test_of_the_validation_data_of_fit_its_steps_are_read(kind, by_hand):
    unseen = Endless(UNSEEN_X, UNSEEN_Y, last=3 if kind == "infinite" else 500)
    data = {
        "unknown": unseen.dataset,
        "infinite": lambda: unseen.dataset().repeat(),
        "PyDataset": lambda: Items(UNSEEN_X, UNSEEN_Y),
    }[kind]()
    callback = adjuster()
    fit(make_model(), callback, validation_data=data, validation_steps=3, shuffle=False)
    assert callback.report.scored_on == "validation data"
    assert callback.report.before["accuracy"] == pytest.approx(
        by_hand.before["accuracy"]
    )


def test_a_generator_for_validation_is_no_guard_and_is_told_of():
    """Read again by the retraining, it would give other batches, and `fit` fewer."""
    unseen = Endless(UNSEEN_X, UNSEEN_Y)
    callback = adjuster(every=1)
    with pytest.warns(UserWarning, match="only once: the retraining has no guard"):
        fit(
            make_model(),
            callback,
            validation_data=unseen(),
            validation_steps=3,
            epochs=2,
        )
    assert callback.report.scored_on == "training data"
    assert unseen.given <= 9
    given = adjuster(validation_data=(UNSEEN_X, UNSEEN_Y))
    fit(make_model(), given, validation_data=unseen(), validation_steps=3)
    assert given.report.scored_on == "validation data"
    model, searching = make_model(), retrainer(recipe="auto")
    with (
        pytest.raises(ValueError, match="'auto' chooses by validation data"),
        pytest.warns(UserWarning, match="has no guard"),
    ):
        fit(model, searching, validation_data=unseen(), validation_steps=3)


def test_a_generator_as_data_raises_before_a_step():
    model = make_model()
    with pytest.raises(TypeError, match="generator, which can be iterated"):
        fit(model, retrainer(data=Endless()()))
    assert int(model.optimizer.iterations) == 0


# ---- Copies. -------------------------------------------------------------------------


@pytest.mark.parametrize("fitted", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param((X, Y), id="arrays", marks=pytest.mark.slow),
        pytest.param(DATASET, id="dataset"),
    ],
)
def test_a_deep_copy_is_for_another_fit(data, fitted):
    """As KerasTuner makes one for every trial."""
    optimizer = keras.optimizers.Adam(0.01)
    unseen = UNSEEN["dataset"]
    callback = retrainer(
        data=data, validation_data=unseen, optimizer=optimizer, every=2, monitor=None
    )
    if fitted:
        fit(make_model(), callback)
        first = callback.report
    (copied,) = copy.deepcopy([callback])
    assert type(copied) is type(callback) and copied.data is data
    assert (
        copied.settings == callback.settings
        and copied.settings is not callback.settings
    )
    assert copied.settings["validation_data"] is unseen
    assert (copied.layer, copied.every) == ("features", 2)
    assert copied.report is None and copied.model is None
    assert callback.report is (first if fitted else None)
    one, two = make_model(), make_model()
    fit(one, copied, shuffle=False)
    assert callback.report is (first if fitted else None)
    fit(two, callback, shuffle=False)
    assert weights(one) == weights(two) and copied.report.after == callback.report.after
    assert copied.report is not callback.report and copied.model is one


@pytest.mark.parametrize(
    "how", [pytest.param("optimizer", marks=pytest.mark.slow), "recipe"]
)
def test_an_optimizer_trains_the_heads_of_two_fits(how):
    optimizer = keras.optimizers.Adam(0.01)
    given = optimizer if how == "optimizer" else HeadRecipe(optimizer=optimizer)
    callback, ends = retrainer(**{how: given}), []
    for _ in range(2):
        fit(model := make_model(), callback)
        ends.append(weights(model))
    assert ends[0] == ends[1] and not optimizer.built


def test_a_deep_copy_takes_nothing_of_a_fit_along():
    callback = adjuster()
    fit(make_model(), callback, validation_data=(UNSEEN_X, UNSEEN_Y))
    copied = copy.deepcopy(callback)
    fit(make_model(), copied)
    assert copied.report.scored_on == "training data"


def test_a_deep_copy_of_a_subclass_with_a_split():
    class Noted(PseudoFeatureHeadRetrainer):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            self.notes = []

        def on_train_end(self, logs=None):
            super().on_train_end(logs)
            self.notes.append(self.report.after)

    model = make_model()
    noted = Noted(split_at(model, "features"), DATASET, **UNTRAINED)
    copied = copy.deepcopy(noted)
    fit(model, copied)
    assert len(copied.notes) == 1 and noted.notes == []


def test_a_last_retraining_after_the_logs_takes_the_place_of_their_last_score():
    """With every=2 and three epochs the third has none until the training ends."""
    callback = adjuster(every=2, validation_data=(UNSEEN_X, UNSEEN_Y), monitor=None)
    history = fit(make_model(), callback, epochs=3).history
    assert {len(values) for values in history.values()} == {3}
    received = history["retrained_macro_f1"]
    assert np.isnan(received).tolist() == [True, False, False]
    assert received[2] == callback.report.after["macro_f1"]


def test_a_callback_without_data_says_where_they_come_from():
    with pytest.raises(ValueError, match="does not pass.*PseudoFeatureClas"):
        PseudoFeatureHeadRetrainer("features", None)
