"""Writes features from Apache Beam as shards, for `load_features`."""

import os
import uuid

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from tf_pseudofeat.engines.beam_batches import batch_arrays
from tf_pseudofeat.engines.beam_runners import check_runner
from tf_pseudofeat.extraction.shard_folder import check_free, shared_folder
from tf_pseudofeat.extraction.shard_reader import indexed_shards
from tf_pseudofeat.extraction.shard_writer import ShardWriter, write_index

__all__ = ["WriteFeatureShards"]


class WriteFeatureShards(beam.PTransform):
    """Writes batches as shards, for `load_features`; returns the folder.

    Each bundle writes shards with unique names, and emits the names of the complete
    ones, which the index lists. So a bundle that is retried counts once; shards of
    failed attempts are ignored.

    Args:
        folder: folder that all workers share, local or on a network file system. A
            bucket must be mounted, since `load_features` maps the files into memory.
        rows_per_shard: see `ShardWriter`. A bundle writes at least one shard.

    Raises:
        TypeError, ValueError, OSError: Immediately, if `folder` is not a path, already
            holds a set, or cannot be written to. In a worker, see `ShardWriter`.
    """

    def __init__(
        self, folder: str | os.PathLike, rows_per_shard: int | None = None
    ) -> None:
        super().__init__()
        folder = shared_folder(folder)  # expands ~ here, not on the worker
        check_free(folder)
        self._folder = str(folder)
        self._rows = rows_per_shard

    def expand(self, batches):
        """Returns a PCollection of the folder, once its index is written."""
        check_runner(batches.pipeline)
        return (
            batches
            | "WriteShards" >> beam.ParDo(_WriteShards(self._folder, self._rows))
            | "Names" >> beam.combiners.ToList()
            | "WriteIndex" >> beam.Map(_write_index, self._folder)
        )


class _WriteShards(beam.DoFn):
    """Writes batches; emits the names of their shards."""

    def __init__(self, folder, rows_per_shard):
        self._folder = folder
        self._rows = rows_per_shard
        self._writer = None

    def start_bundle(self):
        self._writer = None

    def process(self, batch):
        if self._writer is None:
            self._writer = ShardWriter(self._folder, self._rows, uuid.uuid4().hex)
        self._writer.add(*batch_arrays(batch))

    def finish_bundle(self):
        if self._writer is None:
            return
        self._writer.close()
        window = GlobalWindow()
        for name in self._writer.shards:
            yield WindowedValue(name, window.max_timestamp(), [window])
        self._writer = None

    def teardown(self):
        if self._writer is not None:  # the bundle failed
            self._writer.discard()


def _write_index(names, folder):
    # An index exists if an earlier attempt was lost after it had written one.
    if not names or sorted(indexed_shards(folder)) != sorted(names):
        write_index(folder, names)
    return folder
