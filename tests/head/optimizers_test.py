"""Tests for optimizers.py: what the model's optimizer was told holds for the head's."""

import keras
import numpy as np
import pytest

import tf_pseudofeat as tfpf
from tests.small_models import small_classifier
from tf_pseudofeat.head.optimizers import fresh_copy, head_optimizer

X = np.random.default_rng(0).normal(size=(90, 4)).astype("float32")
Y = np.repeat([0, 1, 2], [50, 30, 10])


class WithoutConfig(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.01


@pytest.mark.parametrize("again", [fresh_copy, lambda old: head_optimizer(9, like=old)])
def test_what_is_excluded_from_weight_decay_stays_excluded(again):
    model = small_classifier()
    old = keras.optimizers.AdamW(weight_decay=0.5)
    kernel, bias = model.layers[-1].trainable_variables
    first = model.layers[0].kernel
    old.exclude_from_weight_decay(var_list=[first], var_names=["bias"])
    new = again(old)
    assert new is not old
    assert [new._use_weight_decay(v) for v in (kernel, bias, first)] == [
        True,
        False,
        False,
    ]


@pytest.mark.integration
def test_an_optimizer_that_cannot_be_made_again_is_told_before_any_work():
    model = small_classifier(optimizer=keras.optimizers.Adam(WithoutConfig()))
    message = (
        r"cannot be created like the model's own Adam: .*'WithoutConfig'.*`optimizer`"
    )
    with pytest.raises(ValueError, match=message):
        tfpf.retrain_head(model, "features", (X, Y), verbose=0)
    retrainer = tfpf.PseudoFeatureHeadRetrainer("features", (X, Y), verbose=0)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, verbose=0, callbacks=[retrainer])
    assert int(model.optimizer.iterations) == 0
    report = tfpf.retrain_head(
        model, "features", (X, Y), optimizer="adam", epochs=1, verbose=0
    )
    assert report.optimizer == "Adam"
