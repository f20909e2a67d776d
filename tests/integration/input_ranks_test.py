"""Data whose last axis of 1 is missing, or one too many, retrain a head as in `fit`."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import layers

from tests.trained import Trained, compiled
from tf_pseudofeat.evaluation.choose_thresholds import choose_thresholds
from tf_pseudofeat.retraining.retrain import retrain_head

RNG = np.random.default_rng(0)
Y = np.arange(60) % 5 // 4  # 48 and 12 of two classes
IMAGES = (RNG.normal(size=(60, 8, 8, 1)) + Y[:, None, None, None]).astype("float32")
TEXTS = np.where(Y == 0, "the dull film", "a great plot")
QUIET = {"epochs": 1, "verbose": 0, "monitor": None}


def dataset(x):
    return tf.data.Dataset.from_tensor_slices((x, Y)).batch(32)


def classifier(inputs, x):
    x = layers.Dense(4, activation="relu", name="features")(x)
    outputs = layers.Dense(2, activation="softmax")(x)
    loss = "sparse_categorical_crossentropy"
    return Trained(compiled(keras.Model(inputs, outputs), "sgd", loss))


@pytest.fixture(scope="module")
def of_images():
    inputs = keras.Input((8, 8, 1))
    return classifier(inputs, layers.Flatten()(inputs))


@pytest.fixture(scope="module", params=[(), (1,)], ids=["[N]", "[N, 1]"])
def of_texts(request):
    words = layers.TextVectorization(max_tokens=9, output_sequence_length=4)
    words.adapt(TEXTS)
    inputs = keras.Input(request.param, dtype="string")
    numbers = layers.Embedding(9, 3)(words(inputs))
    return classifier(inputs, layers.Reshape((12,))(numbers))


def after(trained, data, validation_data):
    """The weights after retraining, and the scores."""
    model = trained.again()
    options = QUIET | {"validation_data": validation_data}
    report = retrain_head(model, "features", data, **options)
    return model.get_weights(), report.after["balanced_accuracy"]


def test_images_without_their_channels(of_images):
    expected = after(of_images, (IMAGES, Y), (IMAGES, Y))
    flat = IMAGES[..., 0]
    for data, validation_data in [
        ((flat, Y), (flat, Y)),
        ((flat, Y), (IMAGES, Y)),
        ((IMAGES, Y), dataset(flat)),
    ]:
        weights, score = after(of_images, data, validation_data)
        assert score == expected[1]
        for one, other in zip(weights, expected[0], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.tensorflow(reason="texts in the network")
def test_texts_of_either_rank_one_after_the_other(of_texts):
    frame = pd.DataFrame({"text": TEXTS, "y": Y})
    kinds = [dataset(TEXTS), dataset(TEXTS[:, None]), (frame.text, frame.y)]
    scores = {after(of_texts, kinds[i], kinds[i - 1])[1] for i in range(len(kinds))}
    assert len(scores) == 1


@pytest.mark.tensorflow(reason="texts in the network")
def test_thresholds_are_chosen_for_texts_of_either_rank(of_texts):
    frame = pd.DataFrame({"text": TEXTS, "y": Y})
    kinds = [dataset(TEXTS), dataset(TEXTS[:, None]), (frame.text, frame.y)]
    model = of_texts.again()
    first, *others = (choose_thresholds(model, data) for data in kinds)
    assert others == [first] * 2
