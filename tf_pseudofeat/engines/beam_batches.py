"""Batches of features and labels in Beam pipelines."""

import apache_beam as beam
import numpy as np

from tf_pseudofeat.core.validation import whole_number
from tf_pseudofeat.engines.beam_runners import check_runner

__all__ = ["BatchRows", "batch_arrays"]


def batch_arrays(batch):
    """Converts a batch to arrays `(features [B, ...], labels [B])`, and checks it."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(
            f"Elements must be batches (features [B, D], labels [B]); received a "
            f"{type(batch).__name__}. BatchRows() batches rows."
        )
    features, labels = map(np.asarray, batch)
    if features.ndim < 2 or labels.ndim < 1 or len(features) != len(labels):
        raise ValueError(
            f"Elements must be batches (features [B, D], labels [B]); received shapes "
            f"{features.shape} and {labels.shape}. BatchRows() batches rows."
        )
    return features, labels


class BatchRows(beam.PTransform):
    """Rows `(feature [D], label)` -> batches `(features [B, D], labels [B])`.

    Args:
        batch_size: B; the last batch of a bundle may be smaller.
    """

    def __init__(self, batch_size: int = 1024) -> None:
        super().__init__()
        self._batch_size = whole_number("batch_size", batch_size)

    def expand(self, rows):
        """Returns a PCollection of batches."""
        check_runner(rows.pipeline)
        size = self._batch_size
        return (
            rows
            | "Collect" >> beam.BatchElements(min_batch_size=size, max_batch_size=size)
            | "Stack" >> beam.Map(_stacked)
        )


def _stacked(rows):
    features, labels = zip(*rows, strict=True)
    return np.stack(features), np.stack(labels)
