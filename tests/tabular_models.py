"""Classifiers of a real table, trained and exported, for the tests of serving."""

import functools

import keras
import numpy as np
from sklearn.datasets import load_breast_cancer

from tf_pseudofeat.serving.export import export_classifier

__all__ = [
    "NAMES",
    "ROWS",
    "columns",
    "columns_model",
    "export_columns",
    "export_matrix",
    "matrix_model",
]

_DATA = load_breast_cancer()
ROWS = _DATA.data.astype("float32")  # [569, 30]
NAMES = [str(name) for name in _DATA.target_names]
_COLUMNS = ("mean radius", "mean texture", "worst area")


def columns(rows=slice(None)):
    """{input: array [B, 1]}, what the model with named inputs takes."""
    places = [list(_DATA.feature_names).index(name) for name in _COLUMNS]
    return {
        name.replace(" ", "_"): ROWS[rows, place : place + 1]
        for name, place in zip(_COLUMNS, places, strict=True)
    }


def export_matrix(folder, seeds=(0,)):
    """One version for each seed of `matrix_model`; the Keras models in a list."""
    models = [matrix_model(seed) for seed in seeds]
    for model in models:
        export_classifier(model, folder, class_names=NAMES)
    return models


def export_columns(folder):
    """A version of `columns_model`; the Keras model."""
    model = columns_model()
    export_classifier(model, folder, class_names=NAMES)
    return model


@functools.cache
def matrix_model(seed):
    """A model that takes `features` [B, 30], the same one for a seed."""
    keras.utils.set_random_seed(seed)
    scale = keras.layers.Normalization()
    scale.adapt(ROWS)
    outputs = keras.layers.Dense(2, activation="softmax")
    return _trained(keras.Sequential([keras.Input((30,)), scale, outputs]), ROWS)


@functools.cache
def columns_model():
    """A model that takes three inputs [B, 1] by name."""
    keras.utils.set_random_seed(0)
    inputs = {name: keras.Input((1,), name=name) for name in columns()}
    scale = keras.layers.Normalization()
    scale.adapt(np.concatenate(list(columns().values()), axis=1))
    together = scale(keras.layers.Concatenate()(list(inputs.values())))
    outputs = keras.layers.Dense(2, activation="softmax")(together)
    return _trained(keras.Model(inputs, outputs), columns())


def _trained(model, x):
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, _DATA.target, epochs=3, verbose=0)
    return model
