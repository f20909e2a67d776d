"""Step 3 on Apache Beam: the moments of every class, combined over all workers."""

import copy
import dataclasses
import io
import os
import uuid

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems

from tf_pseudofeat.core.files import local_path
from tf_pseudofeat.core.validation import whole_number
from tf_pseudofeat.engines.beam_batches import batch_arrays
from tf_pseudofeat.engines.beam_runners import check_runner
from tf_pseudofeat.gaussians.moments import ClassMoments, zero_moments
from tf_pseudofeat.gaussians.moments_estimation import add_examples, moments_of
from tf_pseudofeat.gaussians.moments_file import read_moments, save_moments
from tf_pseudofeat.gaussians.moments_merge import merge_moments
from tf_pseudofeat.gaussians.rank import check_rank

__all__ = ["ClassMomentsCoder", "CombineClassMoments", "WriteMoments"]

# Minimum size in bytes of buffered rows: products of few rows are bound by memory
# bandwidth. The buffer may grow to the size of the statistics, so that updating those
# costs no more than reading the rows.
_WAITING_BYTES = 2**22


class ClassMomentsCoder(beam.coders.Coder):
    """Encodes `ClassMoments` deterministically with `save_moments`, without pickle.

    Importing this module registers it, so Beam uses it by default.
    """

    def encode(self, value):
        """Returns the bytes of `save_moments`."""
        file = io.BytesIO()
        save_moments(value, file)
        return file.getvalue()

    def decode(self, encoded):
        """Returns `ClassMoments`."""
        return read_moments(io.BytesIO(encoded))

    def is_deterministic(self):
        """Returns True."""
        return True

    def to_type_hint(self):
        """Returns `ClassMoments`."""
        return ClassMoments


beam.coders.registry.register_coder(ClassMoments, ClassMomentsCoder)


@dataclasses.dataclass
class _Accumulator:
    """The accumulator of a worker: moments, and batches to be added to them."""

    moments: ClassMoments | None = None
    batches: list = dataclasses.field(default_factory=list)
    buffered_bytes: int = 0


@beam.typehints.with_input_types(tuple[beam.typehints.Any, beam.typehints.Any])
@beam.typehints.with_output_types(ClassMoments)
class CombineClassMoments(beam.CombineFn):
    """Combines batches `(features, labels)` to the `ClassMoments` of all of them.

    Use it with `beam.CombineGlobally` or `beam.CombinePerKey`, with or without fanout.
    The result is that of `moments_of_batches` on one machine, up to rounding: sums of
    some thousand rows have the precision of the features, and are merged in float64.
    One accumulator for each bundle and key goes over the network, of

        full  8 (C + C D + C D D) bytes        tied  8 (C + C D + D D)
        diag  8 (C + 2 C D)                    low_rank  8 (C + 2 C D + C rank D)

    so 1,000 classes of 2,048 features take 31 GiB, 47 MiB, 31 MiB, and 281 MiB with 16
    directions each.

    Args:
        num_classes: C.
        kind: "full", "tied", "diag" or "low_rank", see `ClassMoments`.
        rank: number of directions of "low_rank", see `moments_of`.

    Raises:
        ValueError: If `num_classes`, `kind` or `rank` is invalid, immediately. In a
            worker, as in `moments_of`, or if there is no batch.

    Examples:
        >>> moments = batches | beam.CombineGlobally(CombineClassMoments(10, "tied"))
    """

    def __init__(
        self, num_classes: int, kind: str = "full", rank: int | None = None
    ) -> None:
        self._num_classes = whole_number("num_classes", num_classes)
        check_rank(kind, rank)
        self._kind, self._rank = zero_moments(1, 1, kind).kind, rank

    def create_accumulator(self):
        """Returns an empty accumulator."""
        return _Accumulator()

    def add_input(self, accumulator, batch):
        """Adds a batch `(features [B, ...], labels [B])`."""
        buffered = self._decoded(accumulator)
        features, labels = batch_arrays(batch)
        if buffered.batches and buffered.batches[0][0].shape[1:] != features.shape[1:]:
            raise ValueError(
                f"Features must have the same shape; received batches of "
                f"{list(buffered.batches[0][0].shape)} and {list(features.shape)}."
            )
        buffered.batches.append((features, labels))
        buffered.buffered_bytes += features.nbytes
        if buffered.buffered_bytes >= max(_WAITING_BYTES, _num_bytes(buffered.moments)):
            self._flush(buffered)
        return buffered

    def merge_accumulators(self, accumulators):
        """Merges accumulators, one at a time."""
        total = _Accumulator()
        for accumulator in accumulators:
            moments = self._flush(self._decoded(accumulator))
            total.moments = _sum(total.moments, moments)
        return total

    def compact(self, accumulator):
        """Returns bytes; a `Coder` for other accumulators would fall back to pickle."""
        moments = self._flush(self._decoded(accumulator))
        return b"" if moments is None else ClassMomentsCoder().encode(moments)

    def extract_output(self, accumulator):
        """Returns `ClassMoments`."""
        moments = self._flush(self._decoded(accumulator))
        if moments is None:
            raise ValueError(
                "There is no batch of features, so nothing can be estimated. If this "
                "can happen, use beam.CombineGlobally(...).without_defaults()."
            )
        return copy.deepcopy(moments)  # the accumulator may be added to

    def get_accumulator_coder(self):
        """Returns a coder of accumulators in any state, to bytes."""
        return _AccumulatorCoder(self)

    def _decoded(self, accumulator):
        if not isinstance(accumulator, bytes):
            return accumulator
        return _Accumulator(
            ClassMomentsCoder().decode(accumulator) if accumulator else None
        )

    def _flush(self, buffered):
        """Adds the buffered batches to the moments; returns those, None if empty."""
        if buffered.batches:
            features, labels = map(np.concatenate, zip(*buffered.batches, strict=True))
            if buffered.moments is None:
                how = self._num_classes, self._kind, self._rank
                buffered.moments = moments_of(features, labels, *how)
            else:
                add_examples(buffered.moments, features, labels)
            buffered.batches, buffered.buffered_bytes = [], 0
        return buffered.moments


class _AccumulatorCoder(beam.coders.Coder):
    """Encodes accumulators of a `CombineClassMoments` as bytes."""

    def __init__(self, combine):
        self._combine = combine

    def encode(self, value):
        return value if isinstance(value, bytes) else self._combine.compact(value)

    def decode(self, encoded):
        return encoded

    def is_deterministic(self):
        return True


def _num_bytes(moments):
    if moments is None:
        return 0
    return sum(getattr(value, "nbytes", 0) for value in vars(moments).values())


def _sum(first, second):
    """`merge_moments`, where None is empty; always a new object."""
    if first is None or second is None:
        return copy.deepcopy(second if first is None else first)
    return merge_moments(first, second)


class WriteMoments(beam.PTransform):
    """Writes the one `ClassMoments` of a PCollection, for `load_moments`.

    The file is written atomically, and a retry writes the same file again.

    Args:
        path: path of the `.npz` file, in any of Beam's file systems.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__()
        elsewhere = isinstance(path, str) and "://" in path
        self._path = path if elsewhere else str(local_path(path))

    def expand(self, moments):
        """Returns a PCollection of the path, once it is written."""
        check_runner(moments.pipeline)
        return moments | "Write" >> beam.Map(_write_moments, self._path)


def _write_moments(moments, path):
    aside = f"{path}.unfinished-{uuid.uuid4().hex}"
    with FileSystems.create(aside) as file:
        file.write(ClassMomentsCoder().encode(moments))
    FileSystems.rename([aside], [path])
    return path
