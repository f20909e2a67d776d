"""Count, mean and scatter of every class, in one pass, in pieces that merge.

The sufficient statistics of a Gaussian per class: all that Step 3 of Konno and
Iwazume (2018) needs to know of the features.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.arguments import (
    check_rank,
    check_real,
    is_infinite,
    resolve_rank,
)
from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.core.stored import StoredArray
from tf_pseudofeat.gaussians.covariance_types import MOMENT_KINDS
from tf_pseudofeat.gaussians.diagonal import sums_by_class
from tf_pseudofeat.gaussians.low_rank import add_rows, rows_at_a_time

__all__ = [
    "ClassMoments",
    "check_memory",
    "labelled_batches",
    "merge",
    "moments_of",
    "moments_of_batches",
    "no_moments",
    "shapes_of_moments",
]

# Rows that enter one matrix product. Fewer are all memory traffic; with more, float32
# loses digits before the float64 sum collects them.
_CHUNK_ROWS = 4096
# Rows of a class that say roughly where it lies, to centre all of them there.
_CENTRE_ROWS = 256
# A class whose features scatter less loses digits in float32: below 2**-126 numbers get
# shorter, and what is 2**-24 of the largest square should still be whole.
_SMALLEST_SCATTER = 2.0**-100
# Rows of a stream that are collected before the classes are told apart.
_BUFFER_ROWS = 4 * _CHUNK_ROWS


@dataclasses.dataclass(frozen=True, eq=False)
class ClassMoments:
    """Statistics of C classes of D features; immutable, float64.

    Attributes:
        count: examples per class `[C]`.
        mean: class means `[C, D]`, zero for an empty class.
        scatter: sums of products of deviations from the class mean: `[C, D, D]` if
            `kind` is "full", pooled over the classes `[D, D]` if "tied", squares
            alone `[C, D]` if "diag" or "low_rank".
        kind: "full", "tied", "diag" or "low_rank".
        sketch: of "low_rank" alone, float32 `[C, 2 rank, D]`: rows of which the
            products are nearly the scatter of the class, see `low_rank.add_rows`.
    """

    count: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray
    kind: str = "full"
    sketch: np.ndarray | None = None

    @property
    def num_classes(self) -> int:
        """C."""
        return self.mean.shape[0]

    @property
    def feature_size(self) -> int:
        """D."""
        return self.mean.shape[1]

    @property
    def scale_class(self) -> type:
        """The class that knows their scatter, such as `TriangularScale`."""
        return MOMENT_KINDS[self.kind].scale_class

    @property
    def rank(self) -> int | None:
        """Directions that a "low_rank" covariance of them has; None of other kinds."""
        return None if self.sketch is None else self.sketch.shape[1] // 2


def no_moments(num_classes, feature_size, kind="full", rank=None):
    """The moments of no example at all: where every sum starts.

    Raises:
        ValueError: `kind` is unknown, `rank` is not one of it, or the statistics cannot
            fit in memory.
    """
    _check_kind(kind)
    check_rank(kind, rank)
    check_memory(num_classes, feature_size, kind, rank)
    if MOMENT_KINDS[kind].has_rank:
        rank = resolve_rank(rank, feature_size)
    shapes = shapes_of_moments(num_classes, feature_size, kind, rank)
    arrays = {field: np.zeros(*of_field) for field, of_field in shapes.items()}
    return ClassMoments(**arrays, kind=kind)


def shapes_of_moments(num_classes, feature_size, kind, rank=None):
    """Shapes and dtypes of the arrays of `ClassMoments`, none of which is made.

    Args:
        num_classes: C.
        feature_size: D.
        kind: see `ClassMoments`.
        rank: of "low_rank", not None there.

    Returns:
        shapes: {field: (shape, dtype)}.

    Raises:
        ValueError: `kind` is unknown.
    """
    _check_kind(kind)
    settings = MOMENT_KINDS[kind]
    scatter = settings.shapes(num_classes, feature_size)[0]
    shapes = {
        "count": ((num_classes,), np.dtype(np.float64)),
        "mean": ((num_classes, feature_size), np.dtype(np.float64)),
        "scatter": (
            scatter[1:] if settings.is_shared else scatter,
            np.dtype(np.float64),
        ),
    }
    if settings.has_rank:
        shape = num_classes, 2 * (rank or 0), feature_size
        shapes["sketch"] = shape, np.dtype(np.float32)
    return shapes


def check_memory(num_classes, feature_size, kind="full", rank=None):
    """Raises for statistics that cannot fit in memory, see `no_moments`.

    Raises:
        ValueError: They need more than half of it, or `rank` is above the feature size.
    """
    if MOMENT_KINDS[kind].has_rank:
        rank = resolve_rank(rank, feature_size)
    shapes = shapes_of_moments(num_classes, feature_size, kind, rank)
    for field in ("scatter", "sketch"):
        if field in shapes:
            shape, dtype = shapes[field]
            _check_size(shape, dtype.itemsize)


def moments_of(
    features: npt.ArrayLike | StoredArray,
    labels: npt.ArrayLike,
    num_classes: int,
    kind: str = "full",
    rank: int | None = None,
) -> ClassMoments:
    """The moments of features in an array, or in files.

        mean_c    = 1 / n_c sum_i x_i                        over the i of class c
        scatter_c = sum_i (x_i - mean_c)(x_i - mean_c)^T     over the i of class c

    Each row is read once, or twice for "low_rank". It is centred near its class mean
    before it is multiplied, in the precision it comes in (at least float32), and what
    the centre missed is taken off in the end. Sums of a few thousand rows are of that
    precision, too; they are collected in float64. Where deviations are so small that
    their squares vanish in float32, below 1e-15, their class is done again in float64.
    A `StoredArray` is read in order, 64 MiB at a time, whose moments are added up.

    Args:
        features: floats `[N, D]`, or a feature map `[N, ...]`, flattened to D.
        labels: `[N]`, `[N, 1]` or one-hot `[N, C]`.
        num_classes: C.
        kind: "full", "tied", "diag" or "low_rank", see `ClassMoments`.
        rank: directions to keep of each class, with "low_rank" alone; by default 16, or
            D if that is less.

    Returns:
        moments: `ClassMoments`.

    Raises:
        ValueError: Lengths differ, a label is out of range, a feature is NaN or
            infinite, or `rank` does not fit.
    """
    if isinstance(features, StoredArray):
        pieces = _stored_pieces(features, class_ids(labels, num_classes))
        return _moments_of_pieces(pieces, num_classes, kind, rank)
    features, ids = _check_rows(features, labels, num_classes)
    empty = no_moments(num_classes, features.shape[1], kind, rank)
    if empty.sketch is not None:
        return _sketched(empty, features, ids)
    moments = _moments_of_rows(features, ids, empty)
    small = moments.scale_class.squares(moments.scatter).max(axis=-1)
    small = (small < _SMALLEST_SCATTER) & (moments.count > 0)  # [C]
    if features.dtype == np.float64 or not small.any():
        return moments
    rows = small[ids]
    again = features[rows].astype(np.float64), ids[rows]
    again = _moments_of_rows(*again, no_moments(*moments.mean.shape, kind))
    if rows.all():
        return again
    moments.mean[small] = again.mean[small]
    moments.scatter[small] = again.scatter[small]
    return moments


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused, below
def _moments_of_rows(features, ids, moments):
    """`moments_of` floats `[N, D]` with class ids `[N]`, in their own precision."""
    num_classes, scatter = moments.num_classes, moments.scatter
    moments.count[:] = np.bincount(ids, minlength=num_classes)
    order = _by_class(ids, num_classes)
    ids = ids[order]
    centre = _centres(features, order, ids, num_classes)  # [C, D]
    rest = np.zeros_like(moments.mean)  # sums of the centred rows

    def centred_rows():
        for rows in _chunks(ids, one_class=scatter.ndim == 3):
            classes, starts = np.unique(ids[rows], return_index=True)
            centred = features.take(order[rows], axis=0)
            centred -= centre[ids[rows]] if classes.size > 1 else centre[classes]
            rest[classes] += sums_by_class(centred, starts)
            yield centred, classes, starts

    moments.scale_class.add_rows(scatter, centred_rows())
    offset = rest / np.maximum(moments.count, 1)[:, None]
    moments.mean[:] = centre + offset
    _check_finite(moments.mean, features, order, ids)
    moments.scale_class.add_between(scatter, -moments.count[:, None] * offset, offset)
    if not np.isfinite(scatter).all():
        raise ValueError(
            f"Products of features overflow {features.dtype}: the largest magnitude "
            f"is {np.abs(features).max():.3g}. Scale the features down, or pass them "
            f"as float64."
        )
    return moments


def moments_of_batches(
    batches: Iterable, num_classes: int, kind: str = "full", rank: int | None = None
) -> ClassMoments:
    """The moments of a stream, in one pass and bounded memory.

    Args:
        batches: a `tf.data.Dataset` or any iterable of `(features, labels)` batches;
            further elements of a batch, like sample weights, are not looked at.
        num_classes: C.
        kind: "full", "tied", "diag" or "low_rank", see `ClassMoments`.
        rank: see `moments_of`.

    Returns:
        moments: `ClassMoments`.

    Raises:
        ValueError: As `moments_of`, or the stream is empty, infinite, or not of
            `(features, labels)`.
    """
    pieces = _buffered(labelled_batches(batches))
    return _moments_of_pieces(pieces, num_classes, kind, rank)


def _moments_of_pieces(pieces, num_classes, kind, rank):
    total = None
    for features, labels in pieces:
        if total is None:
            total = moments_of(features, labels, num_classes, kind, rank)
        elif total.sketch is None:
            total = merge(total, moments_of(features, labels, num_classes, kind))
        else:  # a sketch of all classes for each piece is too much
            total = _sketched(total, *_check_rows(features, labels, num_classes))
    if total is None:
        raise ValueError("The stream of features is empty; nothing can be estimated.")
    return total


def _stored_pieces(features, ids):
    _check_lengths(features, ids)
    start = 0
    for chunk in features.chunks():
        yield chunk, ids[start : start + len(chunk)]
        start += len(chunk)


def labelled_batches(batches):
    """Yields the `(features, labels)` of a stream, see `moments_of_batches`, as arrays.

    Raises:
        ValueError: A batch is no pair, or the stream has no end.
    """
    if is_infinite(batches):
        raise ValueError(
            "The dataset of features is infinite (`repeat()`?); pass it as it was "
            "before, or `dataset.take(n)`, n batches of it."
        )
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise ValueError(
                f"A stream is of batches (features, labels); received one of type "
                f"{type(batch).__name__}. With features in an array, pass their labels "
                f"as well."
            )
        yield np.asarray(batch[0]), np.asarray(batch[1])


def merge(first: ClassMoments, second: ClassMoments) -> ClassMoments:
    """The moments of two disjoint sets of examples, from the moments of each.

        delta   = mean_b - mean_a
        scatter = scatter_a + scatter_b + n_a n_b / (n_a + n_b) delta delta^T

    Exact in any order and any grouping, up to float64 rounding. The sketches of
    "low_rank" are added up as `low_rank.add_rows` says, in float32.

    Args:
        first: `ClassMoments`.
        second: `ClassMoments` of the same classes, features, kind and rank.

    Returns:
        merged: a new `ClassMoments`.

    Raises:
        TypeError: One of them is something else.
        ValueError: They are of other classes, features, kinds or ranks.

    References:
        Chan, Golub and LeVeque (1979), "Updating Formulae and a Pairwise Algorithm
        for Computing Sample Variances".
    """
    _check_same(first, second)
    merged = _merged(first, second)
    if first.sketch is None:
        return merged
    _check_single(merged.scatter)
    sketch = first.sketch.copy()
    for class_id in np.flatnonzero(second.count):
        between = _between(first, second, class_id)
        rows = np.concatenate([second.sketch[class_id], between])
        add_rows(sketch[class_id], rows)
    return dataclasses.replace(merged, sketch=sketch)


def _merged(first, second):
    """All but the sketches."""
    count = first.count + second.count
    share = second.count / np.maximum(count, 1)
    delta = second.mean - first.mean  # [C, D]
    weight = first.count * share  # [C], n_a n_b / (n_a + n_b)
    scatter = first.scatter + second.scatter
    first.scale_class.add_between(scatter, weight[:, None] * delta, delta)
    mean = first.mean + share[:, None] * delta
    return ClassMoments(count=count, mean=mean, scatter=scatter, kind=first.kind)


def _between(first, second, class_id):
    """The row `[1, D]` of which the products are the scatter between two means."""
    counts = first.count[class_id], second.count[class_id]
    weight = counts[0] * counts[1] / max(sum(counts), 1)
    delta = second.mean[class_id] - first.mean[class_id]
    return np.sqrt(weight) * delta[np.newaxis]


def _sketched(total, features, ids):
    """`total` with more examples; its sketch is not copied, but added to."""
    squares = moments_of(features, ids, total.num_classes, "diag")
    merged = _merged(total, squares)
    _check_single(merged.scatter)
    order = _by_class(ids, total.num_classes)
    step = rows_at_a_time(total.sketch)
    for start, stop in itertools.pairwise(_borders(ids[order])):
        class_id = ids[order[start]]
        rows = _between(total, squares, class_id)
        for first in range(start, stop, step):
            some = features.take(order[first : min(first + step, stop)], axis=0)
            rows = np.concatenate([rows, some - squares.mean[class_id]])
            add_rows(total.sketch[class_id], rows)
            rows = rows[:0]
    return dataclasses.replace(merged, sketch=total.sketch)


def _by_class(ids, num_classes):
    """The rows class by class; of numbers this short NumPy's sort is one by digits."""
    short = np.uint16 if num_classes <= 2**16 else np.int64
    return np.argsort(ids.astype(short), kind="stable")


