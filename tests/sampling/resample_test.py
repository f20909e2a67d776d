"""Tests for resample.py: every sampler of imbalanced-learn, and what is no sampler."""

import warnings

import keras
import numpy as np
import pytest
from imblearn import FunctionSampler, combine, over_sampling, under_sampling
from imblearn.pipeline import make_pipeline
from imblearn.utils.testing import all_estimators
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.sampling.oversamplers import (
    GaussianOverSampler,
    PerturbedOverSampler,
)
from tf_pseudofeat.sampling.resample import resample

RNG = np.random.default_rng(0)
Y = RNG.permutation(np.repeat([0, 1, 2], [120, 60, 30]))
X = (RNG.normal(size=(210, 4)) + 1.5 * np.eye(4)[Y]).astype("float32")
X = np.maximum(X, 0)  # as after a ReLU
CATEGORICAL = ("SMOTENC", "SMOTEN")  # take other features
SETTINGS = {
    "KMeansSMOTE": {"cluster_balance_threshold": 0.05},
    "InstanceHardnessThreshold": {"cv": 2},
}
ALL = [
    kind(**SETTINGS.get(name, {}))
    for name, kind in all_estimators(type_filter="sampler")
    if name not in (*CATEGORICAL, "FunctionSampler")
]
PIPELINES = [
    make_pipeline(over_sampling.SMOTE(), under_sampling.RandomUnderSampler()),
    make_pipeline(under_sampling.TomekLinks(), over_sampling.RandomOverSampler()),
]
OTHERS = [
    GaussianOverSampler(),
    PerturbedOverSampler(),
    under_sampling.NearMiss(version=2),
    under_sampling.NearMiss(version=3),
    under_sampling.ClusterCentroids(sampling_strategy="all", voting="soft"),
    under_sampling.ClusterCentroids(sampling_strategy={0: 9, 1: 9, 2: 9}),
    under_sampling.ClusterCentroids(estimator=MiniBatchKMeans(n_init=1)),
    combine.SMOTEENN(sampling_strategy="minority"),
]


def rows(features):
    return [row.tobytes() for row in features.reshape(len(features), -1)]


def test_the_samplers_are_all_of_them():
    names = {type(sampler).__name__ for sampler in ALL}
    assert names >= {"SMOTE", "ADASYN", "BorderlineSMOTE", "SVMSMOTE", "KMeansSMOTE"}
    assert names >= {"RandomOverSampler", "SMOTETomek", "SMOTEENN", "TomekLinks"}
    assert names >= {"RandomUnderSampler", "ClusterCentroids", "NearMiss"}


@pytest.mark.parametrize("sampler", [*ALL, *PIPELINES, *OTHERS], ids=str)
def test_what_a_sampler_gives_is_taken_as_it_is(sampler):
    for name in sampler.get_params():
        if name.endswith("random_state"):
            sampler.set_params(**{name: 0})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = resample(LabeledFeatures(X, Y), sampler, 3)
        features, labels = sampler.fit_resample(X, Y)
    assert made.features.dtype == np.float32
    np.testing.assert_allclose(made.features, features, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(made.labels, labels)


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "int32", "int64"])
def test_real_examples_come_back_to_the_bit(dtype):
    features = (X.astype("float64") * (1 + 1e-9) * 60).astype(dtype)
    if dtype in ("float64", "int32", "int64"):
        features += np.array(2**24 + 1, dtype)  # no float32
    data = LabeledFeatures(features, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = resample(data, over_sampling.SMOTE(random_state=0), 3)
    assert made.features.dtype == dtype
    assert rows(made.features[:210]) == rows(features)


def test_maps_keep_their_shape_and_labels_their_form():
    one_hot = np.eye(3, dtype="float32")[Y]
    data = LabeledFeatures(X.reshape(210, 2, 2), one_hot)
    made = resample(data, over_sampling.SMOTE(random_state=0), 3)
    assert made.features.shape == (360, 2, 2) and made.labels.shape == (360, 3)
    assert made.class_counts(3).tolist() == [120, 120, 120]


def test_rounding_of_what_is_made_is_warned_of_and_of_what_is_taken_not():
    data = LabeledFeatures((X * 20).astype("uint8"), Y)
    with pytest.warns(UserWarning, match="dtype uint8: .* rounded"):
        made = resample(data, PerturbedOverSampler(noise_scale=9, random_state=0), 3)
    assert made.features.min() == 0 and made.features.max() == 255
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        resample(data, over_sampling.RandomOverSampler(), 3)


def changing(function):
    return FunctionSampler(func=function, validate=False)


@pytest.mark.parametrize(
    "sampler, message",
    [
        (
            make_pipeline(StandardScaler(), over_sampling.SMOTE()),
            "Pipeline returns 360 features, and none of the 210 real .*into the model",
        ),
        (
            make_pipeline(MaxAbsScaler(), under_sampling.RandomUnderSampler()),
            "Pipeline returns 90 features, and none",
        ),
        (
            make_pipeline(PCA(2), over_sampling.SMOTE()),
            r"shape \[360, 2\] for features \[N, 4\].*add and remove examples",
        ),
        (changing(lambda x, y: (x, y[1:])), r"210 features and labels .*\[209\]"),
        (changing(lambda x, y: (x, y + 1)), "invalid labels: .*0 to 2; .* label 3"),
        (changing(lambda x, y: (x, y + 0.5)), r"invalid labels: .* label \d.5"),
        (
            changing(lambda x, y: (x, y.astype(str))),
            "invalid labels: .*must be numbers",
        ),
        (changing(lambda x, y: (x[:, 0], y)), r"shape \[210\] for features \[N, 4\]"),
        (changing(lambda x, y: (x[:, ::-1], y)), "none of the 210 real ones"),
        (changing(lambda x, y: (x * np.nan, y)), "FunctionSampler are NaN or infinite"),
    ],
)
def test_what_is_no_sampler_raises(sampler, message):
    features = X.copy()
    features[:3] = 0  # of dead units; a scaling leaves it as it is
    with pytest.raises(ValueError, match=message):
        resample(LabeledFeatures(features, Y), sampler, 3)


def test_features_that_are_all_0_are_those_that_came_back():
    data = LabeledFeatures(0 * X, Y)
    made = resample(data, over_sampling.RandomOverSampler(), 3)
    assert len(made) == 360


def test_a_retraining_on_scaled_features_leaves_the_head():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Identity(name="features"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    scaled = make_pipeline(StandardScaler(), over_sampling.SMOTE())
    with pytest.raises(ValueError, match="transforms features"):
        retrain_head(model, "features", (X, Y), sampler=scaled, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
