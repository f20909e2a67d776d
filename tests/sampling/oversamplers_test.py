"""Tests for oversamplers.py: imbalanced-learn's own checks, and the numbers."""

import imblearn.over_sampling
import keras
import numpy as np
import pandas as pd
import pytest
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import parametrize_with_checks
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.covariance import COVARIANCE_TYPES
from tf_pseudofeat.retraining.retrain import retrain_head
from tf_pseudofeat.sampling.counts import multiply_minority
from tf_pseudofeat.sampling.oversamplers import (
    GaussianOverSampler,
    PerturbedOverSampler,
)

OURS = [GaussianOverSampler, PerturbedOverSampler]


@parametrize_with_checks([kind(random_state=0) for kind in OURS])
def test_imbalanced_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(330, 4)) @ rng.normal(size=(4, 4)) + 3
    return x, np.repeat([0, 1, 2], [200, 100, 30])


@pytest.mark.parametrize(
    "kind",
    [*OURS, imblearn.over_sampling.SMOTE, imblearn.over_sampling.RandomOverSampler],
)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_every_over_sampler_keeps_the_contract(kind, form, data):
    x, y = form(data[0].astype("float32")), data[1]
    strategy = {1: 150, 2: 90}
    again, other = (
        kind(sampling_strategy=strategy, random_state=seed).fit_resample(x, y)
        for seed in (1, 2)
    )
    new, labels = kind(sampling_strategy=strategy, random_state=1).fit_resample(x, y)
    assert np.bincount(labels).tolist() == [200, 150, 90]
    assert type(new) is type(x)
    assert new.dtype == np.float32

    def dense(array):
        return array.toarray() if sparse.issparse(array) else array

    np.testing.assert_array_equal(dense(new)[:330], dense(x))
    np.testing.assert_array_equal(labels[:330], y)
    np.testing.assert_array_equal(dense(new), dense(again[0]))
    assert not np.array_equal(dense(new), dense(other[0]))


@pytest.mark.parametrize(
    ("covariance_type", "rank"),
    [*((each, None) for each in COVARIANCE_TYPES), ("low_rank", 1)],
)
def test_draws_have_the_moments_of_the_layers_gaussians(covariance_type, rank, data):
    x, y = data
    settings = {"covariance_type": covariance_type, "covariance_scale": 2.0}
    settings["rank"] = rank
    sampler = GaussianOverSampler(
        sampling_strategy={2: 100_030}, random_state=0, **settings
    )
    draws = sampler.fit_resample(x, y)[0][330:]
    layer = ClassConditionalGaussian(3, **settings)
    layer.adapt(x, y)
    wanted = layer.distribution.covariance().numpy()[2]
    np.testing.assert_allclose(draws.mean(axis=0), x[y == 2].mean(axis=0), atol=0.1)
    np.testing.assert_allclose(
        np.cov(draws.T), wanted, rtol=0.03, atol=0.03 * np.diag(wanted).max()
    )
    assert str(sampler.covariance_report_) == str(layer.report)


def test_noise_has_the_variance_of_the_class_and_feature(data):
    x, y = data
    x[y == 2] *= [1.0, 10.0, 100.0, 0.0]
    sampler = PerturbedOverSampler(
        sampling_strategy={2: 100_030}, noise_scale=2.0, random_state=0
    )
    draws = sampler.fit_resample(x, y)[0][330:]
    variance = x[y == 2].var(axis=0)
    np.testing.assert_allclose(draws.var(axis=0), variance * (1 + 2.0**2), rtol=0.02)
    np.testing.assert_allclose(
        draws.mean(axis=0), x[y == 2].mean(axis=0), atol=0.03 * np.sqrt(variance).max()
    )


def test_without_noise_every_example_of_the_class_is_drawn_equally_often(data):
    x, y = data
    x[:, 0] = np.arange(330)
    sampler = PerturbedOverSampler(
        sampling_strategy={2: 30_030}, noise_scale=0.0, random_state=0
    )
    rows, times = np.unique(sampler.fit_resample(x, y)[0][330:, 0], return_counts=True)
    np.testing.assert_array_equal(rows, np.arange(300, 330))
    assert abs(times / 1000 - 1).max() < 0.15


@pytest.mark.parametrize("kind", OURS)
def test_in_a_pipeline_the_rare_class_is_found_more_often(kind):
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], [2000, 40])
    x = rng.normal(size=(2040, 2)) + 1.5 * y[:, np.newaxis]
    names = np.array(["common", "rare"])[y]

    def recall(model):
        return np.mean(model.fit(x, names).predict(x[y == 1]) == "rare")

    pipeline = make_pipeline(kind(random_state=0), LogisticRegression())
    assert recall(pipeline) > recall(LogisticRegression()) + 0.2


