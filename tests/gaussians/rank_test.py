"""Tests for rank.py: how many directions of each class are kept."""

import pytest

from tf_pseudofeat.gaussians.rank import check_rank, resolve_rank


@pytest.mark.parametrize(
    ("rank", "size", "expected"), [(None, 64, 16), (None, 5, 5), (3, 5, 3), (5.0, 5, 5)]
)
def test_by_default_it_is_16_or_all(rank, size, expected):
    assert resolve_rank(rank, size) == expected


def test_no_more_directions_are_kept_than_there_are():
    with pytest.raises(
        ValueError, match="at most the number of features, 5; received 6"
    ):
        resolve_rank(6, 5)


@pytest.mark.parametrize("rank", [0, 2.5, "all"])
def test_it_is_a_whole_number(rank):
    with pytest.raises(ValueError, match="`rank` must be a whole number"):
        check_rank("low_rank", rank)


def test_it_is_of_low_rank_alone():
    check_rank("low_rank", 3), check_rank("full", None)
    with pytest.raises(ValueError, match="received rank=3 with 'full'. Leave it out"):
        check_rank("full", 3)
