"""Tests for feature_sinks.py: features of views, in memory or in folders."""

import numpy as np
import pytest

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.extraction.feature_sinks import (
    FeatureSinks,
    all_sets_or_none,
    check_cache,
)
from tf_pseudofeat.extraction.shard_reader import load_features

NAMES = ("training", "view-{}")


def part(number):
    return LabeledFeatures(np.full((2, 3), number, "float32"), np.array([0, 1]))


def filled(cache_dir, num_views, names=NAMES):
    with FeatureSinks(cache_dir, names) as sinks:
        sinks.open(num_views)
        for number in range(2 * (num_views or 1)):
            sinks.add(number % (num_views or 1), part(number))
    return sinks


@pytest.mark.parametrize("num_views", [0, 1, 3])
def test_folders_hold_what_memory_does(tmp_path, num_views):
    in_memory = filled(None, num_views)
    on_disk = filled(tmp_path / "cache", num_views)
    views = in_memory.views()
    assert len(views) == (num_views or 1)
    for view, other in zip(views, on_disk.views(), strict=True):
        np.testing.assert_array_equal(view.features, np.asarray(other.features[:]))
        np.testing.assert_array_equal(view.labels, other.labels)
    together = in_memory.all_views()
    assert len(together.labels) == 4 * (num_views or 1)
    folders = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert folders == ([f"view-{v}" for v in range(num_views)] or ["training"])


def test_all_views_may_be_one_set(tmp_path):
    filled(tmp_path / "set", 2, names=None)
    features, _ = load_features(tmp_path / "set")
    assert len(features) == 8
    assert sorted(set(np.asarray(features[:])[:, 0])) == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupt_leaves_no_set_and_no_folder(tmp_path, error):
    cache = tmp_path / "a" / "cache"
    with pytest.raises(error), all_sets_or_none(cache):
        filled(cache, 2)
        raise error
    assert not (tmp_path / "a").exists()
    with all_sets_or_none(None):
        pass  # nothing to remove


def test_a_set_of_an_earlier_run_is_told_before_any_pass(tmp_path):
    check_cache(tmp_path)
    filled(tmp_path, 1)
    with pytest.raises(ValueError, match="view-0 already holds a set of features"):
        check_cache(tmp_path)
