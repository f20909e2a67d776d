"""Estimates count, mean and scatter of every class in one pass over the features."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.finite import check_real
from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.core.matrix_workers import matrix_workers
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


# Classes with less scatter lose digits in float32: numbers below 2**-126 are subnormal,
# and squares down to 2**-24 of the largest should be exact.
_SMALLEST_SCATTER = 2.0**-100


# Rows of a stream that are collected before they are sorted by class.
_BUFFER_ROWS = 2**14


def moments_of(
    features: npt.ArrayLike | StoredArray,
    labels: npt.ArrayLike,
    num_classes: int,
    kind: str = "full",
    rank: int | None = None,
) -> ClassMoments:
    """Computes the moments of features in an array or in files.

        mean_c    = 1 / n_c sum_i x_i                        over the i of class c
        scatter_c = sum_i (x_i - mean_c)(x_i - mean_c)^T     over the i of class c

    Each row is read once, or twice for "low_rank". Rows are centered near their class
    mean before they are multiplied, in their own precision (at least float32), and
    corrected for the exact mean at the end. Sums of a few thousand rows have that
    precision, too, and are added in float64. If deviations are so small that their
    squares underflow in float32, below 1e-15, the class is recomputed in float64. A
    `StoredArray` is read in order, 64 MiB at a time.

    Args:
        features: floats `[N, D]`, or a feature map `[N, ...]`, flattened to D.
        labels: `[N]`, `[N, 1]` or one-hot `[N, C]`.
        num_classes: C.
        kind: "full", "tied", "diag" or "low_rank", see `ClassMoments`.
        rank: number of directions of each class, for "low_rank" only; by default 16, or
            D if that is less.

    Returns:
        moments: `ClassMoments`.

    Raises:
        ValueError: If lengths differ, a label is out of range, a feature is NaN or
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


_errstate = np.errstate(over="ignore", invalid="ignore")  # overflow is an error below


@_errstate
def _moments_of_rows(features, ids, moments):
    """Computes the moments of floats `[N, D]` in their own precision."""
    num_classes, scatter = moments.num_classes, moments.scatter
    moments.count[:] = np.bincount(ids, minlength=num_classes)
    order = sort_by_class(ids, num_classes)
    ids = ids[order]
    center = rough_centers(features, order, ids, num_classes)  # [C, D]
    offset_sums = np.zeros_like(moments.mean)  # sums of the centered rows

    @_errstate
    def sums_of(rows):
        classes, starts = np.unique(ids[rows], return_index=True)
        centered = features.take(order[rows], axis=0)
        centered -= center[ids[rows]] if classes.size > 1 else center[classes]
        sums = sums_by_class(centered, starts)
        return classes, sums, moments.scale_class.products(centered, starts)

    chunks = row_chunks(ids, one_class=scatter.ndim == 3)
    one = scatter if moments.kind == "tied" else scatter[0]
    flops = one.size * ids.size / len(chunks)
    with matrix_workers(len(chunks), flops) as map_in_order:
        for classes, sums, products in map_in_order(sums_of, chunks):
            offset_sums[classes] += sums
            moments.scale_class.add(scatter, classes, products)
    offset = offset_sums / np.maximum(moments.count, 1)[:, None]
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
    """Computes the moments of a stream, in one pass and bounded memory.

    Args:
        batches: a `tf.data.Dataset` or any iterable of `(features, labels)` batches;
            further elements of a batch, such as sample weights, are ignored.
        num_classes: C.
        kind: "full", "tied", "diag" or "low_rank", see `ClassMoments`.
        rank: see `moments_of`.

    Returns:
        moments: `ClassMoments`.

    Raises:
        ValueError: As in `moments_of`, or if the stream is empty, infinite, or not of
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
        else:  # a sketch of all classes for each piece would take too long
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
    """Yields the `(features, labels)` of a stream as arrays.

    Raises:
        ValueError: If a batch is not such a pair, or the stream is infinite.
    """
    if is_infinite(batches):
        raise ValueError(
            "The dataset of features is infinite (`repeat()`?); pass it without "
            "`repeat()`, or `dataset.take(n)`, n batches of it."
        )
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise ValueError(
                f"A stream must yield batches (features, labels); received a "
                f"{type(batch).__name__}. If features are an array, pass their labels, "
                f"too."
            )
        yield np.asarray(batch[0]), np.asarray(batch[1])


def _sketched(total, features, ids):
    """Adds examples to `total`; changes its sketch in place."""
    squares = moments_of(features, ids, total.num_classes, "diag")
    merged = merge_all_but_sketches(total, squares)
    check_single(merged.scatter)
    order = sort_by_class(ids, total.num_classes)
    step = rows_at_a_time(total.sketch)

    def add_class(start, stop):
        class_id = ids[order[start]]
        rows = between_means(total, squares, class_id)
        for first in range(start, stop, step):
            some = features.take(order[first : min(first + step, stop)], axis=0)
            rows = np.concatenate([rows, some - squares.mean[class_id]])
            add_rows(total.sketch[class_id], rows)
            rows = rows[:0]

    borders = class_borders(ids[order])
    length, size = total.sketch.shape[1:]
    flops = 2 * length * size * ids.size / (len(borders) - 1)
    with matrix_workers(len(borders) - 1, flops) as map_in_order:
        list(map_in_order(add_class, borders[:-1], borders[1:]))
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
        # Float32 holds float16, bfloat16 and short integers exactly.
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
    """Raises ValueError for NaN or infinity, which shows in the mean of its class."""
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
