"""Tests for interleave.py: what an epoch holds, and in which order."""

import collections
import importlib
import itertools

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tf_pseudofeat.gaussians.class_conditional_gaussian import ClassConditionalGaussian
from tf_pseudofeat.gaussians.covariance import COVARIANCE_TYPES
from tf_pseudofeat.sampling.interleave import interleave

# The package shows the function by this name, so the module is asked for by name.
interleave_module = importlib.import_module("tf_pseudofeat.sampling.interleave")

NUM_REAL, SIZE = 60, 4
COUNTS = {1: 37, 2: 11}
RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.repeat([0, 1, 2], [40, 12, 8]))
# Classes stand far apart, so that a pseudo-feature tells where it came from.
CENTRES = np.float32([[0.0] * SIZE, [50.0] * SIZE, [-50.0] * SIZE])
FEATURES = CENTRES[LABELS] + RNG.normal(size=(NUM_REAL, SIZE)).astype("float32")

both_modes = pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "fixed"])


@pytest.fixture(params=[4096, 16], ids=["one chunk", "chunks"])
def chunk_rows(request, monkeypatch):
    """An epoch is made in one piece, or in several."""
    monkeypatch.setattr(interleave_module, "_CHUNK_ROWS", request.param)


def make_gaussian(covariance_type="full", features=FEATURES):
    gaussian = ClassConditionalGaussian(3, covariance_type)
    gaussian.adapt(features, LABELS)
    return gaussian


GAUSSIAN = make_gaussian()


def stream(counts=COUNTS, fresh=True, features=FEATURES, labels=LABELS, **kwargs):
    kwargs.setdefault("batch_size", 8)
    return interleave(
        features, labels, GAUSSIAN, counts, fresh_each_epoch=fresh, **kwargs
    )


def read(batches):
    """All batches as one tuple of arrays."""
    columns = zip(*batches, strict=True)
    return tuple(np.concatenate([np.asarray(b) for b in column]) for column in columns)


def epochs(dataset, num):
    """`num` epochs, each as a tuple of arrays."""
    return [read(dataset) for _ in range(num)]


def places_of_real(features, real=FEATURES):
    """Which row of `real` each row of `features` is, or -1."""
    known = {row.tobytes(): i for i, row in enumerate(np.asarray(real))}
    return np.array([known.get(row.tobytes(), -1) for row in features])


def pseudo_rows(features):
    return features[places_of_real(features) < 0]


def in_order(rows):
    return rows[np.lexsort(rows.T)]


# What an epoch holds.