@pytest.mark.parametrize("kind", OURS)
def test_a_multiple_of_the_minority_can_be_asked_for(kind, data):
    sampler = kind(sampling_strategy=multiply_minority(3), random_state=0)
    labels = sampler.fit_resample(*data)[1]
    assert np.bincount(labels).tolist() == [200, 100, 90]


@pytest.mark.integration
@pytest.mark.parametrize("kind", OURS)
def test_it_is_a_source_for_a_retraining(kind, data):
    x, y = data
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(4, name="features"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    sampler = kind(random_state=0)
    report = retrain_head(model, "features", (x, y), sampler=sampler, verbose=0)
    assert report.pseudo == [0, 100, 170]


def test_one_example_has_no_covariance(data):
    x, y = data
    with pytest.raises(ValueError, match=r"1 example.*tied"):
        GaussianOverSampler().fit_resample(x[:301], y[:301])


@pytest.mark.parametrize(
    "sampler, message",
    [
        (PerturbedOverSampler(noise_scale=-1.0), "`noise_scale`.*-1.0"),
        (GaussianOverSampler(covariance_type="round"), "round"),
        (GaussianOverSampler(shrinkage=2.0), "2.0"),
    ],
)
def test_settings_that_cannot_be_raise(sampler, message, data):
    with pytest.raises(ValueError, match=message):
        sampler.fit_resample(*data)


def whole_numbers(rng, dtype, high=200):
    """Features `[330, 4]` near both ends of 0 to 255."""
    centres = np.array([5.0, 128.0, 250.0, high])
    return (centres + 20 * rng.normal(size=(330, 4))).clip(0, 255).astype(dtype)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64"])
def test_draws_of_whole_numbers_are_those_of_floats_rounded(kind, dtype, data):
    y = data[1]
    x = (whole_numbers(np.random.default_rng(0), int) // 2).astype(dtype)
    wanted = kind(random_state=0).fit_resample(x.astype(float), y)[0]
    limits = np.iinfo(dtype)
    wanted = [
        [min(max(round(number), limits.min), limits.max) for number in row]
        for row in wanted.tolist()
    ]
    with pytest.warns(UserWarning, match=f"dtype {dtype}: .* rounded") as caught:
        received = kind(random_state=0).fit_resample(x, y)[0]
    assert len(caught) == 1 and caught[0].filename == __file__
    assert received.dtype == x.dtype
    np.testing.assert_array_equal(received, wanted)


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_one_hot_columns_of_bool_raise(kind, form, data):
    x = form(np.eye(4, dtype=bool)[np.arange(330) % 4])
    with pytest.raises(ValueError, match="dtype bool.*Cast it to float.*SMOTENC"):
        kind().fit_resample(x, data[1])


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_draws_of_floats_are_cast_and_no_more(kind, dtype, data, recwarn):
    x, y = data[0].astype(dtype), data[1]
    wanted = kind(random_state=0).fit_resample(x.astype("float64"), y)[0]
    received = kind(random_state=0).fit_resample(x, y)[0]
    assert received.dtype == dtype and not recwarn.list
    tolerance = {"float16": 0.05, "float32": 1e-4, "float64": 0.0}[dtype]
    np.testing.assert_allclose(received, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", OURS)
def test_each_column_of_a_frame_keeps_its_dtype(kind, data):
    rng, y = np.random.default_rng(0), data[1]
    numbers = pd.DataFrame(whole_numbers(rng, float), columns=list("abcd"))
    dtypes = {"a": "float64", "b": "uint8", "c": "int64", "d": "Int64"}
    frame = numbers.round().astype(dtypes)
    wanted = kind(random_state=0).fit_resample(frame.astype(float), y)[0]
    with pytest.warns(UserWarning, match="dtype int64, uint8: ") as caught:
        received = kind(random_state=0).fit_resample(frame, y)[0]
    assert len(caught) == 1
    assert received.dtypes.astype(str).to_dict() == dtypes
    wanted = wanted.assign(
        b=wanted.b.round().clip(0, 255), c=wanted.c.round(), d=wanted.d.round()
    )
    np.testing.assert_array_equal(received.astype(float), wanted)


@pytest.mark.parametrize(
    "values",
    [pd.Categorical(["a", "b"] * 165), ["a", "b"] * 165, [True, False] * 165],
    ids=["category", "text", "bool"],
)
@pytest.mark.parametrize("dtype", [None, object])
def test_columns_without_anything_in_between_are_named(values, dtype, data):
    frame = pd.DataFrame(data[0]).assign(color=pd.Series(values, dtype=dtype))
    for kind in OURS:
        with pytest.raises(ValueError, match="Column 'color' has dtype .*SMOTENC"):
            kind().fit_resample(frame, data[1])
