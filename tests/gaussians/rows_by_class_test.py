"""Tests for rows_by_class.py: rows in the order of their classes, and in chunks."""

import numpy as np
import pytest

from tf_pseudofeat.gaussians import rows_by_class
from tf_pseudofeat.gaussians.rows_by_class import (
    class_borders,
    rough_centers,
    row_chunks,
    sort_by_class,
)

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("num_classes", [3, 2**16, 2**16 + 1])
def test_rows_are_sorted_by_class_and_keep_their_order_within(num_classes):
    ids = RNG.integers(3, size=50) + num_classes - 3
    order = sort_by_class(ids, num_classes)
    np.testing.assert_array_equal(order, np.argsort(ids, kind="stable"))


def test_borders_are_where_a_class_begins():
    assert class_borders(np.array([0, 0, 2, 3, 3])) == [0, 2, 3, 5]
    assert class_borders(np.array([1])) == [0, 1]


@pytest.mark.parametrize("one_class", [True, False])
@pytest.mark.parametrize("sizes", [[1, 8, 9], [40, 3], [17]])
def test_chunks_cover_all_rows_evenly(monkeypatch, one_class, sizes):
    monkeypatch.setattr(rows_by_class, "_CHUNK_ROWS", 8)
    ids = np.repeat(range(len(sizes)), sizes)
    chunks = row_chunks(ids, one_class)
    rows = np.concatenate([np.arange(ids.size)[chunk] for chunk in chunks])
    np.testing.assert_array_equal(rows, np.arange(ids.size))
    lengths = [chunk.stop - chunk.start for chunk in chunks]
    assert max(lengths) <= 8
    if one_class:
        assert all(len(set(ids[chunk])) == 1 for chunk in chunks)
    if len(sizes) == 1 or not one_class:
        assert len(chunks) % 2 == 0  # two workers end together


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_centers_are_near_the_means_and_equal_rows_are_their_own(dtype):
    ids = np.repeat([0, 2], [2000, 7])
    features = (RNG.normal(size=(2007, 3)) + 100).astype(dtype)
    features[2000:] = np.array([0.1, 1 / 3, 1000.1], dtype)
    order = RNG.permutation(2007)  # the sorted rows lie anywhere
    shuffled = np.empty_like(features)
    shuffled[order] = features
    centers = rough_centers(shuffled, order, ids, 3)
    assert centers.dtype == dtype and not centers[1].any()
    np.testing.assert_allclose(centers[0], features[:2000].mean(axis=0), atol=0.3)
    np.testing.assert_array_equal(centers[2], features[-1])
