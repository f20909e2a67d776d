"""How fast a training goes: counts against known ones, rates against a clock."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from examples.pace import (
    EpochTimes,
    Pace,
    input_rate,
    matmul_rate,
    training_flops,
)
from examples.resnet import resnet

PACE = Pace(
    images=1000,
    epoch_seconds=2.0,
    epochs_timed=3,
    flops_per_image=4e9,
    matmul_flops=8e12,
    dtype="float16",
    input_rate=2000.0,
    retraining_seconds=3.0,
)


@pytest.mark.parametrize("depth", [8, 20, 56])
def test_the_arithmetic_of_a_residual_network_follows_from_its_stages(depth):
    n = (depth - 2) // 6
    whole = 9 * 16 * 16 * 32 * 32  # each stage halves the sides, doubles the filters
    first_of_later_stage = whole // 2  # from half as many filters
    stages = 2 * n * whole + 2 * (first_of_later_stage + (2 * n - 1) * whole)
    products = 9 * 3 * 16 * 32 * 32 + stages + 64 * 10
    assert training_flops(resnet(depth, (32, 32, 3), 10)) == 6 * products


def test_the_arithmetic_is_what_a_loop_over_outputs_counts():
    kernel, places, filters, channels = (3, 2), (4, 5), 7, 2
    image = keras.Input((9, 10, channels))
    x = keras.layers.Conv2D(filters, kernel, strides=2)(image)
    assert x.shape[1:3] == places
    inner = keras.Sequential([keras.Input((filters,)), keras.layers.Dense(6)])
    x = inner(keras.layers.GlobalMaxPooling2D()(x))
    counted = 0
    for _ in np.ndindex(*places, filters):
        counted += np.prod(kernel) * channels
    counted += filters * 6
    assert training_flops(keras.Model(image, x)) == 6 * counted


def test_a_product_is_counted_and_timed():
    rate = matmul_rate(seconds=0.05, largest=512)
    began = time.perf_counter()
    square = np.ones((512, 512), "f")
    for _ in range(3):
        square @ square
    here = 3 * 2 * 512**3 / (time.perf_counter() - began)
    assert here / 100 < rate < here * 100


def test_input_is_timed_until_the_time_is_up():
    def slow(number):
        time.sleep(0.02)
        return number

    stream = tf.data.Dataset.range(1000).map(
        lambda n: (n, tf.numpy_function(slow, [n], tf.int64))
    )
    began = time.perf_counter()
    rate = input_rate(stream.batch(2, drop_remainder=True), seconds=0.2)
    assert time.perf_counter() - began < 10  # and not the 20 s of the whole
    assert 0 < rate <= 50


def test_epochs_are_timed_without_the_first_and_without_other_callbacks():
    times = EpochTimes()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    slow = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: time.sleep(0.5))
    data = np.ones((8, 3)), np.ones((8, 1))
    model.fit(*data, epochs=3, verbose=0, callbacks=[times, slow])
    assert len(times.seconds) == 3
    seconds, timed = times.typical()
    assert timed == 2 and 0 < seconds < 0.5
    model.fit(*data, epochs=1, verbose=0, callbacks=[times])
    assert times.typical() == (times.seconds[0], 1)


def test_the_pace_in_words_and_numbers():
    words = str(PACE)
    assert "500 images/s, 2 s an epoch (median of 3)" in words
    assert "2 TFLOP/s, 25.0% of the 8 that a product of float16" in words
    assert "2,000 images/s, 4.0 x the training" in words
    assert "3 s, 1.5 x an epoch" in words
    assert PACE.to_dict()["images_per_second"] == 500
    assert PACE.to_dict()["share_of_matmul"] == 0.25
    slow = Pace(**{**vars(PACE), "input_rate": 510.0})
    assert "510 images/s, training waits for it" in str(slow)
