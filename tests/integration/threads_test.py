"""Retrainings in several threads, and an interrupt at any moment of one."""

import sys
import threading

import keras
import numpy as np
import pytest

import tf_pseudofeat as tfpf
from tests.model_state import bits
from tests.small_models import small_classifier
from tf_pseudofeat.head.weights import _TRAINED, rollback_unless_committed
from tf_pseudofeat.splitting.split_at import split_at

RNG = np.random.default_rng(0)
X = RNG.normal(size=(120, 4)).astype("float32")
Y = np.repeat([0, 1, 2], [70, 30, 20])
X[np.arange(120), Y] += 1


def make_model(seed=0, dropout=0.2):
    return small_classifier(between=[keras.layers.Dropout(dropout)], seed=seed)


def retrain(model, **settings):
    settings = {"epochs": 3, "verbose": 0, "monitor": None} | settings
    return tfpf.retrain_head(model, "features", (X, Y), **settings)


def in_thread(function):
    """Runs a function in another thread; returns what it raised, or None."""
    raised = []

    def run():
        try:
            function()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised[0] if raised else None


HEAD = "tf_pseudofeat.head.fit"


# One model, several threads.


@pytest.mark.parametrize(
    "work",
    [
        lambda model: retrain(model),
        lambda model: retrain(model, blend=1, tau=1),
        lambda model: tfpf.tune(model, "features", (X, Y), (X, Y), verbose=0),
        lambda model: tfpf.diagnose(model, "features", (X, Y), (X, Y), verbose=0),
    ],
    ids=["retrain", "no training", "tune", "diagnose"],
)
def test_a_head_is_trained_by_one_thread_at_a_time(work):
    """The other comes when the first extracts, long before it trains."""
    model, raised = make_model(), []

    def meanwhile(x):
        if not raised:
            before = model.get_weights()
            raised.append(in_thread(lambda: work(model)))
            after = model.get_weights()
            for old, new in zip(before, after, strict=True):
                np.testing.assert_array_equal(old, new)
        return x

    augment = _from_the_second_call_on(meanwhile)
    assert retrain(model, augment=augment, views=1, blend=1, tau=1).kept
    assert isinstance(raised[0], RuntimeError)
    assert "is being retrained by another thread" in str(raised[0])
    assert not _TRAINED
    assert in_thread(lambda: work(model)) is None  # now it is free


def _from_the_second_call_on(function):
    """The first call is that of the check."""
    calls = []

    def augment(x):
        calls.append(1)
        return function(x) if len(calls) > 1 else x

    return augment


def test_heads_that_share_a_layer_are_not_trained_at_once():
    model = make_model()
    last = keras.Sequential([keras.Input((5,)), model.layers[-1]])
    head = split_at(model, "features").head
    with rollback_unless_committed(head):
        error = in_thread(lambda: rollback_unless_committed(last).__enter__())
        with rollback_unless_committed(last):  # of this thread
            pass
        assert len(_TRAINED) == len(head.trainable_variables)
    assert isinstance(error, RuntimeError)
    assert not _TRAINED


def test_heads_of_one_trunk_are_trained_at_once():
    model = make_model()
    other = keras.layers.Dense(3, activation="softmax")
    second = keras.Model(model.inputs, other(model.get_layer("features").output))
    second.compile("sgd", "sparse_categorical_crossentropy")
    raised = []

    def meanwhile(x):
        raised.append(in_thread(lambda: retrain(second)))
        return x

    retrain(model, augment=_from_the_second_call_on(meanwhile), views=1)
    assert raised[0] is None


def test_models_that_share_a_frozen_trunk_are_retrained_at_once():
    """Also where the head has a frozen part of it."""
    keras.utils.set_random_seed(0)
    trunk = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(6, name="f1"), keras.layers.Dense(5)],
        name="trunk",
    )
    trunk.trainable = False
    models = []
    for _ in range(2):
        layers = [keras.Input((4,)), trunk, keras.layers.Dense(3, activation="softmax")]
        model = keras.Sequential(layers)
        model.compile("sgd", "sparse_categorical_crossentropy")
        models.append(model)
    raised = []

    def retrain_at(model, **settings):
        settings = {"epochs": 1, "verbose": 0, **settings}
        return tfpf.retrain_head(model, "trunk/f1", (X, Y), **settings)

    def meanwhile(x):
        raised.append(in_thread(lambda: retrain_at(models[1])))
        return x

    retrain_at(models[0], augment=_from_the_second_call_on(meanwhile), views=1)
    assert raised[0] is None


# Several models, a thread for each.


@pytest.mark.parametrize(
    "settings, times",
    [
        pytest.param({}, 1, marks=pytest.mark.slow),
        ({"fresh_head": True}, 2),  # new weights take more that threads share
    ],
    ids=["warm", "fresh"],
)
def test_threads_do_not_change_what_a_seed_gives(settings, times):
    models = [make_model(seed) for seed in range(3)]
    before = [model.get_weights() for model in models]

    def retrained(run):
        for model, weights in zip(models, before, strict=True):
            model.set_weights(weights)
        run()
        return [model.get_weights() for model in models]

    def one_by_one():
        for number, model in enumerate(models):
            retrain(model, seed=(number, 0), **settings)

    def at_once():
        starts = threading.Barrier(len(models))

        def run(number, model):
            starts.wait()
            retrain(model, seed=(number, 0), **settings)

        threads = [
            threading.Thread(target=run, args=item) for item in enumerate(models)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    alone = retrained(one_by_one)
    for _ in range(times):
        for mine, theirs in zip(alone, retrained(at_once), strict=True):
            for one, other in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(one, other)


# An interrupt at any line.


class Interrupting:
    """Raises KeyboardInterrupt at one line of the package, after the head changed."""

    def __init__(self, at=None):
        self.lines, self._at, self._changed = [], at, False

    def __call__(self, frame, event, arg):
        module, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        self._changed = self._changed or (module, function) == (HEAD, "_prior")
        if not module.startswith("tf_pseudofeat."):
            return None
        # The last line of all is after the commit, and the way back is not interrupted.
        if function == "retrain_head" or module == "tf_pseudofeat.head.weights":
            return None
        return self._line

    def _line(self, frame, event, arg):
        if event == "line" and self._changed:
            if len(self.lines) == self._at:
                sys.settrace(None)
                raise KeyboardInterrupt
            self.lines.append((frame.f_globals["__name__"], frame.f_lineno))
        return self._line


def traced(model, tracer):
    old = sys.gettrace()
    sys.settrace(tracer)
    try:
        return retrain(model, blend=1, tau=1, validation_data=(X, Y))
    finally:
        sys.settrace(old)


def test_an_interrupt_at_any_line_puts_the_old_head_back():
    model = make_model()
    before = model.get_weights()
    everything = Interrupting()
    assert traced(model, everything).kept
    total = len(everything.lines)
    modules = {name for name, _ in everything.lines}
    reached = ("head.fit", "evaluation.judge", "retraining.retrain")
    assert {f"tf_pseudofeat.{m}" for m in reached} <= modules
    places = {*np.linspace(0, total - 1, 6).astype(int), *range(total - 6, total)}
    for place in sorted(places):
        model.set_weights(before)
        old, interrupting = bits(model.variables), Interrupting(at=place)
        with pytest.raises(KeyboardInterrupt):
            traced(model, interrupting)
        assert bits(model.variables) == old, everything.lines[place]
    assert not _TRAINED
