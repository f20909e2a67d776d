"""Tests for metrics.py: each metric is its function of scores.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.guesses import FORMS, GUESS, MINORITY, NUM_CLASSES, OUTPUTS, TRUTH
from tf_pseudofeat.evaluation import metrics, scores

METRICS = {
    metrics.BalancedAccuracy: scores.balanced_accuracy,
    metrics.GeometricMean: scores.geometric_mean,
    metrics.MinClassAccuracy: scores.min_class_accuracy,
    metrics.MeanMinorityAccuracy: scores.mean_minority_accuracy,
}
every_metric = pytest.mark.parametrize("metric_class", METRICS)


def make(metric_class, num_classes=NUM_CLASSES, minority=MINORITY, **kwargs):
    if metric_class is metrics.MeanMinorityAccuracy:
        kwargs["minority"] = minority
    return metric_class(num_classes, **kwargs)


def function_of(metric_class, y_true, y_pred, minority=MINORITY):
    if metric_class is metrics.MeanMinorityAccuracy:
        return scores.mean_minority_accuracy(y_true, y_pred, minority)
    return METRICS[metric_class](y_true, y_pred)


@every_metric
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch_size", [1, 7, 80])
def test_a_metric_is_its_function_in_batches_of_any_size(
    metric_class, form, batch_size
):
    metric, count = make(metric_class), min(len(TRUTH), 20 * batch_size)
    for start in range(0, count, batch_size):
        rows = slice(start, min(start + batch_size, count))
        metric.update_state(FORMS[form][rows], OUTPUTS[rows])
    expected = function_of(metric_class, TRUTH[:count], GUESS[:count])
    assert 0 < expected < 1
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@every_metric
@pytest.mark.parametrize("label", [NUM_CLASSES, -1, 99])
@pytest.mark.parametrize("form", [(-1,), (-1, 1)])
def test_a_label_out_of_range_does_not_pass_for_less_data(metric_class, label, form):
    metric = make(metric_class)
    wrong = TRUTH.copy()
    wrong[3] = label
    metric.update_state(wrong.reshape(form), OUTPUTS)
    metric.update_state(TRUTH, OUTPUTS)
    assert np.isnan(float(metric.result()))
    metric.reset_state()
    metric.update_state(TRUTH, OUTPUTS)
    assert 0 < float(metric.result()) < 1


@every_metric
def test_a_label_out_of_range_may_stand_for_nothing_with_the_weight_0(metric_class):
    metric, weight = make(metric_class), np.ones(len(TRUTH))
    wrong = TRUTH.copy()
    wrong[::5], weight[::5] = -1, 0
    metric.update_state(wrong, OUTPUTS, sample_weight=weight)
    rest = weight > 0
    expected = function_of(metric_class, TRUTH[rest], GUESS[rest])
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


def test_a_label_out_of_range_shows_in_the_logs_of_fit():
    model = keras.Sequential([keras.Input((NUM_CLASSES,)), keras.layers.Dense(4)])
    model.compile("sgd", "mse", metrics=[metrics.BalancedAccuracy(4, name="score")])
    x, y = np.eye(4, dtype="float32"), np.array([[0.0], [1.0], [2.0], [9.0]])
    logs = model.evaluate(x, y, verbose=0, return_dict=True)
    assert np.isnan(logs["score"])


@every_metric
def test_a_metric_that_was_reset_has_forgotten(metric_class):
    metric = make(metric_class)
    metric.update_state(TRUTH, np.roll(OUTPUTS, 1, axis=1))
    metric.reset_state()
    metric.update_state(TRUTH, OUTPUTS)
    expected = function_of(metric_class, TRUTH, GUESS)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@every_metric
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.0, 0.9])
def test_one_output_predicts_class_1_above_the_threshold(
    metric_class, shape, one_hot, threshold
):
    truth = np.minimum(TRUTH, 1)
    noise = np.random.default_rng(1).normal(size=truth.shape)
    outputs = (noise + truth - 0.5 + threshold).astype("float32")
    metric = make(metric_class, 2, minority=[1], threshold=threshold)
    labels = np.eye(2)[truth] if one_hot else truth.astype("float32").reshape(shape)
    metric.update_state(labels, outputs.reshape(shape))
    expected = function_of(metric_class, truth, outputs > threshold, minority=[1])
    assert 0 < expected < 1
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@every_metric
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_weights_count_an_example_so_many_times(metric_class, shape):
    weight = np.random.default_rng(1).integers(0, 4, size=len(TRUTH))
    metric = make(metric_class)
    metric.update_state(TRUTH, OUTPUTS, sample_weight=weight.reshape(shape))
    repeated = np.repeat(TRUTH, weight), np.repeat(GUESS, weight)
    expected = function_of(metric_class, *repeated)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@every_metric
def test_a_metric_leaves_out_classes_without_examples(metric_class):
    metric = make(metric_class, minority=[1, 3])
    outputs = np.eye(NUM_CLASSES)[[0, 1, 3, 3]]
    metric.update_state([0, 0, 3, 3], outputs)  # class 1 is guessed, but never true
    expected = function_of(metric_class, [0, 0, 3, 3], [0, 1, 3, 3])
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@every_metric
def test_outputs_of_any_precision_are_compared(metric_class, dtype):
    metric = make(metric_class)
    outputs = tf.one_hot(GUESS, NUM_CLASSES, dtype=dtype)
    metric.update_state(tf.cast(TRUTH, dtype), outputs)
    expected = function_of(metric_class, TRUTH, GUESS)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


@every_metric
def test_a_metric_survives_its_config(metric_class):
    metric = make(metric_class, threshold=0.25, name="mine")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert again.get_config() == metric.get_config()
    assert (again.name, again.threshold) == ("mine", 0.25)


def test_a_saved_model_still_reports_the_metrics(tmp_path):
    inputs = keras.Input((NUM_CLASSES,))
    outputs = keras.layers.Activation("linear", dtype="float32")(inputs)
    model = keras.Model(inputs, outputs)
    metrics = [make(metric_class) for metric_class in METRICS]
    model.compile(loss="sparse_categorical_crossentropy", metrics=metrics)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")  # in safe mode
    for each in (model, loaded):
        logs = each.evaluate(OUTPUTS, TRUTH, verbose=0, return_dict=True, batch_size=9)
        for metric in metrics:
            expected = function_of(type(metric), TRUTH, GUESS)
            assert logs[metric.name] == pytest.approx(expected, rel=1e-6), metric.name
