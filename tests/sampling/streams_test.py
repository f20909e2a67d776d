"""No two streams share a draw: of classes, epochs, batches, views, heads or seeds.

Each test has its counterpart, a generator that is wrong in the way that it looks for.
"""

import importlib
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import heads
from tests.independence import dependent
from tests.noise import noisy
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.extraction.features import extract_features
from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.sampling.interleave import interleave
from tf_pseudofeat.sampling.oversamplers import (
    GaussianOverSampler,
    PerturbedOverSampler,
)

# The package shows the function by this name, so the module is asked for by name.
interleave_module = importlib.import_module("tf_pseudofeat.sampling.interleave")

# Neighbours in every way.
SEEDS = ((1, 2), (1, 3), (2, 2), (2, 1))
CLASSES, SIZE, EACH, EPOCHS, CHUNK = 3, 8, 200, 3, 256
FAR = 1e6  # where the real features are, and no draw is


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch):
    monkeypatch.setattr(interleave_module, "_CHUNK_ROWS", CHUNK)


def standard_normals():
    """Gaussians whose draws are the normals behind them."""
    gaussian = ClassConditionalGaussian(CLASSES)
    gaussian.build((None, SIZE))
    return gaussian


def fitted_gaussians():
    """Correlated ones, with a mean and a covariance for each class."""
    rng = np.random.default_rng(0)
    labels = np.arange(300) % CLASSES
    features = rng.normal(size=(300, SIZE)) @ rng.normal(size=(SIZE, SIZE))
    gaussian = ClassConditionalGaussian(CLASSES)
    gaussian.adapt(features + rng.normal(size=(CLASSES, SIZE))[labels], labels)
    return gaussian


def epochs_of(gaussian, seed, fresh=True):
    """Yields `(normals, classes)` of each epoch, in the order of the stream.

    The normals are those behind the draws; rows of real features are NaN.
    """
    real = np.full((40, SIZE), FAR, "float32")
    stream = interleave(
        real,
        np.arange(40) % CLASSES,
        gaussian,
        dict.fromkeys(range(CLASSES), EACH),
        batch_size=64,
        seed=seed,
        fresh_each_epoch=fresh,
    )
    loc, scale = (np.asarray(each, np.float64) for each in gaussian.parameters())
    for _ in range(EPOCHS):
        batches = zip(*stream.as_numpy_iterator(), strict=True)
        rows, labels = map(np.concatenate, batches)
        normals = np.linalg.solve(scale[labels], (rows - loc[labels])[..., np.newaxis])
        normals = np.float32(normals[..., 0])
        normals[rows[:, 0] == FAR] = np.nan
        yield normals, labels


def drawn(normals):
    return normals[~np.isnan(normals[:, 0])]


