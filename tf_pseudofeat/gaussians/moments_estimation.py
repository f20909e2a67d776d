"""Count, mean and scatter of every class, in one pass over the features."""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.finite import check_real
from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.core.validation import is_infinite
from tf_pseudofeat.gaussians.diagonal import sums_by_class
from tf_pseudofeat.gaussians.low_rank import add_rows, rows_at_a_time
from tf_pseudofeat.gaussians.moments import ClassMoments, zero_moments
from tf_pseudofeat.gaussians.moments_merge import (
    between_means,
    check_single,
    merge_all_but_sketches,
    merge_moments,
)
from tf_pseudofeat.gaussians.rows_by_class import (
    class_borders,
    rough_centers,
    row_chunks,
    sort_by_class,
)

__all__ = ["labeled_batches", "moments_of", "moments_of_batches"]


# A class whose features scatter less loses digits in float32: below 2**-126 numbers get
# shorter, and what is 2**-24 of the largest square should still be whole.
_SMALLEST_SCATTER = 2.0**-100


# Rows of a stream that are collected before the classes are told apart.
_BUFFER_ROWS = 2**14


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

    Each row is read once, or twice for "low_rank". It is centered near its class mean
    before it is multiplied, in the precision it comes in (at least float32), and what
    the center missed is taken off in the end. Sums of a few thousand rows are of that
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
    empty = zero_moments(num_classes, features.shape[1], kind, rank)
    if empty.sketch is not None:
        return _sketched(empty, features, ids)
    moments = _moments_of_rows(features, ids, empty)
    small = moments.scale_class.squares(moments.scatter).max(axis=-1)
    small = (small < _SMALLEST_SCATTER) & (moments.count > 0)  # [C]
    if features.dtype == np.float64 or not small.any():
        return moments
    rows = small[ids]
    again = features[rows].astype(np.float64), ids[rows]
    again = _moments_of_rows(*again, zero_moments(*moments.mean.shape, kind))
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
    order = sort_by_class(ids, num_classes)
    ids = ids[order]
    center = rough_centers(features, order, ids, num_classes)  # [C, D]
    rest = np.zeros_like(moments.mean)  # sums of the centered rows

    def centered_rows():
        for rows in row_chunks(ids, one_class=scatter.ndim == 3):
            classes, starts = np.unique(ids[rows], return_index=True)
            centered = features.take(order[rows], axis=0)
            centered -= center[ids[rows]] if classes.size > 1 else center[classes]
            rest[classes] += sums_by_class(centered, starts)
            yield centered, classes, starts

    moments.scale_class.add_rows(scatter, centered_rows())
    offset = rest / np.maximum(moments.count, 1)[:, None]
    moments.mean[:] = center + offset
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
    pieces = _buffered(labeled_batches(batches))
    return _moments_of_pieces(pieces, num_classes, kind, rank)


def _moments_of_pieces(pieces, num_classes, kind, rank):
    total = None
    for features, labels in pieces:
        if total is None:
            total = moments_of(features, labels, num_classes, kind, rank)
        elif total.sketch is None:
            total = merge_moments(
                total, moments_of(features, labels, num_classes, kind)
            )
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


def labeled_batches(batches):
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


def _sketched(total, features, ids):
    """`total` with more examples; its sketch is not copied, but added to."""
    squares = moments_of(features, ids, total.num_classes, "diag")
    merged = merge_all_but_sketches(total, squares)
    check_single(merged.scatter)
    order = sort_by_class(ids, total.num_classes)
    step = rows_at_a_time(total.sketch)
    for start, stop in itertools.pairwise(class_borders(ids[order])):
        class_id = ids[order[start]]
        rows = between_means(total, squares, class_id)
        for first in range(start, stop, step):
            some = features.take(order[first : min(first + step, stop)], axis=0)
            rows = np.concatenate([rows, some - squares.mean[class_id]])
            add_rows(total.sketch[class_id], rows)
            rows = rows[:0]
    return dataclasses.replace(merged, sketch=total.sketch)


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
