"""Tests for class_conditional_gaussian.py: against scipy in float64; law of samples."""

import itertools
import json
import resource
import zipfile

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from benchmarks.compiled import compiled
from tests import programs
from tests.each_backend import gradient
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.covariance import COVARIANCE_TYPES, estimate_covariance
from tf_pseudofeat.gaussians.sampling import sample_gaussians

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
NUM_CLASSES = 3


def make_data(counts=(60, 25, 12), size=4, seed=0, mean=0.0, condition=1.0):
    """Float32 features of classes with means and correlations of their own."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    spread = np.geomspace(1, condition**-0.5, size) if size > 1 else np.ones(1)
    x = rng.normal(size=(len(labels), size)) * spread
    turns = np.linalg.qr(rng.normal(size=(len(counts), size, size)))[0]
    x = np.einsum("nd,nde->ne", x, turns[labels])
    x += mean + rng.normal(size=(len(counts), size))[labels]
    return x.astype("float32"), labels


def fitted(data=None, covariance_type="full", num_classes=NUM_CLASSES, **kwargs):
    gaussian = ClassConditionalGaussian(num_classes, covariance_type, **kwargs)
    gaussian.adapt(*(data or make_data()))
    return gaussian


def parameters(gaussian):
    """`(means [C, D], covariances [C, D, D])` that the layer should have, float64."""
    moments, covariance_type = gaussian.moments, gaussian.covariance_type
    scale = estimate_covariance(
        moments, covariance_type, gaussian.shrinkage, gaussian.covariance_scale
    ).scale
    if covariance_type == "low_rank":
        blocks = scale.diag[:, :, np.newaxis] * np.eye(scale.diag.shape[1])
        scale = np.concatenate([blocks, scale.factor], axis=2)
    elif scale.ndim == 2:
        scale = scale[:, :, np.newaxis] * np.eye(scale.shape[1])
    covariance = scale @ scale.transpose(0, 2, 1)
    shape = (moments.num_classes, *covariance.shape[1:])
    return moments.mean, np.broadcast_to(covariance, shape)


def scipy_log_density(gaussian, features):
    features = np.asarray(features, np.float64).reshape(len(features), -1)
    columns = []
    for mean, covariance in zip(*parameters(gaussian), strict=True):
        factored = stats.Covariance.from_cholesky(np.linalg.cholesky(covariance))
        columns.append(stats.multivariate_normal(mean, factored).logpdf(features))
    return np.stack(columns, axis=1).reshape(len(features), -1)


def weights_of(layer):
    return [keras.ops.convert_to_numpy(weight) for weight in layer.weights]


def assert_same_layer(first, second, rtol=0.0):
    """The same parameters, statistics, densities and samples."""
    for mine, theirs in zip(weights_of(first), weights_of(second), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol)
    for field in ("count", "mean", "scatter"):
        mine, theirs = (getattr(each.moments, field) for each in (first, second))
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol)
    if first.covariance_type == "low_rank":
        mine, theirs = (each.moments.sketch for each in (first, second))
        mine, theirs = (x.transpose(0, 2, 1) @ x for x in (mine, theirs))
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * mine.max())
    assert first.feature_shape == second.feature_shape
    samples = [each.sample([0, 1, 1], (3, 4)) for each in (first, second)]
    np.testing.assert_allclose(*samples, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(first(samples[0]), second(samples[0]), 10 * rtol)


@pytest.fixture
def mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


# Densities.


@every_type
@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
@pytest.mark.parametrize("shrinkage", [0.0, "oas"])
def test_call_is_the_log_density_of_scipy(covariance_type, size, mean, shrinkage):
    features, labels = make_data(size=size, mean=mean)
    gaussian = fitted((features, labels), covariance_type, shrinkage=shrinkage)
    received = gaussian(features)
    assert keras.backend.standardize_dtype(received.dtype) == "float32"
    expected = scipy_log_density(gaussian, features)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 6, 7])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
@pytest.mark.parametrize("shrinkage", [0.0, 0.5, "oas"])
def test_a_low_rank_density_is_that_of_the_matrix_multiplied_out(rank, mean, shrinkage):
    features, labels = make_data(size=7, mean=mean)
    gaussian = fitted((features, labels), "low_rank", shrinkage=shrinkage, rank=rank)
    assert gaussian.parameters()[1].factor.shape == (NUM_CLASSES, 7, rank)
    expected = scipy_log_density(gaussian, features)
    np.testing.assert_allclose(gaussian(features), expected, rtol=1e-5, atol=1e-5)
    received = gaussian.distribution.log_prob(features[:, np.newaxis])
    np.testing.assert_allclose(gaussian(features), received, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("covariance_type", ["diag", "low_rank"])
@pytest.mark.parametrize("classes_at_a_time", [1, 2, 3, 4, 9, 10])
def test_densities_of_many_classes_are_made_some_at_a_time(
    covariance_type, classes_at_a_time, monkeypatch
):
    features, labels = make_data((5,) * 9, size=6)
    gaussian = fitted((features, labels), covariance_type, num_classes=9)
    expected = gaussian(features)
    monkeypatch.setattr(
        "tf_pseudofeat.gaussians.diagonal._DEVIATIONS", 6 * classes_at_a_time
    )
    for call in (gaussian, compiled(gaussian)):
        np.testing.assert_allclose(call(features), expected, rtol=1e-5, atol=1e-5)
    slope = gradient(lambda x: keras.ops.sum(gaussian(x)[:, 4]), features)
    assert np.isfinite(slope).all()


def test_many_classes_of_low_rank():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(300), 4)
    features = rng.normal(size=(len(labels), 32)).astype("float32")
    features += 20 * rng.normal(size=(300, 32))[labels]
    gaussian = fitted((features, labels), "low_rank", num_classes=300, rank=3)
    samples = gaussian.sample(labels, (1, 2)).numpy()
    deviations = [x - gaussian.moments.mean[labels] for x in (features, samples)]
    ratio = np.square(deviations[1]).sum() / np.square(deviations[0]).sum()
    assert ratio == pytest.approx(4 / 3, rel=0.03)  # n / (n - 1)
    received = keras.ops.convert_to_numpy(gaussian(samples[::7])).argmax(axis=1)
    assert np.mean(received == labels[::7]) > 0.99


def test_the_paper_s_estimator_is_the_plain_mean_and_covariance():
    features, labels = make_data(mean=100.0)
    gaussian = fitted((features, labels), shrinkage=0.0)
    for class_id in range(NUM_CLASSES):
        rows = features[labels == class_id].astype("float64")
        law = stats.multivariate_normal(rows.mean(0), np.cov(rows, rowvar=False))
        received = gaussian(features)[:, class_id]
        np.testing.assert_allclose(received, law.logpdf(features), rtol=2e-5)


@every_type
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8, 1e12])
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_call_stays_close_to_scipy_where_the_condition_is_bad(
    covariance_type, condition, mean
):
    data = make_data((300, 300), size=6, mean=mean, condition=condition)
    gaussian = fitted(data, covariance_type, num_classes=2, shrinkage=0.0)
    expected = scipy_log_density(gaussian, data[0])
    # Float32 arithmetic turns by its rounding, and the worst direction sees it.
    worst = max(row.condition for row in gaussian.report.classes)
    rtol = max(3e-6, 2e-7 * np.sqrt(worst))
    np.testing.assert_allclose(gaussian(data[0]), expected, rtol=rtol, atol=10 * rtol)


@every_type
@pytest.mark.parametrize("size", [1, 5])
def test_call_agrees_with_the_distribution(covariance_type, size):
    features, labels = make_data(size=size)
    gaussian = fitted((features, labels), covariance_type)
    distribution = gaussian.distribution
    assert distribution.batch_shape == [NUM_CLASSES]
    assert distribution.event_shape == [size]
    expected = distribution.log_prob(features[:, np.newaxis])
    np.testing.assert_allclose(gaussian(features), expected, rtol=1e-5, atol=1e-5)


@every_type
def test_the_distribution_has_the_moments_that_were_fitted(covariance_type):
    gaussian = fitted(None, covariance_type, covariance_scale=4.0)
    mean, covariance = parameters(gaussian)
    distribution = gaussian.distribution
    np.testing.assert_allclose(distribution.mean(), mean, rtol=1e-6)
    received = np.broadcast_to(distribution.covariance(), covariance.shape)
    np.testing.assert_allclose(received, covariance, rtol=1e-5, atol=1e-6)


@every_type
@pytest.mark.parametrize("batch_size", [1, 5, 97])
def test_call_does_not_depend_on_the_batch_or_the_mode(covariance_type, batch_size):
    features, labels = make_data()
    gaussian = fitted((features, labels), covariance_type)
    whole = gaussian(features)
    batch = features[:batch_size]
    np.testing.assert_allclose(gaussian(batch), whole[:batch_size], rtol=1e-5)
    in_graph = compiled(gaussian)(batch)
    np.testing.assert_allclose(in_graph, whole[:batch_size], rtol=1e-5)


@every_type
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "int32", "float64"])
def test_inputs_of_any_dtype_are_evaluated_in_float32(covariance_type, dtype):
    features, labels = make_data(mean=4.0)
    features = features.astype(dtype)
    gaussian = fitted((features, labels), covariance_type)
    received = gaussian(tf.constant(features))
    assert keras.backend.standardize_dtype(received.dtype) == "float32"
    expected = scipy_log_density(gaussian, features.astype("float64"))
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-4)


@every_type
def test_a_class_without_examples_has_no_density(covariance_type):
    features, labels = make_data((30, 0, 20))
    gaussian = fitted((features, labels), covariance_type)
    received = gaussian(features)
    assert np.isneginf(received[:, 1]).all()
    expected = scipy_log_density(gaussian, features)
    np.testing.assert_allclose(received[:, ::2], expected[:, ::2], rtol=1e-4)


# Samples.


@every_type
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("seed", [(0, 0), (7, 11)])
def test_samples_follow_the_law_they_claim(covariance_type, size, seed):
    rank = 1 if covariance_type == "low_rank" else None
    num, gaussian = 4000, fitted(make_data(size=size), covariance_type, rank=rank)
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], num))
    samples = gaussian.sample(labels, seed).numpy().astype("float64")
    for class_id, mean, covariance in zip(
        range(NUM_CLASSES), *parameters(gaussian), strict=True
    ):
        rows = samples[labels == class_id]
        variance = covariance.diagonal()
        # Mean and covariance, within 5 standard errors.
        error = np.abs(rows.mean(axis=0) - mean) / np.sqrt(variance / num)
        assert error.max() < 5
        received = np.cov(rows, rowvar=False).reshape(size, size)
        spread = np.sqrt((np.outer(variance, variance) + covariance**2) / num)
        assert (np.abs(received - covariance) / spread).max() < 5
        # Distances from the mean are chi-square distributed, with D degrees.
        white = np.linalg.solve(np.linalg.cholesky(covariance), (rows - mean).T)
        distance = np.square(white).sum(axis=0)
        assert stats.kstest(distance, stats.chi2(size).cdf).pvalue > 1e-3
        # Mardia's kurtosis: the mean squared distance squared is D (D + 2).
        expected = size * (size + 2)
        variance = expected * ((size + 4) * (size + 6) - expected)
        kurtosis = np.square(distance).mean()
        assert abs(kurtosis - expected) < 5 * np.sqrt(variance / num)
        # Every coordinate is normal, and one draw knows nothing of the next.
        for coordinate in white:
            assert stats.kstest(coordinate, "norm").pvalue > 1e-3
            neighbours = np.corrcoef(coordinate[:-1], coordinate[1:])[0, 1]
            assert abs(neighbours) < 5 / np.sqrt(num)


READS_DISTRIBUTION = """
import sys

