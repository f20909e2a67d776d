"""Tests for parameters.py: densities against SciPy in float64; the law of samples."""

import itertools

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from benchmarks.compiled import compiled
from tests import programs
from tests.each_backend import gradient
from tests.fitted_gaussians import (
    NUM_CLASSES,
    every_type,
    fitted,
    make_data,
    parameters,
    scipy_log_density,
)
from tf_pseudofeat.gaussians.sampling import sample_gaussians


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


@pytest.mark.slow
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
