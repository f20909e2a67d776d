"""Tests for features.py: small trunks over data of every form."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.noise import noisy
from tests.py_datasets import ArrayBatches
from tf_pseudofeat.data.batches import first_batch
from tf_pseudofeat.data.checks import check_data
from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.extraction.options import Extraction

NUM = 23
RNG = np.random.default_rng(0)
X = RNG.normal(size=(NUM, 3)).astype("float32")
Y = RNG.integers(4, size=NUM)
WEIGHT = RNG.random(NUM).astype("float32")


def dataset_of(*arrays, batch_size=5):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(batch_size)


FORMS = {
    "arrays": lambda *arrays: arrays,
    "list of arrays": lambda *arrays: list(arrays),
    "dataset": dataset_of,
    "one batch": lambda *arrays: dataset_of(*arrays, batch_size=100),
    "batches of one": lambda *arrays: dataset_of(*arrays, batch_size=1),
    "unknown length": lambda *arrays: dataset_of(*arrays).filter(lambda *_: True),
    "PyDataset": lambda *arrays: ArrayBatches(*arrays, batch_size=5),
}
every_form = pytest.mark.parametrize("form", FORMS)


def dense_trunk(inputs=3):
    """`relu(x w + b)`, with every unit heard from."""
    trunk = keras.Sequential([keras.Input((inputs,)), layers.Dense(6, "relu")])
    rng = np.random.default_rng(1)
    trunk.set_weights([rng.normal(size=w.shape) for w in trunk.get_weights()])
    return trunk


def forward(x, trunk):
    kernel, bias = (w.astype("float64") for w in trunk.get_weights()[:2])
    return np.maximum(x.astype("float64") @ kernel + bias, 0)


def identity_trunk(shape=(3,)):
    return keras.Sequential([keras.Input(shape), layers.Identity()])


# What comes out.


@every_form
def test_features_are_what_the_trunk_computes(form):
    trunk = dense_trunk()
    features, labels = extract_features(trunk, FORMS[form](X, Y), verbose=0)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, forward(X, trunk), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels, Y)


@every_form
@pytest.mark.parametrize(
    "labels",
    [Y.astype("uint8"), Y.astype("float32")[:, np.newaxis], np.eye(4, dtype="f")[Y]],
)
def test_labels_and_weights_come_back_as_they_came(form, labels):
    data = FORMS[form](X, labels, WEIGHT)
    extracted = extract_features(identity_trunk(), data, verbose=0)
    assert extracted.labels.dtype == labels.dtype
    np.testing.assert_array_equal(extracted.features, X)
    np.testing.assert_array_equal(extracted.labels, labels)
    np.testing.assert_array_equal(extracted.sample_weight, WEIGHT)
    assert len(list(extracted)) == 2  # it unpacks to features and labels


@every_form
def test_without_weights_there_are_none(form):
    data = FORMS[form](X, Y)
    assert extract_features(identity_trunk(), data, verbose=0).sample_weight is None


def test_labels_stay_with_their_features_where_the_dataset_shuffles():
    x = np.arange(200, dtype="float32")[:, np.newaxis]
    dataset = tf.data.Dataset.from_tensor_slices((x, np.arange(200), 1 + x[:, 0]))
    dataset = dataset.shuffle(200, reshuffle_each_iteration=True).batch(7).prefetch(2)
    extracted = extract_features(identity_trunk((1,)), dataset, verbose=0)
    np.testing.assert_array_equal(extracted.features[:, 0], extracted.labels)
    np.testing.assert_array_equal(extracted.sample_weight, extracted.labels + 1)
    np.testing.assert_array_equal(np.sort(extracted.labels), np.arange(200))
    assert (np.diff(extracted.labels) < 0).any()


def test_layers_are_in_inference_mode_and_stay_as_they_are():
    trunk = dense_trunk()
    trunk.add(layers.BatchNormalization())
    trunk.add(layers.Dropout(0.5))
    gamma, beta, mean, variance = (RNG.random((4, 6)) + 0.5).astype("float32")
    trunk.layers[1].set_weights([gamma, beta, mean, variance])
    before = trunk.get_weights()
    features, _ = extract_features(trunk, (X, Y), verbose=0)
    expected = (forward(X, trunk) - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    for now, then in zip(trunk.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@every_form
@pytest.mark.parametrize("shape", [(1,), (2, 3), (2, 2, 1)])
def test_feature_maps_keep_their_shape(form, shape):
    x = RNG.normal(size=(NUM, *shape)).astype("float32")
    features, _ = extract_features(identity_trunk(shape), FORMS[form](x, Y), verbose=0)
    np.testing.assert_array_equal(features, x)


@pytest.mark.parametrize(
    "dtype",
    [
        "float16",
        "bfloat16",
        pytest.param("float64", marks=pytest.mark.tensorflow(reason="float64")),
    ],
)
def test_features_have_the_dtype_that_the_trunk_computes(dtype):
    inputs = keras.Input((3,), dtype="uint8")
    trunk = keras.Model(inputs, layers.Rescaling(1 / 4, dtype=dtype)(inputs))
    x = RNG.integers(256, size=(NUM, 3)).astype("uint8")
    features, _ = extract_features(trunk, dataset_of(x, Y), verbose=0)
    assert features.dtype.name == dtype
    np.testing.assert_allclose(features.astype("float64"), x / 4, rtol=1e-2)


def two_input_trunk():
    left, right = keras.Input((3,), name="left"), keras.Input((1,), name="right")
    joined = layers.Concatenate()([left, right])
    return keras.Model({"left": left, "right": right}, joined)


@pytest.mark.parametrize("form", ["arrays", "dataset", "unknown length"])
def test_inputs_may_be_a_dict(form):
    x = {"right": 2 * X[:, :1], "left": X}
    features, _ = extract_features(two_input_trunk(), FORMS[form](x, Y), verbose=0)
    np.testing.assert_array_equal(features, np.concatenate([X, 2 * X[:, :1]], axis=1))


def test_inputs_may_be_several_and_the_labels_a_dict_of_one():
    left, right = keras.Input((3,)), keras.Input((3,))
    trunk = keras.Model([left, right], layers.Subtract()([left, right]))
    data = dataset_of((X, X / 4), {"class": Y})
    features, labels = extract_features(trunk, data, verbose=0)
    np.testing.assert_allclose(features, 0.75 * X, rtol=1e-6)
    np.testing.assert_array_equal(labels, Y)


def test_a_trunk_may_be_a_subclass_that_was_never_built():
    class Twice(keras.Model):
        def call(self, x):
            return 2 * x

    features, _ = extract_features(Twice(), dataset_of(X, Y), verbose=0)
    np.testing.assert_array_equal(features, 2 * X)


def test_one_example_is_enough():
    features, labels = extract_features(identity_trunk(), (X[:1], Y[:1]), verbose=0)
    assert (features.shape, labels.shape) == ((1, 3), (1,))


def test_arrays_longer_than_a_batch_come_whole():
    x = RNG.normal(size=(1000, 3)).astype("float32")
    y = np.arange(1000)
    features, labels = extract_features(identity_trunk(), (x, y), verbose=0)
    np.testing.assert_array_equal(features, x)
    np.testing.assert_array_equal(labels, y)


# How the data is read.


def counted_dataset(num_batches, made):
    """Batches of 2 from a generator that notes in `made` what it was asked for."""

    def batches():
        made.append("start")
        for i in range(num_batches):
            made.append(i)
            yield np.full((2, 3), i, "float32"), np.full(2, i)

    spec = tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int64)
    options = tf.data.Options()
    options.experimental_optimization.inject_prefetch = False  # it reads ahead
    dataset = tf.data.Dataset.from_generator(batches, output_signature=spec)
    return dataset.with_options(options)


@pytest.mark.parametrize("steps", [None, 1, 3])
def test_the_data_is_read_once_and_no_further_than_asked(steps):
    made = []
    dataset = counted_dataset(4, made)
    _, labels = extract_features(identity_trunk(), dataset, steps=steps, verbose=0)
    num = steps or 4
    np.testing.assert_array_equal(labels, np.repeat(np.arange(num), 2))
    assert made == ["start", *range(num)]


@pytest.mark.parametrize("steps", [None, 1, 3])
def test_a_py_dataset_is_asked_once_for_each_batch(steps):
    data = ArrayBatches(X, Y, batch_size=5)
    extract_features(identity_trunk(), data, steps=steps, verbose=0)
    assert data.asked == list(range(steps or 5))


@every_form
@pytest.mark.parametrize("steps", [1, 1000])
def test_steps_are_a_bound(form, steps):
    data = FORMS[form](X, Y)
    features, _ = extract_features(identity_trunk(), data, steps=steps, verbose=0)
    size = {"dataset": 5, "unknown length": 5, "PyDataset": 5, "batches of one": 1}
    expected = size.get(form, NUM) if steps == 1 else NUM
    np.testing.assert_array_equal(features, X[:expected])


def test_an_infinite_dataset_is_read_for_so_many_steps():
    data = dataset_of(X, Y).repeat()
    features, _ = extract_features(identity_trunk(), data, steps=8, verbose=0)
    np.testing.assert_array_equal(features, np.concatenate([X, X[:15]]))


@every_form
def test_the_first_batch_is_the_first(form):
    x, y, weight = first_batch(FORMS[form](X, Y, WEIGHT), Extraction())
    np.testing.assert_array_equal(x, X[: len(x)])
    np.testing.assert_array_equal(y, Y[: len(x)])
    np.testing.assert_array_equal(weight, WEIGHT[: len(x)])
    assert len(x) > 0


@every_form
@pytest.mark.parametrize("verbose", [0, 1, "auto"])
def test_progress_is_shown_when_asked_for(form, verbose, capsys):
    extract_features(identity_trunk(), FORMS[form](X, Y), verbose=verbose)
    assert bool(capsys.readouterr().out) == bool(verbose)


# Errors, before any work.


class Untouchable:
    """Stands for a trunk where none may be used."""


def unreadable(*spec):
    def fail():
        raise AssertionError("the data was read")
        yield

    return tf.data.Dataset.from_generator(fail, output_signature=spec)


FLOATS, IDS = tf.TensorSpec([None, 3]), tf.TensorSpec([None], tf.int64)


@pytest.mark.parametrize(
    ("data", "steps", "message"),
    [
        (unreadable(FLOATS, IDS).repeat(), None, r"is infinite .* pass `steps`"),
        (dataset_of(X, Y).take(0), None, r"The dataset is empty"),
        (
            unreadable(FLOATS, IDS),
            0,
            r"`steps` must be a whole number of at least 1; received 0",
        ),
        (unreadable(FLOATS), None, r"must yield \(x, y\) or .*received tuple of 1"),
        (unreadable(*[FLOATS] * 4), None, r"received tuple of 4"),
        (unreadable(FLOATS, (IDS, IDS)), None, r"One set of labels .* `y` holds 2"),
        (unreadable(FLOATS, {"a": IDS, "b": IDS}), None, r"`y` holds 2"),
        (
            unreadable(tf.TensorSpec([3]), tf.TensorSpec([], tf.int64)),
            None,
            r"single examples, not batches .* Add `.batch\(256\)`",
        ),
        (dataset_of({"x": X, "y": Y}).map(lambda d: d), None, r"received a dict of"),
        ((X,), None, r"must yield \(x, y\) .*received tuple of 1"),
        ((X, Y[:-1]), None, r"same length, at least 1; .* \[22, 23\]"),
        ((X, Y, WEIGHT[:5]), None, r"received lengths \[5, 23\]"),
        (({"a": X, "b": X[:4]}, Y), None, r"received lengths \[4, 23\]"),
        ((X[:0], Y[:0]), None, r"received lengths \[0\]"),
        ((X, {"a": Y, "b": Y}), None, r"`y` holds 2"),
    ],
)
def test_data_that_cannot_be_used_raises_unread(data, steps, message):
    if steps != 0:  # which no extraction can have
        with pytest.raises(ValueError, match=message):
            check_data(data, steps)
    with pytest.raises(ValueError, match=message):
        extract_features(Untouchable(), data, steps=steps, verbose=0)


@pytest.mark.parametrize("data", [X, {"x": X}, iter([(X, Y)]), None, "train"])
def test_what_is_no_data_raises(data):
    message = rf"tuple of arrays \(x, y\); received {type(data).__name__}"
    with pytest.raises(TypeError, match=message):
        extract_features(Untouchable(), data, verbose=0)


def test_a_dataset_that_turns_out_empty_raises():
    data = dataset_of(X, Y).filter(lambda *_: False)
    with pytest.raises(ValueError, match=r"The data has no batch"):
        extract_features(identity_trunk(), data, verbose=0)


def test_a_weight_of_none_is_no_weight():
    extracted = extract_features(identity_trunk(), (X, Y, None), verbose=0)
    np.testing.assert_array_equal(extracted.features, X)
    assert extracted.sample_weight is None


def test_labels_in_a_list_raise_by_name():
    with pytest.raises(ValueError, match=r"`y` is a list of 23; pass an array"):
        extract_features(identity_trunk(), (X, Y.tolist()), verbose=0)


def doubled(x):
    return 2 * x


@pytest.mark.parametrize(
    "augment", [noisy, keras.layers.GaussianNoise(1.0)], ids=["function", "layer"]
)
def test_views_are_other_inputs_each_time_and_follow_from_the_seed(augment):
    trunk = keras.Sequential([keras.Input((3,)), keras.layers.Identity()])
    x, y = np.zeros((600, 3), np.float32), np.arange(600) % 4

    def views(seed):
        return extract_features(
            trunk, (x, y), augment=augment, views=2, seed=seed, verbose=0
        )

    features, labels = views((1, 2))
    np.testing.assert_array_equal(labels, np.tile(y, 2))
    assert abs(features.std() - 1) < 0.1
    assert not np.isclose(features[:600], features[600:]).any(axis=1).any()
    assert not np.isclose(features[:256], features[256:512]).any(axis=1).any()
    np.testing.assert_array_equal(features, views((1, 2)).features)
    assert not np.array_equal(features, views((1, 3)).features)


def test_a_function_without_a_seed_augments_three_views():
    trunk = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    x, y, weight = np.ones((2, 1), np.float32), [0, 1], [5.0, 6.0]
    extracted = extract_features(
        trunk, (x, np.array(y), np.array(weight)), augment=doubled, views=3, verbose=0
    )
    np.testing.assert_array_equal(extracted.features, np.full((6, 1), 2.0))
    np.testing.assert_array_equal(extracted.labels, y * 3)
    np.testing.assert_array_equal(extracted.sample_weight, weight * 3)


def test_views_need_an_augmentation_that_can_be_called():
    data = (np.ones((2, 1), np.float32), np.array([0, 1]))
    trunk = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    with pytest.raises(ValueError, match="views=3 needs `augment`"):
        extract_features(trunk, data, views=3)
    with pytest.raises(ValueError, match="`views` must be a whole number.*0"):
        extract_features(trunk, data, augment=doubled, views=0)
    with pytest.raises(TypeError, match="`augment`.*received 'flip'"):
        extract_features(trunk, data, augment="flip")


def test_automatic_is_as_it_is_for_the_parts():
    trunk = keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Flatten()])
    x, y = np.random.default_rng(0).normal(size=(600, 16, 16, 1)), np.zeros(600, int)
    features, _ = extract_features(trunk, (x, y), Extraction(batch_size=64), verbose=0)
    np.testing.assert_allclose(features, x.reshape(600, -1), rtol=1e-6)


def test_weights_that_are_all_0_are_named_also_where_examples_are_chosen():
    trunk = keras.Sequential([keras.Input((1,)), keras.layers.Identity()])
    data = np.ones((3, 1), "f4"), np.array([0, 1, 1]), np.zeros(3)
    for per_class in (None, 2):
        with pytest.raises(ValueError, match="All sample weights are 0"):
            extract_features(trunk, data, per_class=per_class, verbose=0)


def open_trunk(pooled=False):
    x = inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 4)(x)
    x = layers.GlobalAveragePooling1D()(x) if pooled else x
    return keras.Model(inputs, x, name="open_trunk")


def test_first_batch_of_another_length_is_named():
    lengths = ArrayBatches(np.ones((10, 6), "int32"), np.zeros(10, int), batch_size=5)

    class Growing(ArrayBatches):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x[:, : 3 + index], y

    fixed = extract_features(open_trunk(), lengths, verbose=0)
    assert fixed.features.shape == (10, 6, 4)
    growing = Growing(*lengths.arrays, batch_size=5)
    message = r"Batch 1, .*shape \[4, 4\], those of the first batch \[3, 4\]. .*pooling"
    with pytest.raises(ValueError, match=message):
        extract_features(open_trunk(), growing, verbose=0)
    pooled = extract_features(open_trunk(pooled=True), growing, verbose=0)
    assert pooled.features.shape == (10, 4)


def test_dataset_of_open_length_raises_unread():
    data = tf.data.Dataset.from_generator(
        lambda: iter([]),
        output_signature=(
            tf.TensorSpec((None, None), tf.int32),
            tf.TensorSpec((None,), tf.int64),
        ),
    )
    with pytest.raises(ValueError, match=r"'open_trunk' have shape \[None, 4\]"):
        extract_features(open_trunk(), data, verbose=0)
