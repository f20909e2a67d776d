"""Tests for moments_merge.py: pieces merge to the whole, in any order."""

import dataclasses
import functools

import numpy as np
import pytest

from tests.moments_data import (
    NUM_CLASSES,
    assert_same,
    chunks,
    every_kind,
    make_data,
)
from tf_pseudofeat.gaussians.moments import zero_moments
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.gaussians.moments_merge import merge_moments


@every_kind
@pytest.mark.parametrize("sizes", [[30], [1] * 59, [7, 0, 20, 1], [0]])
@pytest.mark.parametrize("seed", [0, 1])
def test_pieces_merge_to_the_whole_in_any_order(kind, sizes, seed):
    features, labels = make_data(mean=100.0, dtype="float64")
    parts = [
        moments_of(*chunk, NUM_CLASSES, kind)
        if len(chunk[0])
        else zero_moments(NUM_CLASSES, 4, kind)
        for chunk in chunks(features, labels, sizes)
    ]
    np.random.default_rng(seed).shuffle(parts)
    expected = moments_of(features, labels, NUM_CLASSES, kind)
    assert_same(functools.reduce(merge_moments, parts), expected, rtol=1e-11)


@every_kind
def test_any_grouping_of_a_merge_is_the_same(kind):
    features, labels = make_data(dtype="float64")
    a, b, c = (
        moments_of(*chunk, NUM_CLASSES, kind)
        for chunk in chunks(features, labels, [10, 33])
    )
    assert_same(
        merge_moments(merge_moments(a, b), c),
        merge_moments(a, merge_moments(b, c)),
        rtol=1e-12,
    )
    assert_same(merge_moments(a, b), merge_moments(b, a), rtol=1e-12)


@every_kind
def test_nothing_is_neutral_in_a_merge(kind):
    moments = moments_of(*make_data(), NUM_CLASSES, kind)
    nothing = zero_moments(NUM_CLASSES, 4, kind)
    assert_same(merge_moments(moments, nothing), moments, rtol=0)
    assert_same(merge_moments(nothing, moments), moments, rtol=0)
    assert not merge_moments(nothing, nothing).count.any()


@every_kind
def test_a_merge_leaves_its_parts_alone(kind):
    first = moments_of(*make_data(seed=1), NUM_CLASSES, kind)
    second = moments_of(*make_data(seed=2), NUM_CLASSES, kind)
    before = [dataclasses.astuple(part) for part in (first, second)]
    before = [[np.copy(field) for field in part] for part in before]
    total = merge_moments(first, second)
    for part, fields in zip((first, second), before, strict=True):
        for now, then in zip(dataclasses.astuple(part), fields, strict=True):
            np.testing.assert_array_equal(now, then)
    total.scatter[...] = -1
    assert (first.scatter >= 0).any()


def test_deviations_too_large_for_a_sketch_raise():
    message = r"means overflow float32, .* they are up to 7\.07e\+99\. Scale"
    with pytest.raises(ValueError, match=message):
        moments_of([[1e100], [0.0]], [0, 0], 1, "low_rank")
    parts = [moments_of([[x]], [0], 1, "low_rank") for x in (1e100, 0.0)]
    with pytest.raises(ValueError, match=message):
        merge_moments(*parts)


def test_only_sketches_of_the_same_rank_merge():
    message = r"low_rank \[C, D\] = \[2, 3\] of rank 2 and .* \[2, 3\] of rank 3"
    with pytest.raises(ValueError, match=message):
        merge_moments(zero_moments(2, 3, "low_rank", 2), zero_moments(2, 3, "low_rank"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (zero_moments(2, 3, "diag"), r"full \[C, D\] = \[2, 3\] and diag \[C, D\]"),
        (zero_moments(3, 3), r"= \[2, 3\] and full \[C, D\] = \[3, 3\]"),
        (zero_moments(2, 4), r"= \[2, 3\] and full \[C, D\] = \[2, 4\]"),
    ],
)
def test_only_moments_of_the_same_kind_and_shape_merge(other, message):
    with pytest.raises(ValueError, match=message):
        merge_moments(zero_moments(2, 3), other)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("kind", ["full", "tied", "diag", "low_rank"])
def test_means_too_far_apart_to_be_merged_are_told(kind):
    near, far = (
        moments_of(np.full((4, 3), x), np.zeros(4, int), 1, kind) for x in (0.0, 1e200)
    )
    with pytest.raises(ValueError, match=r"overflow.*1e\+200"):
        merge_moments(near, far)
