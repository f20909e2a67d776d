"""Tests for beam_shards.py: every row once, however often it was tried."""

import os

import numpy as np
import pytest

from tf_pseudofeat.extraction.shard_reader import load_features

beam = pytest.importorskip("apache_beam")
from apache_beam.testing.util import assert_that  # noqa: E402

from tests.beam_data import by_row, make_data, pipeline, random_batches  # noqa: E402
from tf_pseudofeat.engines.beam import WriteFeatureShards  # noqa: E402
from tf_pseudofeat.engines.beam_shards import _write_index, _WriteShards  # noqa: E402


def test_shards_hold_every_row_once(tmp_path):
    features, labels = make_data()
    batches = random_batches(features, labels, np.random.default_rng(0))
    with pipeline() as p:
        folder = (
            p
            | beam.Create(batches)
            | beam.Reshuffle()
            | WriteFeatureShards(tmp_path / "features", rows_per_shard=100)
        )
        assert_that(folder, lambda received: received == [str(tmp_path / "features")])
    stored = load_features(tmp_path / "features")
    assert max(stored.features.lengths) == 100
    np.testing.assert_array_equal(by_row(*stored), by_row(features, labels))


def test_a_bundle_that_was_tried_again_counts_once(tmp_path):
    first, second = ((np.full((30, 2), i, "f4"), np.full(30, i)) for i in (1, 2))

    def bundle(batches):
        writer = _WriteShards(str(tmp_path), 20)
        writer.start_bundle()
        for batch in batches:
            writer.process(batch)
        return writer

    def committed(writer):
        return [windowed.value for windowed in writer.finish_bundle()]

    lost = committed(bundle([first]))  # the runner never hears of it
    killed = bundle([first])  # in the middle: a whole shard, and rows in memory
    kept = committed(bundle([first])) + committed(bundle([second]))
    assert not set(lost) & set(kept)
    assert not committed(bundle([]))
    assert _write_index(kept, str(tmp_path)) == str(tmp_path)
    _write_index(kept, str(tmp_path))  # its own try that was not heard of
    stored = load_features(tmp_path)
    expected = map(np.concatenate, zip(first, second, strict=True))
    np.testing.assert_array_equal(by_row(*stored), by_row(*expected))
    with pytest.raises(ValueError, match="already holds a set of features"):
        _write_index(lost, str(tmp_path))
    before = len(os.listdir(tmp_path))
    killed.teardown()  # where the worker itself goes on
    assert len(os.listdir(tmp_path)) == before - 3