@both_modes
@pytest.mark.parametrize(
    ("counts", "batch_size"),
    [(COUNTS, 1), (COUNTS, 54), ({0: 1, 2: 200}, 7), ({0: 1, 2: 200}, 1000)],
)
def test_an_epoch_is_exact(fresh, batch_size, counts, chunk_rows):
    dataset = stream(counts, fresh, batch_size=batch_size)
    total = NUM_REAL + sum(counts.values())
    for _ in range(2):
        batches = list(dataset)
        assert len(batches) == len(dataset) == -(-total // batch_size)
        assert {len(batch[0]) for batch in batches[:-1]} <= {batch_size}
        features, labels = read(batches)
        assert len(features) == len(labels) == total
        places = places_of_real(features)
        real = places >= 0
        np.testing.assert_array_equal(np.sort(places[real]), np.arange(NUM_REAL))
        np.testing.assert_array_equal(labels[real], LABELS[places[real]])
        assert collections.Counter(labels[~real].tolist()) == counts


def test_a_strategy_of_one_device_reads_the_same_batches():
    dataset, strategy = stream(), tf.distribute.MirroredStrategy(["CPU:0"])
    distributed = strategy.experimental_distribute_dataset(dataset)
    received = [len(labels) for _, labels in distributed]
    assert received == [len(labels) for _, labels in dataset]


def test_batches_larger_than_a_chunk_are_exact():
    (epoch,) = epochs(stream({1: 12_000}, batch_size=5000), 1)
    places = places_of_real(epoch[0])
    np.testing.assert_array_equal(np.sort(places[places >= 0]), np.arange(NUM_REAL))
    assert (epoch[1][places < 0] == 1).sum() == 12_000


@both_modes
def test_no_pseudo_feature_is_drawn_twice(fresh, chunk_rows):
    (epoch,) = epochs(stream({1: 300, 2: 300}, fresh), 1)
    assert len(np.unique(epoch[0], axis=0)) == len(epoch[0]) == NUM_REAL + 600
    # Nor is the same noise given to two classes.
    rows = pseudo_rows(epoch[0])
    assert len(np.unique(rows)) > 0.99 * rows.size


@both_modes
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_pseudo_features_follow_the_gaussian_of_their_class(
    fresh, covariance_type, monkeypatch
):
    monkeypatch.setattr(interleave_module, "_CHUNK_ROWS", 300)
    gaussian, num = make_gaussian(covariance_type), 1500
    features, labels = read(
        interleave(
            FEATURES,
            LABELS,
            gaussian,
            {0: num, 2: num},
            batch_size=100,
            fresh_each_epoch=fresh,
        )
    )
    is_pseudo = places_of_real(features) < 0
    means = gaussian.distribution.mean().numpy()
    covariances = gaussian.distribution.covariance().numpy()
    covariances = np.broadcast_to(covariances, (3, SIZE, SIZE))
    for class_id in (0, 2):
        rows = features[is_pseudo & (labels == class_id)]
        law = np.linalg.cholesky(covariances[class_id].astype("float64"))
        white = np.linalg.solve(law, (rows - means[class_id]).T)
        assert np.abs(white.mean(axis=1)).max() < 5 / np.sqrt(num)
        assert np.abs(np.cov(white) - np.eye(SIZE)).max() < 5 * np.sqrt(2 / num)
        distance = np.square(white).sum(axis=0)
        assert stats.kstest(distance, stats.chi2(SIZE).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    "encode",
    [
        lambda ids: ids.astype("uint8"),
        lambda ids: ids.astype("int32"),
        lambda ids: ids.astype("float32"),
        lambda ids: ids[:, np.newaxis],
        lambda ids: ids.astype("float32")[:, np.newaxis],
        lambda ids: np.eye(3, dtype="float32")[ids],
        lambda ids: np.eye(3, dtype="int64")[ids],
        lambda ids: np.eye(3, dtype=ml_dtypes.bfloat16)[ids],
    ],
)
def test_labels_keep_their_form(encode):
    labels = encode(LABELS)
    dataset = stream(labels=labels)
    assert dataset.element_spec[1].shape[1:] == labels.shape[1:]
    features, received = read(dataset)
    assert received.dtype == labels.dtype
    # Every row is where its label says, real or not.
    ids = np.argmin([np.abs(features - centre).sum(1) for centre in CENTRES], axis=0)
    np.testing.assert_array_equal(received, encode(ids))


@both_modes
def test_real_weights_stay_and_a_pseudo_feature_weighs_as_its_class(fresh, chunk_rows):
    weight = np.random.default_rng(1).random(NUM_REAL).astype("float32")
    features, labels, received = read(stream(fresh=fresh, sample_weight=weight))
    places = places_of_real(features)
    real = places >= 0
    np.testing.assert_array_equal(received[real], weight[places[real]])
    for class_id in COUNTS:
        mine = received[~real & (labels == class_id)]
        expected = weight[class_id == LABELS].mean()
        np.testing.assert_allclose(mine, expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (1, 4, 1), (2, 1, 2, 1)])
def test_feature_maps_keep_their_shape(shape):
    maps = FEATURES.reshape(-1, *shape)
    gaussian = make_gaussian(features=maps)
    dataset = interleave(maps, LABELS, gaussian, COUNTS, batch_size=8)
    assert dataset.element_spec[0].shape[1:] == shape
    received, expected = read(dataset), read(stream())
    assert received[0].shape == (108, *shape)
    np.testing.assert_array_equal(received[0].reshape(-1, SIZE), expected[0])


