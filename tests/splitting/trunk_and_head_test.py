"""Tests for trunk_and_head.py: the two halves, and how they are compared."""

import keras
import numpy as np
import pytest
from keras import layers

from tf_pseudofeat.splitting.split_at import split_at
from tf_pseudofeat.splitting.trunk_and_head import Split

X = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")


def dense_model(**last):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, name="features"),
            layers.Dense(2, "softmax", **last),
        ]
    )


def test_it_unpacks_and_is_called_as_its_trunk():
    trunk, head = keras.Sequential(name="below"), keras.Sequential()
    split = Split(trunk, head)
    assert [*split] == [trunk, head] and split.layer_name == "below"
    assert Split(trunk, head, layer_name="a").layer_name == "a"


def test_halves_of_the_model_differ_by_nothing():
    model = dense_model()
    largest, features, outputs = split_at(model, "features").compare(model, X)
    assert largest == 0
    np.testing.assert_allclose(features, model.layers[0](X), rtol=1e-6)
    np.testing.assert_allclose(outputs[0], model(X), rtol=1e-6)


def test_halves_of_another_model_differ_and_a_tolerance_may_allow_it():
    model, other = dense_model(), dense_model()
    other.layers[1].bias.assign([0.0, 0.1])
    split = split_at(other, "features")
    with pytest.raises(ValueError, match=r"is not model\(x\) for the split at 'featur"):
        split.check(model, X)
    assert 0.01 < split.check(model, X, tolerance=0.1) < 0.1


def test_another_number_of_outputs_needs_the_one_that_is_meant():
    trunk, head = split_at(dense_model(), "features")
    two = keras.Model(trunk.inputs, [head(trunk.outputs[0])] * 2)
    with pytest.raises(
        ValueError, match="has 1 outputs, the model 2: .* needs output="
    ):
        Split(trunk, head).check(two, X)


def test_an_overflow_counts_as_equal_before_training_only():
    model = dense_model()
    model.layers[0].kernel.assign(np.full((3, 4), 3e38, "float32"))
    split = split_at(model, "features")
    with pytest.raises(ValueError, match="at 'features' are NaN or infinite"):
        split.check(model, 9 + abs(X))
    assert split.check(model, 9 + abs(X), trained=False) == 0


class Doubled(keras.Sequential):
    def predict(self, x, **settings):
        return 2 * super().predict(x, **settings)


def test_a_predict_of_ones_own_is_compared_too():
    model = Doubled(dense_model().layers, name="doubled")
    model.build((None, 3))
    with pytest.raises(
        ValueError, match=r"is not model.predict\(x\).*Doubled 'doubled'"
    ):
        split_at(model, "features").check(model, X)
