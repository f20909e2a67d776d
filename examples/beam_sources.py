"""What a cluster reads: images or features, in ranges that a worker can read alone.

A source says on the launcher where the rows are cut; its `read` runs in the workers. It
is a small frozen record, since it is sent to them.
"""

import dataclasses
import functools
import pathlib

import apache_beam as beam
import numpy as np
import tensorflow as tf

from .data import imbalance, load_images

__all__ = ["Digits", "FeatureRows", "ReadRanges", "TfdsImages"]

# Rows that one worker reads at a time: enough for its batches, and many for a million.
_RANGE_ROWS = 4096


class ReadRanges(beam.PTransform):
    """A PCollection of what a source reads, each range of it by one worker.

    Args:
        source: `Digits`, `FeatureRows` or `TfdsImages`.
    """

    def __init__(self, source):
        super().__init__()
        self._source = source

    def expand(self, pipeline):
        """The ranges, spread over the workers, and what they hold."""
        return (
            pipeline
            | "Ranges" >> beam.Create(self._source.ranges())
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.FlatMapTuple(self._source.read)
        )


@dataclasses.dataclass(frozen=True)
class Digits:
    """scikit-learn's digits, cut as `examples.resnet56` cuts them by default.

    Attributes:
        seed: of the cut.
        range_rows: rows of a range.
    """

    seed: int = 0
    range_rows: int = 256

    @property
    def num_classes(self):
        """C."""
        return 10

    def ranges(self):
        """List of `(start, stop)`."""
        return _cut([len(_digits(self.seed).train_labels)], self.range_rows)

    def read(self, start, stop):
        """Yields `(uint8 image, label)`."""
        digits = _digits(self.seed)
        labels = digits.train_labels[start:stop].tolist()
        yield from zip(digits.train_images[start:stop], labels, strict=True)


@dataclasses.dataclass(frozen=True)
class TfdsImages:
    """A split of a TFDS image set, in whatever order its files have.

    Attributes:
        folder: of the prepared set, with `dataset_info.json`; in any file system that
            TFDS reads.
        split: such as "train".
        image_size: resize to this height and width, or None.
        range_rows: rows of a range; none goes over the border of a file.
    """

    folder: str
    split: str = "train"
    image_size: int | None = None
    range_rows: int = _RANGE_ROWS

    @property
    def num_classes(self):
        """C."""
        return _builder(self.folder).info.features["label"].num_classes

    def ranges(self):
        """List of `(start, stop)`."""
        splits = _builder(self.folder).info.splits
        if self.split not in splits:
            raise ValueError(
                f"{self.folder} has splits {sorted(splits)}; received {self.split!r}."
            )
        return _cut(splits[self.split].shard_lengths, self.range_rows)

    def read(self, start, stop):
        """Yields `(uint8 image, label)`."""
        rows = _builder(self.folder).as_dataset(
            split=f"{self.split}[{start}:{stop}]", shuffle_files=False
        )
        for row in rows.as_numpy_iterator():
            image = row["image"]
            if self.image_size is not None:
                size = (self.image_size, self.image_size)
                image = tf.image.resize(image, size, antialias=True)
                image = np.round(image).astype(np.uint8)
            yield image, int(row["label"])


@dataclasses.dataclass(frozen=True)
class FeatureRows:
    """Features that are there already: `features` and `labels` of an `.npz` file.

    Attributes:
        path: of the file; each worker process reads it once.
        range_rows: rows of a range, which is one batch.
    """

    path: str
    range_rows: int = 1024

    @property
    def num_classes(self):
        """C."""
        return int(_feature_file(self.path)[1].max()) + 1

    def ranges(self):
        """List of `(start, stop)`."""
        return _cut([len(_feature_file(self.path)[1])], self.range_rows)

    def read(self, start, stop):
        """Yields one batch `(features [B, D], labels [B])`."""
        features, labels = _feature_file(self.path)
        yield features[start:stop], labels[start:stop]


def _cut(lengths, rows):
    """Ranges of at most so many rows, of files one after the other."""
    ranges, first = [], 0
    for length in lengths:
        stop = first + length
        ranges += [(row, min(row + rows, stop)) for row in range(first, stop, rows)]
        first = stop
    return ranges


# Once in each process.


@functools.cache
def _digits(seed):
    return imbalance(load_images("digits"), seed=seed)


@functools.cache
def _builder(folder):
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(folder)


@functools.cache
def _feature_file(path):
    if not pathlib.Path(path).exists():
        raise FileNotFoundError(f"There is no feature file {path}.")
    with np.load(path) as arrays:
        missing = {"features", "labels"} - set(arrays)
        if missing:
            raise ValueError(f"{path} lacks the arrays {sorted(missing)}.")
        return np.float32(arrays["features"]), np.int64(arrays["labels"])
