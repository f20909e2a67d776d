"""Tests for beam_batches.py: rows become batches."""

import numpy as np
import pytest

beam = pytest.importorskip("apache_beam")
from apache_beam.testing.util import assert_that  # noqa: E402

from tests.beam_data import pipeline  # noqa: E402
from tf_pseudofeat.engines.beam import BatchRows  # noqa: E402


def test_rows_become_batches():
    def checked(batches):
        sizes = [len(labels) for _, labels in batches]
        assert sum(sizes) == 25
        assert max(sizes) == 10
        for features, labels in batches:
            np.testing.assert_array_equal(features[:, 0], labels)

    with pipeline() as p:
        rows = p | beam.Create([(np.full(3, i), i) for i in range(25)])
        assert_that(rows | BatchRows(10), checked)
