"""Every Python block of the README, run in order on real digits and a real network."""

import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

import tf_pseudofeat as tfpf

_README = pathlib.Path(__file__).parent.parent / "README.md"


def python_blocks():
    return re.findall(r"^```python\n(.*?)^```$", _README.read_text(), re.S | re.M)


@pytest.fixture
def session():
    """What a reader has at hand: a compiled model and two datasets."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    x, y = digits.images[..., np.newaxis].astype("float32") / 16, digits.target
    held_out = np.arange(len(y)) % 3 == 0
    rank = np.array([np.sum(y[:i] == label) for i, label in enumerate(y)])
    train = ~held_out & ((y < 5) | (rank < 20))

    def dataset(rows):
        return tf.data.Dataset.from_tensor_slices((x[rows], y[rows])).batch(64)

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu", name="features"),
            keras.layers.Dense(10, activation="softmax", name="disease"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    model.fit(dataset(train), epochs=40, verbose=0)
    return {"model": model, "train_ds": dataset(train), "val_ds": dataset(held_out)}


def test_the_readme_runs_as_written(session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks()
    assert len(blocks) >= 3
    trained = session["model"].get_weights()
    for block in blocks:
        session["model"].set_weights(trained)
        exec(
            compile(block.replace("epochs=100", "epochs=20"), "README.md", "exec"),
            session,
        )
    assert isinstance(session["retrainer"].report, tfpf.RetrainingReport)
    assert (tmp_path / "served" / "1" / "saved_model.pb").exists()
    assert isinstance(session["report"], tfpf.RetrainingReport)
    assert len(session["thresholds"].bias) == len(session["names"]) == 10