@pytest.mark.parametrize(
    "dtype", ["float16", ml_dtypes.bfloat16, "float64", "int32", "int8"]
)
def test_features_keep_their_dtype_and_stay_within_its_range(dtype):
    limits = np.iinfo if np.dtype(dtype).kind == "i" else ml_dtypes.finfo
    largest = min(float(limits(dtype).max), 1e30)
    scale = largest / np.abs(FEATURES).max()  # samples would go beyond
    features = (FEATURES.astype("float64") * scale).astype(dtype)
    gaussian = ClassConditionalGaussian(3, covariance_scale=4.0)
    gaussian.adapt(FEATURES * min(scale, 1e15), LABELS)
    received, _ = read(interleave(features, LABELS, gaussian, {1: 300}))
    assert received.dtype == features.dtype
    assert np.isfinite(received.astype("float64")).all()
    if scale < 1e15:
        assert received.astype("float64").max() >= 0.999 * largest
    places = places_of_real(received, features)
    assert set(range(NUM_REAL)) <= set(places.tolist())


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "uint64"])
def test_beside_whole_numbers_draws_are_rounded_into_their_range(dtype):
    limits = np.iinfo(dtype)
    gaussian = make_gaussian(features=FEATURES * limits.max / 40.0)  # beyond the range
    features = np.abs(FEATURES).astype(dtype)
    with pytest.warns(UserWarning, match=f"dtype {dtype}: .* rounded") as caught:
        dataset = interleave(features, LABELS, gaussian, COUNTS)
    ours = [each.filename for each in caught if each.category is UserWarning]
    assert ours == [__file__]
    received, _ = read(dataset)
    floats, _ = read(interleave(features.astype("f4"), LABELS, gaussian, COUNTS))
    wanted = [
        [min(max(round(x), limits.min), limits.max) for x in row]
        for row in floats.tolist()
    ]
    np.testing.assert_array_equal(received, np.array(wanted, dtype))
    assert (received == limits.max).any() and (received == limits.min).any()


def test_real_whole_numbers_alone_are_not_warned_of(recwarn):
    read(interleave(FEATURES.astype("int32"), LABELS))
    assert not [each for each in recwarn if "rounded" in str(each.message)]


@pytest.mark.parametrize("labels", [LABELS, np.eye(3)[LABELS], LABELS[:, np.newaxis]])
@pytest.mark.parametrize("counts", [None, {1: 0}])
def test_real_features_stream_alone_without_a_gaussian(labels, counts):
    features, received = read(interleave(FEATURES, labels, None, counts, 7))
    places = places_of_real(features)
    np.testing.assert_array_equal(np.sort(places), np.arange(NUM_REAL))
    assert (places != np.arange(NUM_REAL)).any()
    np.testing.assert_array_equal(received, labels[places])


@both_modes
def test_one_real_example_is_enough(fresh):
    dataset = interleave(FEATURES[:1], LABELS[:1], fresh_each_epoch=fresh)
    features, labels = read(dataset)
    np.testing.assert_array_equal(features, FEATURES[:1])
    np.testing.assert_array_equal(labels, LABELS[:1])


def test_a_class_may_have_pseudo_features_alone():
    others = LABELS != 2
    features, labels = FEATURES[others], LABELS[others]
    _, received = read(interleave(features, labels, GAUSSIAN, {2: 9}))
    np.testing.assert_array_equal(np.bincount(received), [40, 12, 9])


@pytest.mark.parametrize(
    "counts",
    [{np.int64(1): np.int64(5), 0: 0}, {1: 5.0}, {1.0: np.float32(5)}, {1: 5, 2: 0}],
)
def test_counts_may_be_any_whole_numbers(counts):
    features, labels = read(stream(counts))
    expected = read(stream({1: 5}))
    np.testing.assert_array_equal(features, expected[0])
    np.testing.assert_array_equal(labels, expected[1])