def _centres(features, order, ids, num_classes):
    """Near the mean of each class `[C, D]`, from rows all over the class.

    Of rows that are all the same it is that row, to the last bit, so that they have no
    scatter, not even that of the rounding of a mean.
    """
    centre = np.zeros((num_classes, features.shape[1]), features.dtype)
    for start, stop in itertools.pairwise(_borders(ids)):
        step = max(1, (stop - start) // _CENTRE_ROWS)
        some = features.take(order[start:stop:step], axis=0)
        mean = some.mean(axis=0, dtype=np.float64)
        if features.dtype == np.float64:
            mean += (some - mean).mean(axis=0)
        centre[ids[start]] = mean
    return centre


def _borders(ids):
    """Where the classes begin in sorted ids, and the end."""
    return [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), ids.size]


def _chunks(ids, one_class):
    """Slices of the sorted rows, of one class each or not."""
    borders = _borders(ids) if one_class else [0, ids.size]
    for start, stop in itertools.pairwise(borders):
        for first in range(start, stop, _CHUNK_ROWS):
            yield slice(first, min(first + _CHUNK_ROWS, stop))


def _buffered(batches):
    pending, size = [], 0
    for batch in batches:
        pending.append(batch)
        size += len(batch[0])
        if size >= _BUFFER_ROWS:
            yield tuple(map(np.concatenate, zip(*pending, strict=True)))
            pending, size = [], 0
    if pending:
        yield tuple(map(np.concatenate, zip(*pending, strict=True)))


