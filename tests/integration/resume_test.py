"""A job that is killed goes on and loses nothing; `kill_the_main_job.py` kills more."""

import itertools
import signal

import keras
import numpy as np
import pytest
from keras import layers

from examples.data import training_stream
from examples.resume import EpochBackup, restore, skip_epochs
from tests.each_backend import needs_savedmodel
from tests.kill_the_main_job import Job, Kill, plans, run_job
from tf_pseudofeat.core.files import whole_file

RNG = np.random.default_rng(0)
X = RNG.integers(256, size=(32, 4, 4, 1)).astype("uint8")
Y = np.arange(32) % 2


def make_model(units=4):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((4, 4, 1))
    x = layers.BatchNormalization()(layers.Dense(units)(layers.Flatten()(x)))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    rate = keras.optimizers.schedules.CosineDecay(0.1, 16)
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(rate), loss, jit_compile=False)
    return model


def fit(model, folder, epochs=4):
    """Trains up to so many epochs; returns those that were done before."""
    stream = training_stream(X, Y, batch_size=8, augment="shift", seed=1)
    done = restore(model, folder)
    skip_epochs(stream, done)
    settings = {"initial_epoch": done, "epochs": epochs, "shuffle": False, "verbose": 0}
    model.fit(stream, callbacks=[EpochBackup(folder)], **settings)
    return done


def state(model):
    return [v.numpy().tobytes() for v in (*model.variables, *model.optimizer.variables)]


# ---- Whole files. --------------------------------------------------------------------


def test_a_file_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")
    with whole_file(path) as aside:
        assert aside.suffix == ".keras"
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_where_writing_fails_the_old_file_stays(tmp_path, error):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(error, match="in the middle"), whole_file(path) as aside:
        aside.write_text("ha")
        raise error("in the middle")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# ---- Epochs. -------------------------------------------------------------------------


def test_a_training_in_two_parts_is_one_training(tmp_path):
    whole, first, second = make_model(), make_model(), make_model()
    assert fit(whole, tmp_path / "whole") == 0
    assert fit(first, tmp_path / "parts", epochs=2) == 0
    assert fit(second, tmp_path / "parts") == 2
    assert state(second) == state(whole) != state(first)


def test_only_the_last_epoch_stays_and_a_torn_one_does_not_count(tmp_path):
    model = make_model()
    fit(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch-4.keras"]
    (tmp_path / "epoch-12.keras").write_bytes((tmp_path / "epoch-4.keras").read_bytes())
    (tmp_path / ".unfinished-epoch-13.keras").write_bytes(b"PK")
    again = make_model()
    assert restore(again, tmp_path) == 12  # not by the alphabet
    assert state(again) == state(model)


def test_a_backup_of_another_model_raises_and_named(tmp_path):
    fit(make_model(), tmp_path, epochs=1)
    with pytest.raises(ValueError, match=r"epoch-1.keras is not of this.*Delete it"):
        restore(make_model(units=5), tmp_path)


# ---- The main job. -------------------------------------------------------------------


def test_what_is_half_there_is_counted_as_lost(tmp_path):
    job = Job(tmp_path)
    job.check()
    assert not job.losses
    make_model().save(tmp_path / "whole.keras")
    model = (tmp_path / "whole.keras").read_bytes()
    (tmp_path / "trained.keras").write_bytes(model[: len(model) // 2])
    (tmp_path / "report.json").write_text('{"report": {"after"')
    (tmp_path / "report.png").write_bytes(b"\x89PNG")
    (tmp_path / "served" / "2").mkdir()
    job.check_end(reference=None)
    for name in ("trained.keras: ", "report.json: ", "report.png: ", "served/2: "):
        assert any(name in loss for loss in job.losses), job.losses
    assert "versions ['1', '2'] were served" in job.losses
    assert "left behind: ['whole.keras']" in job.losses


@pytest.mark.slow
@needs_savedmodel
def test_the_main_job_goes_on_after_kills(tmp_path):
    kills = [
        Kill(None, 2),  # before the second epoch is in place
        Kill("retraining", 0.6, signal.SIGINT),
        Kill(None, 5),  # between the two versions for the server
    ]
    job = run_job(tmp_path, kills)
    assert not job.losses
    assert job.kills == [
        "before the move to unfinished-*/epoch-*.keras",
        "retraining, SIGINT",
        "before the move to served/*",
    ]


@pytest.mark.slow
def test_no_kill_of_the_main_job_loses_anything(tmp_path):
    reference = run_job(tmp_path / "reference", []).report()
    for number, kills in enumerate(itertools.islice(plans(seed=1), 4)):
        job = run_job(tmp_path / str(number), kills, reference)
        assert not job.losses
        assert job.kills