import numpy as np
import tf_pseudofeat as tfpf

def imported():
    return {"tensorflow_probability", "tf_keras"} & sys.modules.keys()

gaussian = tfpf.ClassConditionalGaussian(2)
gaussian.adapt(np.arange(8.0).reshape(4, 2) ** 2, [0, 1, 0, 1])
gaussian.sample([0, 1], seed=(1, 2))
assert not imported(), imported()
assert type(gaussian.distribution).__name__ == "MultivariateNormalTriL"
assert len(imported()) == 2, imported()
"""


@pytest.mark.integration
def test_tensorflow_probability_is_imported_where_a_distribution_is_read():
    done = programs.run("-c", READS_DISTRIBUTION)
    assert done.returncode == 0, done.stderr[-3000:]


@every_type
@pytest.mark.parametrize(
    "labels", [[2, 0, 1, 1, 0, 2, 2], [1], [1, 1, 1], [], list(range(3)) * 9]
)
def test_a_sample_is_its_mean_and_its_factor_times_its_noise(covariance_type, labels):
    loc, scale = fitted(None, covariance_type).parameters()
    labels, seed = np.array(labels, "int32"), tf.constant([5, 6])
    width = 8 if covariance_type == "low_rank" else 4
    noise = tf.random.stateless_normal([len(labels), width], seed).numpy()
    expected = np.zeros((len(labels), 4))
    for i, label in enumerate(labels):
        if covariance_type == "low_rank":
            factor = np.hstack([np.diag(scale.diag[label]), scale.factor[label]])
        elif scale.shape.rank == 2:
            factor = np.diag(scale[label])
        else:
            factor = scale[label % scale.shape[0]].numpy()
        expected[i] = loc[label] + factor @ noise[i]
    received = sample_gaussians(loc, scale, labels, seed)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


@every_type
def test_parameters_stay_as_they_were_when_the_layer_changes(covariance_type):
    gaussian = fitted(None, covariance_type)
    taken = keras.tree.flatten(gaussian.parameters())
    before = [array.numpy().copy() for array in taken]
    gaussian.set_weights([2 * weight + 1 for weight in gaussian.get_weights()])
    gaussian.loc.assign_add(np.ones(gaussian.loc.shape, "float32"))
    for array, expected in zip(taken, before, strict=True):
        np.testing.assert_array_equal(array, expected)
    after = keras.tree.flatten(gaussian.parameters())
    assert not np.array_equal(after[0], before[0])


@pytest.mark.parametrize(
    "classes", [[], [2], (0, 2), np.uint8([1, 0]), np.array([2, 2, 1]), range(3)]
)
def test_parameters_of_some_classes_are_theirs(classes):
    gaussian = fitted()
    loc, scale = (array.numpy() for array in gaussian.parameters())
    received = gaussian.parameters(classes)
    np.testing.assert_array_equal(received[0], loc[[*classes]])
    np.testing.assert_array_equal(received[1], scale[[*classes]])
    with pytest.raises(IndexError, match="out of bounds"):
        gaussian.parameters([3])


@pytest.mark.parametrize("labels", [[2, 0, 1, 1, 0, 2, 2], [1], []])
def test_a_loop_over_many_classes_draws_what_their_products_do(monkeypatch, labels):
    loc, scale = fitted().parameters()
    labels, seed = np.array(labels, "int32"), tf.constant([5, 6])
    expected = sample_gaussians(loc, scale, labels, seed)
    monkeypatch.setattr("tf_pseudofeat.gaussians.triangular._UNROLLED_CLASSES", 2)
    for draw in (sample_gaussians, tf.function(sample_gaussians)):
        received = draw(loc, scale, labels, seed)
        np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-6)


@every_type
def test_the_noise_of_a_row_depends_on_the_seed_and_its_place_alone(covariance_type):
    gaussian, labels = fitted(None, covariance_type), np.array([2, 0, 1, 1, 0, 2])
    samples = gaussian.sample(labels, (1, 2))
    fewer = gaussian.sample(labels[:4], (1, 2))
    np.testing.assert_allclose(fewer, samples[:4], rtol=1e-5, atol=1e-6)
    others = gaussian.sample([0, 0, 1, 1, 1, 1], (1, 2))
    np.testing.assert_allclose(others[1:4], samples[1:4], rtol=1e-5, atol=1e-6)


@every_type
@pytest.mark.parametrize("num", [0, 1, 50])
def test_eager_graph_and_pipeline_agree_to_the_bit(covariance_type, num):
    gaussian = fitted(None, covariance_type)
    labels = np.random.default_rng(0).integers(NUM_CLASSES, size=num)
    eager = gaussian.sample(labels, (1, 2))
    signature = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([2], tf.int32)]
    in_graph = tf.function(gaussian.sample, input_signature=signature)
    np.testing.assert_array_equal(eager, in_graph(labels, tf.constant([1, 2])))
    dataset = tf.data.Dataset.from_tensors(labels)
    (piped,) = dataset.map(lambda labels: gaussian.sample(labels, (1, 2)))
    np.testing.assert_array_equal(eager, piped)
    np.testing.assert_array_equal(eager, gaussian.sample(labels, (1, 2)))


def test_different_seeds_draw_different_samples():
    gaussian, labels = fitted(), np.zeros(20, int)
    seeds = [(1, 2), (2, 1), (1, 3), (0, 0), (-1, 2), (2**30, 2), (12, 0)]
    draws = [gaussian.sample(labels, seed).numpy() for seed in seeds]
    for first, second in itertools.combinations(draws, 2):
        assert not np.isin(first, second).any()


@pytest.mark.parametrize(
    "seed", [(1, 2), [1, 2], np.array([1, 2]), np.uint8([1, 2]), tf.constant([1, 2])]
)
def test_a_seed_may_come_in_any_two_whole_numbers(seed):
    gaussian = fitted()
    expected = gaussian.sample([0, 1], (1, 2))
    np.testing.assert_array_equal(gaussian.sample([0, 1], seed), expected)


@pytest.mark.parametrize(
    "encode",
    [
        list,
        tf.constant,
        lambda ids: ids[:, np.newaxis],
        lambda ids: np.eye(NUM_CLASSES)[ids],
        lambda ids: ids.astype("float32"),
    ],
)
def test_sample_takes_labels_in_any_form(encode):
    gaussian, labels = fitted(), np.array([2, 0, 1, 1])
    expected = gaussian.sample(labels, (1, 2))
    np.testing.assert_array_equal(gaussian.sample(encode(labels), (1, 2)), expected)


@every_type
@pytest.mark.parametrize("factor", [4.0, 100.0])
def test_the_covariance_scale_pushes_samples_out_by_its_root(covariance_type, factor):
    plain = fitted(None, covariance_type)
    wide = fitted(None, covariance_type, covariance_scale=factor)
    labels = np.arange(9) % NUM_CLASSES
    mean = tf.gather(plain.parameters()[0], labels)
    deviations = [each.sample(labels, (1, 2)) - mean for each in (plain, wide)]
    expected = np.sqrt(factor) * deviations[0]
    np.testing.assert_allclose(deviations[1], expected, rtol=1e-4, atol=1e-4)


# Features of every kind.


@every_type
@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 1, 2), (1, 2, 3, 1)])
def test_feature_maps_are_flattened_and_come_back(covariance_type, shape):
    features, labels = make_data(size=6)
    flat = fitted((features, labels), covariance_type)
    maps = fitted((features.reshape(-1, *shape), labels), covariance_type)
    assert maps.feature_shape == shape
    samples = maps.sample([0, 2], (1, 2))
    assert samples.shape == (2, *shape)
    expected = flat.sample([0, 2], (1, 2))
    np.testing.assert_array_equal(tf.reshape(samples, (2, 6)), expected)
    np.testing.assert_array_equal(maps(samples), flat(expected))


@every_type
@pytest.mark.parametrize("shrinkage", [0.0, "oas"])
def test_fewer_examples_than_features_still_sample_and_evaluate(
    covariance_type, shrinkage
):
    features, labels = make_data((4, 2, 3), size=9)
    gaussian = fitted((features, labels), covariance_type, shrinkage=shrinkage)
    samples = gaussian.sample(labels, (1, 2))
    assert np.isfinite(samples).all()
    assert np.isfinite(gaussian(samples)).all()


@every_type
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_class_of_equal_examples_is_sampled_next_to_them(covariance_type, dtype):
    features, labels = make_data((40, 11))
    features = features.astype(dtype)
    features[labels == 1] = point = np.asarray([0.1, -3.0, 1 / 3, 1000.1], dtype)
    if covariance_type == "tied":
        features[labels == 0] = 0.0
    gaussian = fitted((features, labels), covariance_type, num_classes=2)
    samples = gaussian.sample([1] * 20, (1, 2))
    distance = np.abs(samples - point).max()
    assert 0 < distance < 0.2
    assert np.isfinite(gaussian(samples)[:, 1]).all()
    assert gaussian.report.classes[-1].rank == 0


def test_a_tied_covariance_samples_a_class_of_one_example():
    features, labels = make_data((40, 1))
    gaussian = fitted((features, labels), "tied", num_classes=2)
    samples = gaussian.sample([1] * 3, (1, 2)) - features[labels == 1]
    others = gaussian.sample([0] * 3, (1, 2)) - features[labels == 0].mean(axis=0)
    np.testing.assert_allclose(samples, others, rtol=1e-4, atol=1e-5)


# Fitting.


@every_type
@pytest.mark.parametrize("batch_size", [1, 10, 97])
def test_a_stream_fits_as_the_arrays_do(covariance_type, batch_size):
    features, labels = make_data(size=6)
    features = features.reshape(-1, 2, 3)
    expected = fitted((features, labels), covariance_type)
    columns = (features, tf.one_hot(labels, NUM_CLASSES), np.ones(len(labels)))
    dataset = tf.data.Dataset.from_tensor_slices(columns).batch(batch_size)
    streamed = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    streamed.adapt(dataset)
    assert_same_layer(streamed, expected, rtol=1e-4)
    streamed.adapt(iter(dataset))  # a generator, which can be read once
    assert_same_layer(streamed, expected, rtol=1e-4)


@every_type
def test_a_second_adapt_leaves_nothing_stale(covariance_type):
    first, second = make_data(seed=1), make_data((50, 30, 9), seed=2)
    gaussian = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    model = keras.Sequential([keras.Input((4,)), gaussian])
    gaussian.adapt(*first)
    stale = model.predict(first[0], verbose=0), gaussian.distribution.mean()
    report = str(gaussian.report)
    gaussian.adapt(*second)
    expected = fitted(second, covariance_type)
    assert_same_layer(gaussian, expected)
    fresh = model.predict(first[0], verbose=0)  # with the function compiled before
    np.testing.assert_allclose(fresh, expected(first[0]), rtol=1e-5)
    mean = gaussian.distribution.mean()
    np.testing.assert_array_equal(mean, expected.distribution.mean())
    assert str(gaussian.report) == str(expected.report) != report
    assert np.abs(fresh - stale[0]).max() > 0.1
    assert np.abs(mean - stale[1]).max() > 0.1


@every_type
def test_updates_count_when_they_are_finalized(covariance_type):
    features, labels = make_data()
    gaussian = fitted((features[:50], labels[:50]), covariance_type)
    before = weights_of(gaussian)
    gaussian.update_state(features[50:], labels[50:])
    for now, then in zip(weights_of(gaussian), before, strict=True):
        np.testing.assert_array_equal(now, then)
    gaussian.finalize_state()
    assert_same_layer(gaussian, fitted((features, labels), covariance_type), 1e-4)


@every_type
@pytest.mark.parametrize("seed", [0, 1])
def test_merged_parts_are_the_whole(covariance_type, seed):
    features, labels = make_data(size=6)
    features = features.reshape(-1, 3, 2)
    owner = np.random.default_rng(seed).integers(4, size=len(labels))
    owner[labels == 2] = 1  # a class that one worker alone has seen
    parts = [ClassConditionalGaussian(NUM_CLASSES, covariance_type) for _ in range(6)]
    for worker in range(4):  # two have seen nothing
        mine = owner == worker
        parts[worker].update_state(features[mine], labels[mine])
    np.random.default_rng(seed).shuffle(parts)
    merged = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    merged.merge_state(parts)
    merged.finalize_state()
    assert_same_layer(merged, fitted((features, labels), covariance_type), 1e-4)


@every_type
@pytest.mark.parametrize("shape", [(6,), (3, 2)])
def test_moments_from_elsewhere_fit_as_their_features_do(covariance_type, shape):
    features, labels = make_data(size=6)
    features = features.reshape(-1, *shape)
    expected = fitted((features, labels), covariance_type)
    gaussian = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    gaussian.adapt_moments(expected.moments, shape)
    assert_same_layer(gaussian, expected)
    assert str(gaussian.report) == str(expected.report)
    gaussian.adapt(-features, labels)
    gaussian.adapt_moments(expected.moments)  # the shape is known; nothing is added
    assert_same_layer(gaussian, expected)


@pytest.mark.integration
def test_training_changes_nothing():
    features, labels = make_data()
    gaussian = fitted((features, labels))
    before = weights_of(gaussian)
    head = keras.layers.Dense(NUM_CLASSES, activation="softmax")
    model = keras.Sequential([keras.Input((4,)), gaussian, head])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(features, labels, verbose=0)
    assert model.trainable_weights == head.trainable_weights
    for now, then in zip(weights_of(gaussian), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_before_it_is_fitted_every_class_is_a_standard_normal():
    gaussian = ClassConditionalGaussian(2)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    expected = stats.multivariate_normal(np.zeros(3)).logpdf(x)
    np.testing.assert_allclose(gaussian(x), np.stack([expected] * 2, 1), rtol=1e-5)
    assert gaussian.moments is None
    assert gaussian.report is None


# Saving and loading.


@every_type
@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_a_model_file_holds_all_of_it(tmp_path, covariance_type, shape):
    features, labels = make_data()
    features = features.reshape(-1, *shape)
    rank = 2 if covariance_type == "low_rank" else None
    settings = {"covariance_scale": 2.0, "rank": rank}
    gaussian = fitted((features, labels), covariance_type, **settings)
    inner = keras.Sequential([keras.Input(shape), gaussian], name="inner")
    inputs = keras.Input(shape)
    outputs = keras.layers.Softmax()(inner(keras.layers.Identity()(inputs)))
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")  # in safe mode
    again = loaded.get_layer("inner").layers[-1]
    assert isinstance(again, ClassConditionalGaussian)
    assert_same_layer(again, gaussian)
    assert again.get_config() == gaussian.get_config()
    assert str(again.report) == str(gaussian.report)
    expected = model.predict(features, verbose=0)
    np.testing.assert_array_equal(loaded.predict(features, verbose=0), expected)
    # What was loaded can be fitted further.
    for each in (gaussian, again):
        each.update_state(features + 1, labels)
        each.finalize_state()
    assert_same_layer(again, gaussian)


@every_type
@pytest.mark.parametrize("was_fitted", [False, True])
def test_a_weights_file_replaces_what_was_there(tmp_path, covariance_type, was_fitted):
    def model_of(gaussian):
        return keras.Sequential([keras.Input((4,)), gaussian])

    path = tmp_path / "of.weights.h5"
    gaussian = fitted(None, covariance_type)
    model_of(gaussian).save_weights(path)
    other = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    if was_fitted:
        other.adapt(*make_data(seed=5))
    model_of(other).load_weights(path)
    assert_same_layer(other, gaussian)


def test_a_file_of_an_unfitted_layer_unfits(tmp_path):
    unfitted, gaussian = ClassConditionalGaussian(NUM_CLASSES), fitted()
    models = [
        keras.Sequential([keras.Input((4,)), each]) for each in (unfitted, gaussian)
    ]
    models[0].save_weights(tmp_path / "of.weights.h5")
    models[1].load_weights(tmp_path / "of.weights.h5")
    assert gaussian.moments is None
    assert gaussian.report is None
    for mine, theirs in zip(weights_of(gaussian), weights_of(unfitted), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def file_of_fitted(path, change):
    """A `.keras` file of a layer in a model, with something else in its config."""
    keras.Sequential([keras.Input((4,)), fitted(name="gaussian")]).save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "ClassConditionalGaussian":
            change(layer)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer["build_config"].update(input_shape=[None, 2**22]),
        lambda layer: layer["build_config"].update(input_shape=[None, 2**40, 2**40]),
        lambda layer: layer["config"].update(num_classes=2**50),
    ],
    ids=["many features", "beyond 64 bits", "many classes"],
)
def test_a_file_that_claims_more_than_memory_has(tmp_path, change):
    file_of_fitted(tmp_path / "a.keras", change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"Covariances of shape .* need .* GiB"):
        keras.saving.load_model(tmp_path / "a.keras")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 2**18  # KiB


@pytest.mark.parametrize("shape", [[None, -4], [None, "4"], [None, 4.5], [None, 0], []])
def test_a_file_with_a_shape_that_is_none(tmp_path, shape):
    file_of_fitted(
        tmp_path / "a.keras",
        lambda layer: layer["build_config"].update(input_shape=shape),
    )
    with pytest.raises(ValueError, match="Features must have a known shape"):
        keras.saving.load_model(tmp_path / "a.keras")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"count": np.ones(4)}, r"a `count` of float64 \[4\]; kind 'full'"),
        ({"count": np.full(3, 1.5)}, "a count that is not a whole number, 1.5"),
        ({"mean": np.ones((3, 4), "f4")}, "a `mean` of float32"),
        ({"mean": np.ones(3)}, r"means of shape \[3\]"),
        ({"mean": np.full((3, 4), np.nan)}, "NaN or infinity in `mean`"),
        ({"scatter": np.ones((3, 4))}, "a `scatter` of float64"),
        ({"scatter": -np.ones((3, 4, 4))}, "class 0 has negative squares"),
        ({"scatter": None}, "has arrays .*'full' has"),
        ({"sketch": np.ones((3, 4, 4), "f4")}, "has arrays .*'full' has"),
    ],
)
def test_a_file_with_other_statistics(tmp_path, monkeypatch, changes, message):
    def save(self, store):
        arrays = {f: getattr(self.moments, f) for f in ("count", "mean", "scatter")}
        for field, array in (arrays | changes).items():
            if array is not None:
                store[field] = array

    monkeypatch.setattr(ClassConditionalGaussian, "save_own_variables", save)
    model = keras.Sequential([keras.Input((4,)), fitted(name="gaussian")])
    model.save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match=rf"The file of gaussian .*{message}"):
        keras.saving.load_model(tmp_path / "a.keras")


def test_statistics_of_other_features(tmp_path):
    model = keras.Sequential([keras.Input((4,)), fitted(name="gaussian")])
    other = fitted(make_data(size=5), name="gaussian")
    keras.Sequential([keras.Input((5,)), other]).save_weights(tmp_path / "a.weights.h5")
    before = [weight.copy() for weight in model.get_weights()]
    with pytest.raises(ValueError, match="moments have 5 features"):
        model.load_weights(tmp_path / "a.weights.h5")
    assert model.layers[-1].moments is not None
    for mine, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@every_type
def test_parameters_that_were_set_are_saved_too(tmp_path, covariance_type):
    model = keras.Sequential([keras.Input((4,)), fitted(None, covariance_type)])
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.save(tmp_path / "clone.keras")
    loaded = keras.saving.load_model(tmp_path / "clone.keras")
    for mine, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    features = make_data()[0]
    np.testing.assert_array_equal(loaded(features), model(features))


@every_type
def test_mixed_precision_changes_nothing(tmp_path, mixed_precision, covariance_type):
    features, labels = make_data(mean=100.0)
    gaussian = ClassConditionalGaussian(NUM_CLASSES, covariance_type)
    model = keras.Sequential([keras.Input((4,)), gaussian])
    gaussian.adapt(features, labels)
    assert {weight.dtype for weight in gaussian.weights} == {"float32"}
    expected = scipy_log_density(gaussian, features)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for each in (model, loaded):
        received = each.predict(features, verbose=0)
        assert received.dtype == np.float32
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
    assert_same_layer(loaded.layers[-1], gaussian)
    assert gaussian.sample([0], (1, 2)).dtype == tf.float32


@every_type
def test_the_config_makes_the_same_layer(covariance_type):
    gaussian = ClassConditionalGaussian(
        5, covariance_type, shrinkage=0.25, covariance_scale=3.0, name="mine"
    )
    again = ClassConditionalGaussian.from_config(gaussian.get_config())
    assert again.get_config() == gaussian.get_config()
    again.adapt(*make_data())
    expected = fitted(None, covariance_type, 5, shrinkage=0.25, covariance_scale=3.0)
    assert_same_layer(again, expected)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 1)])
def test_the_shape_of_the_output_is_known_before_it_is_called(shape):
    gaussian = ClassConditionalGaussian(7)
    assert gaussian(keras.Input(shape)).shape == (None, 7)
    assert gaussian.compute_output_shape((5, *shape)) == (5, 7)


# Errors.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, r"whole number of at least 1; received 0"),
        ({"num_classes": 2.5}, r"whole number of at least 1; received 2.5"),
        ({"covariance_type": "half"}, r"must be one of .*received 'half'"),
        ({"shrinkage": 2}, r"`shrinkage` must be 'oas' or .*received 2"),
        ({"covariance_scale": 0.0}, r"`covariance_scale` must be .*received 0.0"),
    ],
)
def test_settings_are_checked_at_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        ClassConditionalGaussian(**({"num_classes": 2} | arguments))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.full((97, 4), np.nan)}, r"Class 0 has 60 of 60 .* NaN or inf"),
        ({"labels": np.full(97, 3)}, r"class ids 0 to 2; example 0 has label 3"),
        ({"labels": np.zeros(96)}, r"shape \(97, 4\) and 96 labels"),
        ({"labels": np.zeros((97, 2))}, r"2 wide, but there are 3 classes"),
        ({"features": np.zeros(97)}, r"known shape \[B, D\] or .*received \(None,\)"),
        ({"labels": np.eye(97)[0]}, r"Class 1 has 1 example; a 'full' covariance"),
    ],
)
def test_data_that_cannot_be_fitted_raises(change, message):
    features, labels = make_data()
    data = {"features": features, "labels": labels} | change
    with pytest.raises(ValueError, match=message):
        ClassConditionalGaussian(NUM_CLASSES).adapt(**data)


@every_type
@pytest.mark.parametrize(("unit", "dtype"), [(1e60, "float64"), (1e-42, "float32")])
def test_what_float32_cannot_hold_raises(covariance_type, unit, dtype):
    features, labels = make_data()
    gaussian = fitted((features, labels), covariance_type)
    expected = gaussian.sample([0, 1, 2], (1, 2))
    with pytest.raises(ValueError, match=r"eviations from .* Scale the features"):
        gaussian.adapt((np.float64(features) * unit).astype(dtype), labels)
    np.testing.assert_array_equal(gaussian.sample([0, 1, 2], (1, 2)), expected)


def test_an_empty_stream_raises():
    with pytest.raises(ValueError, match=r"The stream of features is empty"):
        ClassConditionalGaussian(2).adapt(iter([]))


@pytest.mark.parametrize(
    "use",
    [
        lambda gaussian: gaussian.feature_shape,
        lambda gaussian: gaussian.distribution,
        lambda gaussian: gaussian.sample([0], (1, 2)),
        lambda gaussian: gaussian.finalize_state(),
    ],
)
def test_what_needs_a_fit_says_so(use):
    with pytest.raises(ValueError, match=r"call `adapt\(features, labels\)`"):
        use(ClassConditionalGaussian(2))


@every_type
def test_a_class_without_examples_is_not_sampled(covariance_type):
    gaussian = fitted(make_data((30, 0, 20)), covariance_type)
    message = r"Class 1 had no example among the 50 .* \(empty classes requested: \[1\]"
    with pytest.raises(ValueError, match=message):
        gaussian.sample([0, 1, 2], (1, 2))
    assert gaussian.sample([0, 2], (1, 2)).shape == (2, 4)


@pytest.mark.parametrize("labels", [[3], [-1], [0.5], [np.nan]])
def test_only_known_classes_are_sampled(labels):
    with pytest.raises(ValueError, match=r"class ids 0 to 2; example 0 has label"):
        fitted().sample(labels, (1, 2))


@pytest.mark.parametrize("seed", [1, (1,), (1, 2, 3), (1.0, 2.0), None, "ab"])
def test_a_seed_of_anything_else_raises(seed):
    with pytest.raises(ValueError, match=r"`seed` must be two integers"):
        fitted().sample([0], seed)


def test_features_of_another_shape_need_another_layer():
    message = r"holds features of shape \[B, 4\]; received \[97, 2, 2\]"
    with pytest.raises(ValueError, match=message):
        fitted().update_state(make_data()[0].reshape(-1, 2, 2), make_data()[1])
    with pytest.raises(ValueError, match=message.replace("97", "None")):
        other = make_data()[0].reshape(-1, 2, 2), make_data()[1]
        fitted().merge_state([fitted(other)])


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize(
    ("num_classes", "covariance_type"), [(NUM_CLASSES, "diag"), (4, "full")]
)
def test_only_layers_of_the_same_settings_merge(empty, num_classes, covariance_type):
    gaussian = ClassConditionalGaussian(NUM_CLASSES) if empty else fitted()
    other = fitted(None, covariance_type, num_classes)
    message = rf"has 3 classes and 'full', .* has {num_classes} and '{covariance_type}'"
    with pytest.raises(ValueError, match=message):
        gaussian.merge_state([other])


@pytest.mark.parametrize("empty", [False, True])
def test_only_layers_of_the_same_rank_merge(empty):
    gaussian = ClassConditionalGaussian(NUM_CLASSES, "low_rank", rank=2)
    if not empty:
        gaussian.adapt(*make_data())
    other = fitted(None, "low_rank", rank=3)
    message = r"3 classes and 'low_rank' of rank 2, .* 3 and 'low_rank' of rank 3"
    with pytest.raises(ValueError, match=message):
        gaussian.merge_state([other])
    gaussian.merge_state([fitted(None, "low_rank", rank=2)])
    four = ClassConditionalGaussian(NUM_CLASSES, "low_rank")  # all of 4 features
    four.merge_state([fitted(None, "low_rank", rank=4)])
    assert four.moments.rank == 4


@pytest.mark.parametrize("shape", [(None, 3), ()])
def test_features_must_have_a_known_shape(shape):
    message = r"must have a known shape .* Split at a layer of fixed size"
    with pytest.raises(ValueError, match=message):
        ClassConditionalGaussian(2)(keras.Input(shape))