def _check_rows(features, labels, num_classes):
    features = np.asarray(features)
    ids = class_ids(labels, num_classes)
    _check_lengths(features, ids)
    check_real(features, "Features")
    if features.dtype not in (np.float32, np.float64):
        # Float16, bfloat16 and short whole numbers are float32 numbers, too.
        short = features.dtype.itemsize <= 2
        features = features.astype(np.float32 if short else np.float64)
    return features.reshape(ids.size, -1), ids


def _check_lengths(features, ids):
    if features.ndim < 2 or len(features) != ids.size or 0 in features.shape:
        raise ValueError(
            f"Features must be [N, D] or maps [N, ...] with a label for each of the N "
            f"rows; received features of shape {features.shape} and {ids.size} labels."
        )


def _check_finite(mean, features, order, ids):
    """One NaN or infinity anywhere shows in the mean of its class."""
    for class_id in np.flatnonzero(~np.isfinite(mean).all(axis=1)):
        rows = order[ids == class_id]
        wrong = rows[~np.isfinite(features[rows]).all(axis=1)]
        if not wrong.size:
            continue  # the sum itself overflowed; so does the scatter, which is checked
        raise ValueError(
            f"Class {class_id} has {wrong.size} of {rows.size} examples with NaN or "
            f"infinite features, the first in row {wrong[0]}. Clean the inputs, or "
            f"look for an overflow (float16?) before the split layer."
        )