def test_the_order_of_the_counts_makes_no_difference():
    features, labels = read(stream({2: 11, 1: 37}))
    expected = read(stream({1: 37, 2: 11}))
    np.testing.assert_array_equal(features, expected[0])
    np.testing.assert_array_equal(labels, expected[1])


def test_what_came_later_to_the_gaussian_does_not_reach_the_stream():
    gaussian = make_gaussian()
    dataset = interleave(FEATURES, LABELS, gaussian, COUNTS, 8)
    before = read(dataset.take(3))
    gaussian.adapt(FEATURES + 7, LABELS)
    after = interleave(FEATURES, LABELS, gaussian, COUNTS, 8)
    expected = read(interleave(FEATURES, LABELS, make_gaussian(), COUNTS, 8).take(3))
    np.testing.assert_array_equal(before[0], expected[0])
    read(dataset)  # more of it
    rows = pseudo_rows(read(dataset)[0])
    distance = np.abs(rows[:, np.newaxis] - CENTRES).max(axis=-1).min(axis=-1)
    assert distance.max() < 6
    shifted = pseudo_rows(read(after)[0]) - 7
    distance = np.abs(shifted[:, np.newaxis] - CENTRES).max(axis=-1).min(axis=-1)
    assert distance.max() < 6


# The order.


@both_modes
def test_every_row_may_come_at_every_place(fresh):
    features, labels, counts = FEATURES[:7], LABELS[:7], {1: 3, 2: 2}
    dataset = stream(counts, fresh, features, labels, batch_size=12, seed=(3, 4))
    batches = dataset.repeat(500)  # an epoch each
    places = np.stack([places_of_real(x.numpy(), features) for x, _ in batches])
    assert len(np.unique(places, axis=0)) > 496  # of 12! / 5! orders
    for row in range(7):
        assert stats.chisquare((places == row).sum(axis=0)).pvalue > 1e-4
    # A row does not say which one follows it.
    follows = np.zeros((7, 7))
    for epoch in places:
        for first, second in itertools.pairwise(epoch):
            if min(first, second) >= 0:
                follows[first, second] += 1
    assert stats.chisquare(follows[~np.eye(7, dtype=bool)]).pvalue > 1e-4


@pytest.mark.parametrize("seed", [(0, 0), (1, 2), (9, 5)])
def test_a_long_epoch_is_mixed_from_end_to_end(seed):
    real = np.arange(6000, dtype="float32")[:, np.newaxis] * np.ones(SIZE, "f")
    counts = {1: 1500, 2: 1500}
    labels = np.arange(6000) % 3
    features, labels = read(
        stream(counts, features=real, labels=labels, batch_size=500, seed=seed)
    )
    places = places_of_real(features, real)
    is_real = places >= 0
    order = stats.spearmanr(np.flatnonzero(is_real), places[is_real])
    assert order.pvalue > 1e-3
    neighbours = stats.spearmanr(places[is_real][:-1], places[is_real][1:])
    assert neighbours.pvalue > 1e-3
    for kind in (is_real, ~is_real & (labels == 1), ~is_real & (labels == 2)):
        per_batch = kind.reshape(-1, 100).sum(axis=1)
        assert stats.chisquare(per_batch).pvalue > 1e-3


def test_fresh_epochs_share_no_draws_and_no_order(chunk_rows):
    first, second, third = (epoch[0] for epoch in epochs(stream(), 3))
    for one, other in [(first, second), (second, third), (first, third)]:
        assert not np.isin(pseudo_rows(one), pseudo_rows(other)).any()
        places = [places_of_real(epoch) for epoch in (one, other)]
        order = [where[where >= 0] for where in places]
        assert (order[0] != order[1]).any()


