"""Estimates count, mean and scatter of every class in one pass over the features."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.finite import check_real
from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.core.matrix_workers import matrix_workers
from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.core.validation import is_infinite
from tf_pseudofeat.gaussians.low_rank import add_rows, rows_at_a_time
from tf_pseudofeat.gaussians.moments import ClassMoments, zero_moments
from tf_pseudofeat.gaussians.moments_merge import add_moments
from tf_pseudofeat.gaussians.moments_of_array import moments_of_array
from tf_pseudofeat.gaussians.rows_by_class import class_borders, sort_by_class

__all__ = ["add_examples", "labeled_batches", "moments_of", "moments_of_batches"]

# Rows of a stream that are collected before they are sorted by class, for work on each
# class that is there to take less time than its rows.
_BUFFER_ROWS = 2**14
_BUFFER_ROWS_PER_CLASS = 4


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
    if empty.sketch is None:
        return moments_of_array(features, ids, range(num_classes), kind)
    _add_rows(empty, features, ids)
    return empty


def add_examples(
    moments: ClassMoments, features: npt.ArrayLike, labels: npt.ArrayLike
) -> None:
    """Adds further examples to moments, in place.

    It takes time in proportion to the examples, however many classes there are.

    Args:
        moments: `ClassMoments` that nobody else holds.
        features: see `moments_of`.
        labels: see `moments_of`.

    Raises:
        ValueError: As in `moments_of`, or if features have another size.
    """
    features, ids = _check_rows(features, labels, moments.num_classes)
    if features.shape[1] != moments.feature_size:
        raise ValueError(
            f"Batches must have features of one size; received {features.shape[1]} "
            f"features after {moments.feature_size}."
        )
    _add_rows(moments, features, ids)


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
    pieces = _buffered(labeled_batches(batches), num_classes)
    return _moments_of_pieces(pieces, num_classes, kind, rank)


def _moments_of_pieces(pieces, num_classes, kind, rank):
    total = None
    for features, labels in pieces:
        if total is None:
            total = moments_of(features, labels, num_classes, kind, rank)
        else:
            add_examples(total, features, labels)
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


def _add_rows(total, features, ids):
    """Adds rows of features to `total`, in place."""
    # Of those classes alone that are there: they may be few of many thousand.
    classes, ids = np.unique(ids, return_inverse=True)
    kind = total.kind if total.sketch is None else "diag"
    part = moments_of_array(features, ids, classes, kind)
    between = add_moments(total, part, classes)
    if total.sketch is None:
        return
    order = sort_by_class(ids, len(classes))
    step = rows_at_a_time(total.sketch)

    def add_class(k, class_id, start, stop):
        rows = between[k, None]
        for first in range(start, stop, step):
            some = features.take(order[first : min(first + step, stop)], axis=0)
            rows = np.concatenate([rows, some - part.mean[k]])
            add_rows(total.sketch[class_id], rows)
            rows = rows[:0]

    borders = class_borders(ids[order])
    flops = 2 * total.sketch[0].size * len(ids) / len(classes)
    with matrix_workers(len(classes), flops) as map_in_order:
        numbered = range(len(classes)), classes
        list(map_in_order(add_class, *numbered, borders[:-1], borders[1:]))


def _buffered(batches, num_classes):
    pending, size = [], 0
    for batch in batches:
        if pending and batch[0].shape[1:] != pending[0][0].shape[1:]:
            raise ValueError(
                f"Batches must have features of one shape; received "
                f"{list(batch[0].shape)} after {list(pending[0][0].shape)}."
            )
        pending.append(batch)
        size += len(batch[0])
        if size >= max(_BUFFER_ROWS, _BUFFER_ROWS_PER_CLASS * num_classes):
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