def _check_single(squares):
    """Rows of a sketch are float32: what is too large for that is refused."""
    if np.sqrt(squares.max()) > np.finfo(np.float32).max:
        raise ValueError(
            f"Deviations from the class means overflow float32, which a low-rank "
            f"covariance is kept in: they are up to {np.sqrt(squares.max()):.3g}. "
            f"Scale the features down."
        )


def _check_same(first, second):
    for moments in (first, second):
        if not isinstance(moments, ClassMoments):
            raise TypeError(
                f"Only ClassMoments merge; received {type(moments).__name__}. Those of "
                f"a ClassConditionalGaussian are its `moments`."
            )
    mine, theirs = map(_described, (first, second))
    if mine != theirs:
        raise ValueError(
            f"Only moments of the same kind, classes and features merge; received "
            f"{mine} and {theirs}."
        )


def _described(moments):
    shape = f"{moments.kind} [C, D] = {list(moments.mean.shape)}"
    return shape if moments.rank is None else f"{shape} of rank {moments.rank}"


def _check_kind(kind):
    if kind not in MOMENT_KINDS:
        known = sorted(MOMENT_KINDS)
        raise ValueError(f"`kind` must be one of {known}; received {kind!r}.")


def _check_size(shape, itemsize):
    needed = itemsize * math.prod(shape)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory // 2:
        raise ValueError(
            f"Covariances of shape {list(shape)} need {needed / 2**30:.1f} GiB in "
            f"float{8 * itemsize}; this machine has {memory / 2**30:.1f} GiB. Pass "
            f"covariance_type='low_rank' with a small `rank`, covariance_type='tied' "
            f"or 'diag', or split where features are smaller."
        )