def streams_of(gaussian, seeds=SEEDS, fresh=True):
    """{(seed, epoch, class) and (seed, epoch, chunk): normals}, each set by itself."""
    of_class, of_chunk = {}, {}
    for seed in seeds:
        for epoch, (normals, labels) in enumerate(epochs_of(gaussian, seed, fresh)):
            for class_id in range(CLASSES):
                name = f"seed {seed}, epoch {epoch}, class {class_id}"
                of_class[name] = drawn(normals[labels == class_id])
            for chunk in range(len(normals) // CHUNK):
                rows = normals[chunk * CHUNK : (chunk + 1) * CHUNK]
                of_chunk[f"seed {seed}, epoch {epoch}, chunk {chunk}"] = drawn(rows)
    return of_class, of_chunk


# Pseudo-features.


@pytest.mark.parametrize("make", [standard_normals, fitted_gaussians])
def test_classes_epochs_batches_and_seeds_share_no_draw(make):
    of_class, of_chunk = streams_of(make())
    assert len(of_class) == len(SEEDS) * EPOCHS * CLASSES
    assert len(of_chunk) == len(SEEDS) * EPOCHS * 2
    assert dependent(of_class) == set()
    assert dependent(of_chunk) == set()


def test_the_fixed_set_shares_no_draw_within_or_with_fresh_epochs():
    gaussian = standard_normals()
    of_class = {}
    for seed in SEEDS:
        normals, labels = next(epochs_of(gaussian, seed, fresh=False))
        of_class |= {(seed, c): drawn(normals[labels == c]) for c in range(CLASSES)}
    assert dependent(of_class | streams_of(gaussian, SEEDS[:2])[0]) == set()


def noise_without_classes(loc, scale, labels, seed):
    """`sample_gaussians`, wrong: every class has the same seed."""
    del scale  # a standard normal
    samples = tf.zeros([tf.size(labels), SIZE])
    for class_id in range(CLASSES):
        rows = tf.where(labels == class_id)
        noise = tf.random.stateless_normal([tf.size(rows), SIZE], seed)
        samples = tf.tensor_scatter_nd_update(samples, rows, noise)
    return samples + tf.gather(loc, labels)


def test_one_seed_for_all_classes_would_be_seen(monkeypatch):
    monkeypatch.setattr(interleave_module, "sample_gaussians", noise_without_classes)
    of_class, _ = streams_of(standard_normals(), SEEDS[:1])
    found = dependent(of_class)
    for epoch in range(EPOCHS):
        for first, second in itertools.combinations(range(CLASSES), 2):
            names = (f"seed (1, 2), epoch {epoch}, class {c}" for c in (first, second))
            assert frozenset(names) in found


def test_an_epoch_that_is_not_folded_in_would_be_seen(monkeypatch):
    rerandomized = tf.data.Dataset.random

    def the_same_numbers_each_time(seed, rerandomize_each_iteration):
        del rerandomize_each_iteration
        return rerandomized(seed, rerandomize_each_iteration=False)

    monkeypatch.setattr(tf.data.Dataset, "random", the_same_numbers_each_time)
    _, of_chunk = streams_of(standard_normals(), SEEDS[:1])
    found = dependent(of_chunk)
    for chunk in range(2):
        for first, second in itertools.combinations(range(EPOCHS), 2):
            names = (f"seed (1, 2), epoch {e}, chunk {chunk}" for e in (first, second))
            assert frozenset(names) in found


def test_batches_that_are_not_folded_in_would_be_seen(monkeypatch):
    folded = tf.random.experimental.stateless_fold_in

    def all_but_positions(seed, data):
        """Of the numbers from 0 to 9, which only positions are, all are 0."""
        return folded(seed, tf.where((data >= 0) & (data < 10), 0 * data, data))

    monkeypatch.setattr(tf.random.experimental, "stateless_fold_in", all_but_positions)
    _, of_chunk = streams_of(standard_normals(), SEEDS[:1])
    found = dependent(of_chunk)
    for epoch in range(EPOCHS):
        names = (f"seed (1, 2), epoch {epoch}, chunk {c}" for c in range(2))
        assert frozenset(names) in found


def test_a_seed_to_which_the_epoch_is_added_would_be_seen():
    streams = {
        (seed, epoch): tf.random.stateless_normal([1000], np.add(seed, (epoch, 0)))
        for seed in SEEDS
        for epoch in range(EPOCHS)
    }
    found = dependent({name: normals.numpy() for name, normals in streams.items()})
    assert frozenset([((1, 2), 1), ((2, 2), 0)]) in found
    assert frozenset([((1, 2), 2), ((2, 2), 1)]) in found


@pytest.mark.parametrize("shift", [1, 7, 20])
def test_a_stream_that_follows_another_would_be_seen(shift):
    rng = np.random.default_rng(0)
    normals = rng.normal(size=3000)
    noise = rng.normal(size=3000)
    mixed = 0.2 * np.roll(normals, shift) + np.sqrt(1 - 0.2**2) * noise
    assert dependent({"one": normals, "other": mixed}) == {frozenset(["one", "other"])}
    itself = normals + 0.2 * np.roll(normals, shift)
    assert dependent({"one": itself, "other": noise}) == {frozenset(["one"])}


def test_sampling_shares_no_draw_between_rows_or_seeds():
    gaussian = standard_normals()
    seeds = [*SEEDS, (0, 0), (0, 1), (1, 0), (-1, 2), (2**31 - 2, 2), (10**12, 5)]
    labels = np.zeros(256, int)
    streams = {seed: gaussian.sample(labels, seed).numpy() for seed in seeds}
    assert dependent(streams) == set()


# Views.


def views_of(augment, seeds=SEEDS):
    """{(seed, view, batch): normals}."""
    trunk = keras.Sequential([keras.Input((SIZE,)), keras.layers.Identity()])
    data = (np.zeros((512, SIZE), "float32"), np.zeros(512, int))  # two batches
    streams = {}
    for seed in seeds:
        features, _ = extract_features(
            trunk, data, augment=augment, views=3, seed=seed, verbose=0
        )
        parts = itertools.product(range(3), range(2))
        streams |= {
            (seed, *part): normals
            for part, normals in zip(parts, np.split(features, 6), strict=True)
        }
    return streams


@pytest.mark.parametrize(
    "augment", [noisy, keras.layers.GaussianNoise(1.0)], ids=["function", "layer"]
)
def test_views_batches_and_seeds_share_no_draw(augment):
    assert dependent(views_of(augment)) == set()


def test_a_view_that_ignores_its_batch_would_be_seen():
    streams = views_of(lambda x, seed: noisy(x, seed * [1, 0]), SEEDS[:1])
    assert frozenset([((1, 2), 0, 0), ((1, 2), 0, 1)]) in dependent(streams)


# The head.


def blobs():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    features = rng.normal(size=(60, SIZE)) + labels[:, np.newaxis]
    return LabeledFeatures(features.astype("float32"), labels)


def trained(seed, *inside, **settings):
    """A head after a training that moves nothing."""
    last = keras.layers.Dense(2, "softmax")
    head = keras.Sequential([keras.Input((SIZE,)), *inside, last])
    data = blobs()
    heads.fit(
        head,
        data,
        data,
        num_classes=2,
        optimizer=keras.optimizers.SGD(0.0),
        epochs=1,
        seed=seed,
        **settings,
    )
    return head


@pytest.mark.integration
def test_fresh_weights_of_layers_and_seeds_share_no_draw():
    streams = {}
    for seed in SEEDS[:3]:
        inside = [
            keras.layers.Dense(40, kernel_initializer="random_normal") for _ in range(3)
        ]
        head = trained(seed, *inside, fresh_head=True)
        streams |= {(seed, i): head.layers[i].get_weights()[0] for i in (1, 2)}
    assert dependent(streams) == set()


@pytest.mark.integration
def test_noise_of_the_head_is_none_of_the_views_noise():
    """They were the same: NumPy takes the seed (1, 2) for that of its view 0."""
    streams = views_of(keras.layers.GaussianNoise(1.0))
    for seed in SEEDS:
        layer = keras.layers.GaussianNoise(1.0)
        trained(seed, layer)
        first, steps = layer.seed_generator.state.numpy()
        assert steps > 0  # it has been drawn from
        layer.seed_generator.state.assign([first, 0])
        noise = layer(np.zeros((256, SIZE), "float32"), training=True)
        streams[seed] = np.asarray(noise)
    assert dependent(streams) == set()


# Oversamplers.


@pytest.mark.parametrize("sampler", [GaussianOverSampler, PerturbedOverSampler])
def test_oversamplers_share_no_draw_between_classes_or_states(sampler):
    rng = np.random.default_rng(0)
    labels = np.repeat(range(CLASSES), [300, 40, 40])
    features = rng.normal(size=(len(labels), SIZE))
    streams = {}
    for state in range(5):
        rows, ids = sampler(random_state=state).fit_resample(features, labels)
        for class_id in (1, 2):
            new = rows[len(labels) :][ids[len(labels) :] == class_id]
            streams[state, class_id] = (new - new.mean(axis=0)) / new.std(axis=0)
    assert dependent(streams) == set()