def test_fixed_epochs_hold_the_same_draws_in_another_order(chunk_rows):
    first, second, third = epochs(stream(fresh=False), 3)
    for one, other in [(first, second), (second, third), (first, third)]:
        np.testing.assert_array_equal(in_order(one[0]), in_order(other[0]))
        assert (one[0] != other[0]).any()


@both_modes
def test_repeat_goes_on_as_reading_again_does(fresh):
    repeated = read(stream(fresh=fresh).repeat(3))
    again = zip(*epochs(stream(fresh=fresh), 3), strict=True)
    for mine, theirs in zip(repeated, again, strict=True):
        np.testing.assert_array_equal(mine, np.concatenate(theirs))


# Seeds.


@both_modes
def test_the_same_seed_is_the_same_stream(fresh, chunk_rows):
    for one, other in zip(
        epochs(stream(fresh=fresh, seed=(5, 6)), 3),
        epochs(stream(fresh=fresh, seed=np.array([5, 6])), 3),
        strict=True,
    ):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@both_modes
@pytest.mark.parametrize("seed", [(5, 7), (6, 6)])
def test_another_seed_is_another_stream(fresh, seed):
    one, other = (read(stream(fresh=fresh, seed=s))[0] for s in [(5, 6), seed])
    same = np.isin(pseudo_rows(one), pseudo_rows(other))
    assert not same.all(axis=1).any()  # one number of a row may meet by chance
    assert (places_of_real(one) != places_of_real(other)).any()


