"""Tests for early_checks.py: it tells what would fail, and nothing else.

What it tells is in the tables of bad_inputs_test.py.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from imblearn.combine import SMOTEENN
from imblearn.over_sampling import ADASYN, SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import NearMiss, RandomUnderSampler, TomekLinks
from keras import layers

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.extraction.options import Extraction
from tf_pseudofeat.head.material import prepare_material
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.retraining.callback import PseudoFeatureHeadRetrainer
from tf_pseudofeat.retraining.early_checks import check_before_extraction, known_counts
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.retraining.task import resolve_task
from tf_pseudofeat.sampling.oversamplers import (
    GaussianOverSampler,
    PerturbedOverSampler,
)

RNG = np.random.default_rng(0)
Y = RNG.permutation(np.repeat([0, 1, 2], [60, 30, 10]))
X = RNG.normal(size=(100, 4)).astype("float32")
PLAIN = Extraction.plain()


def test_counts_are_those_of_what_is_read_and_weighs():
    for labels in (Y, Y[:, None], np.eye(3)[Y], tf.constant(Y)):
        assert known_counts((X, labels), PLAIN, 3).tolist() == [60, 30, 10]
    weight = np.where(Y == 1, 0.0, 0.5)
    assert known_counts((X, Y, weight), PLAIN, 4).tolist() == [60, 0, 10, 0]
    some = Extraction(steps=2, batch_size=20)
    wanted = np.bincount(Y[:40], minlength=3).tolist()
    assert known_counts([X, Y, None], some, 3).tolist() == wanted


def test_counts_of_a_dataset_are_not_known():
    order = np.argsort(Y)
    data = tf.data.Dataset.from_tensor_slices((X[order], Y[order])).batch(20)
    assert known_counts(data, PLAIN, 3) is None
    check_before_extraction(HeadRecipe(), 3, (4,), None, most=None, views=1)


SOURCES = [
    *({"gaussian": {"covariance_type": kind}} for kind in ("full", "tied", "low_rank")),
    *({"sampling_strategy": given} for given in ("minority", {0: 60, 2: 11})),
    *(
        {"sampler": sampler}
        for sampler in (
            *(SMOTE(), SMOTE(k_neighbors=2), SMOTE(sampling_strategy={0: 70})),
            *(ADASYN(n_neighbors=3), SMOTEENN(), SMOTEENN(smote=SMOTE(k_neighbors=1))),
            *(RandomOverSampler(), RandomUnderSampler(), TomekLinks(), NearMiss()),
            *(GaussianOverSampler(), GaussianOverSampler(covariance_type="tied")),
            *(PerturbedOverSampler(), make_pipeline(SMOTE(), TomekLinks())),
            make_pipeline(RandomOverSampler(), SMOTE()),
        )
    ),
]


@pytest.mark.parametrize("settings", SOURCES, ids=str)
@pytest.mark.parametrize("rare", [1, 2, 3, 4, 5, 6])
def test_what_is_told_is_what_would_fail(settings, rare):
    rows = np.flatnonzero((Y < 2) | (np.cumsum(Y == 2) <= rare))
    data, recipe = LabeledFeatures(X[rows], Y[rows]), HeadRecipe(**settings)
    told = failed = False
    try:
        counts = data.class_counts(3)
        check_before_extraction(recipe, 3, (4,), counts, most=None, views=1)
    except ValueError:
        told = True
    try:
        prepare_material(data, recipe, 3)
    except (ValueError, RuntimeError):
        failed = True
    # NearMiss needs three of the smallest class; that is not looked at.
    assert told == failed or isinstance(recipe.sampler, NearMiss)


def test_views_count_as_examples_of_their_own():
    recipe = HeadRecipe(sampler=SMOTE(sampling_strategy={2: 9}, k_neighbors=7))
    counts = np.array([60, 30, 4])
    check_before_extraction(recipe, 3, (4,), counts, most=None, views=2)
    with pytest.raises(ValueError, match="needs 8, but class 2 has 4"):
        check_before_extraction(recipe, 3, (4,), counts, most=None, views=1)
    with pytest.raises(ValueError, match=r"needs 8, but class 1 has 6 .*\[1, 2\]"):
        check_before_extraction(
            *(
                HeadRecipe(
                    sampler=SMOTE(sampling_strategy={1: 9, 2: 9}, k_neighbors=7)
                ),
                3,
                (4,),
            ),
            *(counts, 3, 2),
        )


def wide_model():
    """200,000 features, and no weight for each of them."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.RepeatVector(50_000, name="features"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


@pytest.mark.integration
@pytest.mark.parametrize(
    "settings",
    [{"gaussian": {}}, {"sampler": GaussianOverSampler()}],
    ids=["gaussian", "sampler"],
)
def test_covariances_beyond_memory_are_told_before_anything_is_extracted(
    settings, capsys
):
    model = wide_model()
    message = "need 894.1 GiB in float64; this machine has .*low_rank.*tied.*diag"
    with pytest.raises(ValueError, match=message):
        retrain_head(model, "features", (X, Y), verbose=1, **settings)
    retrainer = PseudoFeatureHeadRetrainer("features", (X, Y), **settings)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, verbose=0, callbacks=[retrainer])
    assert not capsys.readouterr().out and int(model.optimizer.iterations) == 0
    resolve_task(model, "features", (X, Y), gaussian={"covariance_type": "diag"})


def test_a_first_batch_of_one_class_is_not_all_of_a_dataset():
    order = np.argsort(Y)
    data = tf.data.Dataset.from_tensor_slices((X[order], Y[order])).batch(20)
    resolve_task(wide_model(), "features", data, gaussian={"covariance_type": "diag"})


def test_one_class_of_a_dataset_is_told_when_it_is_read():
    data = tf.data.Dataset.from_tensor_slices((X, 0 * Y)).batch(20)
    diag = {"covariance_type": "diag"}
    with pytest.raises(
        ValueError, match="All 100 examples are of class 0, one class o"
    ):
        retrain_head(wide_model(), "features", data, gaussian=diag, verbose=0)
