"""Tests for perceptron.py: the network of a table."""

import numpy as np

from tf_pseudofeat.retraining.perceptron import build_perceptron
from tf_pseudofeat.splitting.separating import separating_layers


def test_it_gives_probabilities_of_rows_and_has_a_layer_of_features():
    for shape in ((7,), (2, 3)):
        model = build_perceptron(shape, 4)
        outputs = np.asarray(model(np.ones((5, *shape))))
        assert outputs.shape == (5, 4)
        np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)
        assert separating_layers(model).usual.layer_name == "features"
        assert model.loss == "sparse_categorical_crossentropy"
