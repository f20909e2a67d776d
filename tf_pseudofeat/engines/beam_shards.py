"""Features from Apache Beam as shards, which `load_features` reads."""

import os
import uuid

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from tf_pseudofeat.core.files import local_path
from tf_pseudofeat.engines.beam_batches import batch_arrays
from tf_pseudofeat.extraction.shard_folder import check_free
from tf_pseudofeat.extraction.shard_reader import indexed_shards
from tf_pseudofeat.extraction.shard_writer import ShardWriter, write_index

__all__ = ["WriteFeatureShards"]


class WriteFeatureShards(beam.PTransform):
    """Writes batches as shards, for `load_features`; gives the folder in the end.

    Each bundle has shards of its own, under a name that nobody else has, and tells
    their names when they are whole. The index lists the names that arrived. So a bundle
    that was tried twice counts once; what the other try left lies there unread.

    Args:
        folder: that all workers see: of this machine, or a network file system. A
            bucket must be mounted, as `load_features` maps the files into memory.
        rows_per_shard: see `ShardWriter`. A bundle writes one shard at least.

    Raises:
        TypeError, ValueError, OSError: At once: `folder` is no path, holds a set
            already, or cannot be written to. In a worker: see `ShardWriter`.
    """

    def __init__(
        self, folder: str | os.PathLike, rows_per_shard: int | None = None
    ) -> None:
        super().__init__()
        if "://" in str(folder):
            raise ValueError(
                f"Shards are files that are mapped into memory; {folder} is no folder "
                f"for that. Mount the bucket, or write to a network file system."
            )
        check_free(folder)
        self._folder = str(local_path(folder, "folder"))  # of home here, not there
        self._rows = rows_per_shard

    def expand(self, batches):
        """A PCollection of the folder, once its index is written."""
        return (
            batches
            | "WriteShards" >> beam.ParDo(_WriteShards(self._folder, self._rows))
            | "Names" >> beam.combiners.ToList()
            | "WriteIndex" >> beam.Map(_write_index, self._folder)
        )


class _WriteShards(beam.DoFn):
    """Batches -> names of the shards that hold them."""

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
    # There is one already where a first try could not say any more that it was done.
    if not names or sorted(indexed_shards(folder)) != sorted(names):
        write_index(folder, names)
    return folder
