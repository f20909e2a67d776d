"""Step 3 on Apache Beam: the moments of every class, combined over all workers."""

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
from tf_pseudofeat.gaussians.moments import ClassMoments, zero_moments
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.gaussians.moments_file import read_moments, save_moments
from tf_pseudofeat.gaussians.moments_merge import merge_moments
from tf_pseudofeat.gaussians.rank import check_rank

__all__ = ["ClassMomentsCoder", "CombineClassMoments", "WriteMoments"]

# Bytes of rows that wait for the statistics, at least: one product of few rows is all
# memory traffic. Beyond it they may take as much memory again as the statistics do, so
# that adding to those costs no more than reading the rows.
_WAITING_BYTES = 2**22


class ClassMomentsCoder(beam.coders.Coder):
    """`ClassMoments` as the bytes of `save_moments`: the same for the same, no pickle.

    Importing this module registers it, so Beam takes it by itself.
    """

    def encode(self, value):
        """Bytes."""
        file = io.BytesIO()
        save_moments(value, file)
        return file.getvalue()

    def decode(self, encoded):
        """`ClassMoments`."""
        return read_moments(io.BytesIO(encoded))

    def is_deterministic(self):
        """True."""
        return True

    def to_type_hint(self):
        """`ClassMoments`."""
        return ClassMoments


beam.coders.registry.register_coder(ClassMoments, ClassMomentsCoder)


@dataclasses.dataclass
class _Gathered:
    """What a worker holds: moments, and batches that have not entered them yet."""

    moments: ClassMoments | None = None
    waiting: list = dataclasses.field(default_factory=list)
    waiting_bytes: int = 0


@beam.typehints.with_input_types(tuple[beam.typehints.Any, beam.typehints.Any])
@beam.typehints.with_output_types(ClassMoments)
class CombineClassMoments(beam.CombineFn):
    """Batches `(features, labels)` -> the `ClassMoments` of all of them.

    Use it with `beam.CombineGlobally`, `beam.CombinePerKey`, and either fanout. The
    result is that of `moments_of_batches` on one machine, up to rounding: in float64,
    where sums of some thousand rows are merged, and before that in the precision of the
    features. What goes over the network is one accumulator for each bundle and key, of

        full  8 (C + C D + C D D) bytes        tied  8 (C + C D + D D)
        diag  8 (C + 2 C D)                    low_rank  8 (C + 2 C D + C rank D)

    so that 1,000 classes of 2,048 features are 31 GiB, 47 MiB, 31 MiB, and 281 MiB with
    16 directions each.

    Args:
        num_classes: C.
        kind: "full", "tied", "diag" or "low_rank", see `ClassMoments`.
        rank: of "low_rank", see `moments_of`.

    Raises:
        ValueError: `num_classes`, `kind` or `rank` does not fit, at once. In a worker,
            as `moments_of`, or where no batch came at all.

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
        """The moments of nothing."""
        return _Gathered()

    def add_input(self, accumulator, batch):
        """Adds a batch `(features [B, ...], labels [B])`."""
        gathered = self._opened(accumulator)
        features, labels = batch_arrays(batch)
        if gathered.waiting and gathered.waiting[0][0].shape[1:] != features.shape[1:]:
            raise ValueError(
                f"Features have one shape; received batches of "
                f"{list(gathered.waiting[0][0].shape)} and {list(features.shape)}."
            )
        gathered.waiting.append((features, labels))
        gathered.waiting_bytes += features.nbytes
        if gathered.waiting_bytes >= max(_WAITING_BYTES, _num_bytes(gathered.moments)):
            self._settle(gathered)
        return gathered

    def merge_accumulators(self, accumulators):
        """One accumulator of several; they come one at a time."""
        total = _Gathered()
        for accumulator in accumulators:
            moments = self._settle(self._opened(accumulator))
            total.moments = _sum(total.moments, moments)
        return total

    def compact(self, accumulator):
        """Bytes, to be sent; a `Coder` for anything else would fall back to pickle."""
        moments = self._settle(self._opened(accumulator))
        return b"" if moments is None else ClassMomentsCoder().encode(moments)

    def extract_output(self, accumulator):
        """`ClassMoments`."""
        moments = self._settle(self._opened(accumulator))
        if moments is None:
            raise ValueError(
                "There is no batch of features; nothing can be estimated. Where that "
                "may be, use beam.CombineGlobally(...).without_defaults()."
            )
        return moments

    def get_accumulator_coder(self):
        """Of bytes, whatever state an accumulator is in."""
        return _AccumulatorCoder(self)

    def _opened(self, accumulator):
        if not isinstance(accumulator, bytes):
            return accumulator
        return _Gathered(
            ClassMomentsCoder().decode(accumulator) if accumulator else None
        )

    def _settle(self, gathered):
        """Adds what waits to the moments, and returns those, None for nothing."""
        if gathered.waiting:
            features, labels = map(np.concatenate, zip(*gathered.waiting, strict=True))
            how = self._num_classes, self._kind, self._rank
            part = moments_of(features, labels, *how)
            gathered.moments = _sum(gathered.moments, part)
            gathered.waiting, gathered.waiting_bytes = [], 0
        return gathered.moments


class _AccumulatorCoder(beam.coders.Coder):
    """Accumulators of a `CombineClassMoments`, which are sent as bytes."""

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
    """`merge`, of what may be None."""
    if first is None or second is None:
        return second if first is None else first
    return merge_moments(first, second)


class WriteMoments(beam.PTransform):
    """Writes the one `ClassMoments` of a PCollection, for `load_moments`.

    A retry writes the same file again, and it is there whole or not at all.

    Args:
        path: of the `.npz` file, in any of Beam's file systems.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__()
        elsewhere = isinstance(path, str) and "://" in path
        self._path = path if elsewhere else str(local_path(path))

    def expand(self, moments):
        """A PCollection of the path, once it is written."""
        return moments | "Write" >> beam.Map(_write_moments, self._path)


def _write_moments(moments, path):
    aside = f"{path}.unfinished-{uuid.uuid4().hex}"
    with FileSystems.create(aside) as file:
        file.write(ClassMomentsCoder().encode(moments))
    FileSystems.rename([aside], [path])
    return path
