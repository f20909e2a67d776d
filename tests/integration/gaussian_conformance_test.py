"""Keras' own conformance test of a layer, run on `ClassConditionalGaussian`."""

import pytest

# Keras keeps `run_layer_test` in its private part; there is no public one.
from keras.src.testing import TestCase

from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.covariance import COVARIANCE_TYPES


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("shape", [(6, 5), (6, 2, 3)], ids=["vector", "map"])
def test_the_layer_is_one_that_keras_accepts(covariance_type, shape):
    TestCase().run_layer_test(
        ClassConditionalGaussian,
        init_kwargs={
            "num_classes": 3,
            "covariance_type": covariance_type,
            "covariance_scale": 2.0,
        },
        input_shape=shape,
        expected_output_shape=(6, 3),
        expected_num_trainable_weights=0,
        expected_num_non_trainable_weights=7 if covariance_type == "low_rank" else 6,
        supports_masking=False,
    )
