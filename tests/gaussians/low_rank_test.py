"""Tests for low_rank.py: against exact decompositions by numpy and scikit-learn."""

import functools

import numpy as np
import pytest
from sklearn.decomposition import PCA

from tf_pseudofeat.gaussians.low_rank import (
    add_rows,
    low_rank_part,
    rotated_factor,
    rows_at_a_time,
)
from tf_pseudofeat.gaussians.moments_estimation import moments_of, moments_of_batches
from tf_pseudofeat.gaussians.moments_merge import merge_moments
from tf_pseudofeat.gaussians.rank import check_rank, resolve_rank

SIZE = 24
ORDERS = ("shuffled", "strong first", "weak first", "by direction")
# Singular values of all rows.
SPECTRA = {
    "flat": np.ones(SIZE),
    "falling": 0.7 ** np.arange(SIZE),
    "few and noise": np.r_[np.full(4, 10.0), np.ones(SIZE - 4)],
    "one": np.r_[1e4, np.ones(SIZE - 1)],
}


def no_sketch(num_classes, rank, feature_size):
    return np.zeros((num_classes, 2 * rank, feature_size), np.float32)


def make_rows(spectrum, order, num=150, seed=0):
    rng = np.random.default_rng(seed)
    left = np.linalg.qr(rng.normal(size=(num, SIZE)))[0]
    right = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
    if order == "by direction":  # all rows of one direction, then all of the next
        left = np.eye(SIZE)[np.arange(num) * SIZE // num]
        left /= np.linalg.norm(left, axis=0)
    rows = left * SPECTRA[spectrum] @ right
    strength = np.linalg.norm(rows, axis=1)
    if order == "strong first":
        rows = rows[np.argsort(-strength)]
    if order == "weak first":
        rows = rows[np.argsort(strength)]
    return rows


def sketched(rows, rank, at_a_time):
    sketch = no_sketch(1, rank, SIZE)[0]
    for start in range(0, len(rows), at_a_time):
        add_rows(sketch, rows[start : start + at_a_time])
    return sketch


def in_two(rows, rank):
    """Sketches of parts, and the rows of one added to the other."""
    first, second = sketched(rows[:60], rank, 7), sketched(rows[60:], rank, 50)
    add_rows(first, second)
    return first


def in_a_tree(rows, rank):
    parts = [sketched(part, rank, 5) for part in np.array_split(rows, 8)]
    while len(parts) > 1:
        first, second = parts.pop(), parts.pop(0)
        add_rows(first, second)
        parts.append(first)
    return parts[0]


WAYS = {
    "one by one": functools.partial(sketched, at_a_time=1),
    "by tens": functools.partial(sketched, at_a_time=10),
    "at once": functools.partial(sketched, at_a_time=1000),
    "merged": in_two,
    "merged in a tree": in_a_tree,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_error_is_within_its_bounds(way, order, spectrum, rank):
    rows = make_rows(spectrum, order)
    sketch = WAYS[way](rows, rank).astype(np.float64)
    assert sketch.shape == (2 * rank, SIZE)
    lost = np.linalg.eigvalsh(rows.T @ rows - sketch.T @ sketch)
    squares = np.square(np.linalg.svd(rows, compute_uv=False))
    rounding = 1e-5 * squares.max()
    assert lost.min() > -rounding
    shrunk = rank - rank // 2
    assert (
        lost.max() < (squares.sum() - np.square(sketch).sum()) / (shrunk + 1) + rounding
    )
    for k in range(shrunk + 1):
        assert lost.max() < squares[k:].sum() / (shrunk + 1 - k) + rounding


def test_something_is_lost_where_the_rows_have_more_directions():
    rows = make_rows("flat", "shuffled")
    sketch = sketched(rows, 5, 10)
    assert np.linalg.eigvalsh(rows.T @ rows - sketch.T @ sketch).max() > 0.1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("directions", [1, 7, 10])
def test_as_many_directions_as_rows_are_exact(way, directions):
    rows = np.random.default_rng(0).normal(size=(300, directions))
    rows = rows @ np.random.default_rng(1).normal(size=(directions, SIZE))
    sketch = WAYS[way](rows, rank=5).astype(np.float64)
    expected = rows.T @ rows
    atol = 1e-6 * expected.max()
    np.testing.assert_allclose(sketch.T @ sketch, expected, 1e-6, atol)


@pytest.mark.parametrize("num", [0, 1, 9, 10])
def test_rows_that_fit_are_kept_as_they_are(num):
    rows = make_rows("falling", "shuffled")[:num].astype(np.float32)
    padded = np.insert(rows, num // 2, 0.0, axis=0)  # nothing is not kept
    sketch = sketched(padded, 5, 3)
    np.testing.assert_array_equal(sketch[:num], rows)
    assert not sketch[num:].any()


def test_rows_come_in_pieces_that_cost_little():
    assert rows_at_a_time(no_sketch(1, 16, 2048)) == 3 * 32
    assert rows_at_a_time(no_sketch(1, 16, 64)) == 4096


# Moments.


def class_rows(counts=(40, 0, 1, 9), seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    features = rng.normal(size=(len(labels), SIZE)) + 100
    features[:, 1:] += features[:, :-1]
    return features.astype(np.float32), labels


def moments_in_a_tree(features, labels, rank):
    parts = [
        moments_of(features[part], labels[part], 4, "low_rank", rank)
        for part in np.array_split(np.arange(len(labels)), 5)
    ]
    while len(parts) > 1:
        parts.append(merge_moments(parts.pop(0), parts.pop()))
    return parts[0]


def moments_in_batches(features, labels, rank, monkeypatch):
    monkeypatch.setattr("tf_pseudofeat.gaussians.moments_estimation._BUFFER_ROWS", 8)
    parts = np.array_split(np.arange(len(labels)), 9)
    batches = ((features[part], labels[part]) for part in parts)
    return moments_of_batches(batches, 4, "low_rank", rank)


@pytest.mark.parametrize("rank", [4, 20])
@pytest.mark.parametrize("way", ["whole", "tree", "batches"])
def test_the_sketch_of_a_class_is_that_of_its_deviations(way, rank, monkeypatch):
    features, labels = class_rows()
    if way == "whole":
        moments = moments_of(features, labels, 4, "low_rank", rank)
    elif way == "tree":
        moments = moments_in_a_tree(features, labels, rank)
    else:
        moments = moments_in_batches(features, labels, rank, monkeypatch)
    assert moments.rank == rank
    assert moments.sketch.dtype == np.float32
    for class_id, sketch in enumerate(moments.sketch.astype(np.float64)):
        rows = features[labels == class_id].astype(np.float64)
        rows = rows - rows.mean(axis=0) if len(rows) else rows
        scatter = rows.T @ rows
        np.testing.assert_allclose(
            moments.scatter[class_id], scatter.diagonal(), 1e-5, atol=1e-9
        )
        squares = np.square(np.linalg.svd(rows, compute_uv=False))
        lost = np.linalg.eigvalsh(scatter - sketch.T @ sketch)
        rounding = 1e-5 * squares.max(initial=0.0) + 1e-9
        shrunk = rank - rank // 2
        exact = len(rows) <= 2 * rank
        bound = 0.0 if exact else squares[1:].sum() / shrunk
        assert -rounding < lost.min()
        assert lost.max() < bound + rounding


def test_a_long_stream_of_many_rows_of_a_class_stays_within_its_bound(monkeypatch):
    monkeypatch.setattr("tf_pseudofeat.gaussians.low_rank._CHUNK_ROWS", 64)
    features, labels = class_rows((2000, 0, 0, 500))
    moments = moments_of(features, labels, 4, "low_rank", 3)
    rows = features[labels == 0] - features[labels == 0].mean(axis=0, dtype=np.float64)
    squares = np.square(np.linalg.svd(rows, compute_uv=False))
    lost = rows.T @ rows - moments.sketch[0].T @ moments.sketch[0]
    assert 0 < np.linalg.eigvalsh(lost).max() < squares[1:].sum() / 2


# The covariance.


@pytest.mark.parametrize("rank", [3, 4, 5, 6])
def test_the_directions_are_those_of_probabilistic_pca(rank):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 6)) @ rng.normal(size=(6, SIZE))  # 2 rank hold them
    sketch = sketched((rows - rows.mean(axis=0)) / np.sqrt(499), rank, 10)
    variance = rows.var(axis=0, ddof=1)
    factor, diagonal = low_rank_part(variance, sketch)
    reference = PCA(rank, svd_solver="full").fit(rows)
    received = factor @ factor.T + reference.noise_variance_ * np.eye(SIZE)
    expected = reference.get_covariance()
    np.testing.assert_allclose(received, expected, atol=1e-5 * expected.max())
    total = np.square(factor).sum(axis=1) + diagonal
    np.testing.assert_allclose(total, variance, rtol=1e-5)


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("rank", [1, 2, 5, SIZE - 1, SIZE])
def test_the_variances_stay_exact_and_nothing_is_negative(spectrum, rank):
    rows = make_rows(spectrum, "shuffled")
    variance = np.square(rows).sum(axis=0)
    factor, diagonal = low_rank_part(variance, sketched(rows, rank, 10))
    assert factor.shape[1] <= min(rank, SIZE - 1)
    assert (diagonal >= 0).all()
    total = np.square(factor).sum(axis=1) + diagonal
    np.testing.assert_allclose(total, variance, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 5])
def test_of_no_rows_nothing_is_made(size):
    factor, diagonal = low_rank_part(np.zeros(size), no_sketch(1, 2, size)[0])
    assert factor.shape == (size, 0)
    assert not diagonal.any()
    assert rotated_factor(factor, np.ones(size)).shape == (size, 0)


def test_a_turned_factor_is_orthogonal_in_units_of_the_deviation():
    rng = np.random.default_rng(0)
    factor, deviation = rng.normal(size=(30, 5)), rng.uniform(0.1, 9.0, size=30)
    received = rotated_factor(factor, deviation)
    np.testing.assert_allclose(received @ received.T, factor @ factor.T, atol=1e-12)
    scaled = received / deviation[:, np.newaxis]
    gram = scaled.T @ scaled
    np.testing.assert_allclose(gram, np.diag(gram.diagonal()), atol=1e-9)
    np.testing.assert_allclose(rotated_factor(-factor, deviation), received, atol=1e-12)


# Errors.


@pytest.mark.parametrize("rank", [0, -1, 2.5, np.nan, "16"])
def test_a_rank_is_a_whole_number_from_1(rank):
    for check in (lambda: check_rank("low_rank", rank), lambda: resolve_rank(rank, 8)):
        with pytest.raises(
            ValueError, match=r"`rank` must be a whole number of at least 1; rec"
        ):
            check()


def test_a_rank_is_of_low_rank_alone_and_at_most_the_number_of_features():
    with pytest.raises(ValueError, match=r"'low_rank'; received rank=3 with 'full'"):
        check_rank("full", 3)
    with pytest.raises(ValueError, match=r"number of features, 8; received 9\. Pass"):
        resolve_rank(9, 8)
    assert [resolve_rank(8, 8), resolve_rank(None, 8), resolve_rank(None, 99)] == [
        *(8, 8, 16)
    ]