@both_modes
@pytest.mark.parametrize("after", [1, 13])
def test_an_epoch_resumes_where_it_was_saved(fresh, after, tmp_path, chunk_rows):
    iterator = iter(stream(fresh=fresh))
    head = [next(iterator) for _ in range(after)]
    saved = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "stream"))
    expected = list(iterator)
    again = iter(stream(fresh=fresh))
    next(again)
    tf.train.Checkpoint(iterator=again).restore(saved).assert_consumed()
    received = list(again)
    assert len(received) == 14 - after
    for mine, theirs in zip(read(received), read(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    whole = read([*head, *received])
    for mine, theirs in zip(whole, read(stream(fresh=fresh)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@both_modes
@pytest.mark.parametrize("after", [3, 20])
def test_a_repeated_stream_resumes_with_whole_epochs(fresh, after, tmp_path):
    iterator = iter(stream(fresh=fresh).repeat(3))
    seen = [next(iterator) for _ in range(after)]
    saved = tf.train.Checkpoint(iterator=iterator).save(str(tmp_path / "stream"))
    again = iter(stream(fresh=fresh).repeat(3))
    tf.train.Checkpoint(iterator=again).restore(saved)
    batches = [*seen, *again]
    assert len(batches) == 3 * 14
    rows = [read(batches[i * 14 : (i + 1) * 14])[0] for i in range(3)]
    for epoch in rows:
        places = np.sort(places_of_real(epoch))
        np.testing.assert_array_equal(places[-NUM_REAL:], np.arange(NUM_REAL))
    if not fresh:  # fresh epochs not begun may repeat one: how far TensorFlow had read
        for one, other in itertools.combinations(map(pseudo_rows, rows), 2):
            assert np.isin(one, other).all()


# In use.


@pytest.mark.integration
@both_modes
@pytest.mark.parametrize("weighted", [False, True])
def test_a_head_trains_on_it(fresh, weighted):
    weight = np.ones(NUM_REAL, "float32") if weighted else None
    seen = []

    def note(*batch):
        features = tf.numpy_function(
            lambda x: seen.append(x) or x, [batch[0]], tf.float32
        )
        return tf.ensure_shape(features, [None, SIZE]), *batch[1:]

    dataset = stream(fresh=fresh, sample_weight=weight).map(note)
    head = keras.Sequential([keras.Input((SIZE,)), keras.layers.Dense(3, "softmax")])
    head.compile("adam", "sparse_categorical_crossentropy")
    history = head.fit(dataset, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
    assert np.isfinite(history.history["loss"]).all()
    if keras.backend.backend() != "tensorflow":
        seen.pop(0)  # `fit` opens the stream once more, to build the head
    assert len(seen) == 2 * 14
    first, second = np.concatenate(seen[:14]), np.concatenate(seen[14:])
    for epoch in (first, second):
        places = places_of_real(epoch)
        np.testing.assert_array_equal(np.sort(places)[-NUM_REAL:], np.arange(NUM_REAL))
    shared = np.isin(pseudo_rows(first), pseudo_rows(second))
    assert not shared.any() if fresh else shared.all()
    assert (first != second).any()


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@both_modes
def test_memory_does_not_grow_with_the_number_planned(fresh):
    features = np.repeat(FEATURES, 16, axis=1)  # [60, 64]
    gaussian = make_gaussian("diag", features)

    def start(num):
        dataset = interleave(
            features, LABELS, gaussian, {1: num}, 43, fresh_each_epoch=fresh
        )
        assert len(dataset) == -(-(num + NUM_REAL) // 43)
        iterator = iter(dataset)
        return [next(iterator) for _ in range(3)], iterator

    held = start(100_000)  # what any stream needs
    before = resident_bytes()
    held = start(10_000_000), held  # 2.4 GiB, if it were stored
    assert resident_bytes() - before < 2**27
    assert [len(batch[0]) for batch in held[0][0]] == [43, 43, 43]


# Errors.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS[1:]}, r"the same length, at least 1; .*'labels': \[59\]"),
        ({"sample_weight": np.ones(3)}, r"'sample_weight': \[3\]"),
        ({"features": FEATURES[:0], "labels": LABELS[:0]}, r"'features': \[0, 4\]"),
        ({"features": FEATURES[:, 0]}, r"one number for each .* shape \[60\]"),
        ({"labels": LABELS + 1}, r"class ids 0 to 2; example \d+ has label 3"),
        ({"labels": np.eye(4)[LABELS]}, r"4 wide, but there are 3 classes"),
        ({"counts": {3: 1}}, r"map classes 0 to 2 to whole .*received \{3: 1\}"),
        ({"counts": {-1: 1}}, r"received \{-1: 1\}"),
        ({"counts": {"cat": 1}}, r"received \{'cat': 1\}"),
        ({"counts": {0: -4}}, r"received \{0: -4\}"),
        ({"counts": {0: 1.5}}, r"received \{0: 1.5\}"),
        ({"counts": {0: np.nan}}, r"received \{0: nan\}"),
        ({"features": FEATURES[:, :3]}, r"shape \[4\]; received .* shape \[3\]"),
        (
            {"batch_size": 0},
            r"`batch_size` must be a whole number of at least 1; received 0",
        ),
        ({"batch_size": 2.5}, r"`batch_size` .*received 2.5"),
        ({"seed": 3}, r"`seed` must be two integers, .*received 3"),
        ({"seed": (1.5, 2)}, r"`seed` must be two integers"),
    ],
)
def test_what_does_not_fit_raises(change, message):
    with pytest.raises(ValueError, match=message):
        stream(**change)


def test_pseudo_features_need_a_gaussian():
    with pytest.raises(ValueError, match=r"`counts` .* classes \[1, 2\], .* no `gaus"):
        interleave(FEATURES, LABELS, None, COUNTS)


def test_pseudo_features_need_a_gaussian_that_was_fitted():
    with pytest.raises(ValueError, match=r"call `adapt\(features, labels\)` first"):
        interleave(FEATURES, LABELS, ClassConditionalGaussian(3), COUNTS)


def test_pseudo_features_need_examples_of_their_class():
    gaussian = ClassConditionalGaussian(3)
    gaussian.adapt(FEATURES[LABELS < 2], LABELS[LABELS < 2])
    with pytest.raises(ValueError, match=r"Class 2 had no example among the 52"):
        interleave(FEATURES, LABELS, gaussian, COUNTS)
