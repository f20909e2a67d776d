"""Computes count, mean and scatter of every class, of features in an array."""

import numpy as np

from tf_pseudofeat.core.matrix_workers import matrix_workers
from tf_pseudofeat.gaussians.diagonal import sums_by_class
from tf_pseudofeat.gaussians.moments import zero_moments
from tf_pseudofeat.gaussians.rows_by_class import (
    rough_centers,
    row_chunks,
    sort_by_class,
)

__all__ = ["moments_of_array"]

# Classes with less scatter lose digits in float32: numbers below 2**-126 are subnormal,
# and squares down to 2**-24 of the largest should be exact.
_SMALLEST_SCATTER = 2.0**-100


def moments_of_array(features, ids, classes, kind):
    """The moments of rows of features, of any kind but "low_rank".

    See `moments_of` for their precision.

    Args:
        features: float32 or float64 `[N, D]`.
        ids: classes of the rows, as positions in `classes` `[N]`.
        classes: ids of the K classes that the moments are of, for messages.
        kind: see `ClassMoments`.

    Returns:
        moments: `ClassMoments` of K classes.

    Raises:
        ValueError: If a feature is NaN or infinite, or products overflow.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is an error below
        moments = _moments_of_rows(features, ids, classes, kind)
    small = moments.scale_class.squares(moments.scatter).max(axis=-1)
    # The scatter of one example is 0, and exact.
    enough = moments.count > (0 if kind == "tied" else 1)
    small = (small < _SMALLEST_SCATTER) & enough  # [K]
    if features.dtype == np.float64 or not small.any():
        return moments
    rows, position = small[ids], np.cumsum(small) - 1
    features, ids = features[rows].astype(np.float64), position[ids[rows]]
    again = _moments_of_rows(features, ids, np.asarray(classes)[small], kind)
    moments.mean[small] = again.mean
    moments.scatter[... if kind == "tied" else small] = again.scatter
    return moments


def _moments_of_rows(features, ids, classes, kind):
    """Computes the moments of floats `[N, D]` in their own precision."""
    num_classes = len(classes)
    moments = zero_moments(num_classes, features.shape[1], kind)
    mean, scatter = moments.mean, moments.scatter
    moments.count[:] = np.bincount(ids, minlength=num_classes)
    order = sort_by_class(ids, num_classes)
    ids = ids[order]
    center = rough_centers(features, order, ids, num_classes)  # [C, D]

    def sums_of(rows):
        present, starts = np.unique(ids[rows], return_index=True)
        centered = features.take(order[rows], axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            centered -= center[ids[rows]] if present.size > 1 else center[present]
            sums = sums_by_class(centered, starts)
            return present, sums, moments.scale_class.products(centered, starts)

    chunks = row_chunks(ids, one_class=scatter.ndim == 3)
    one = scatter if kind == "tied" else scatter[0]
    flops = one.size * ids.size / len(chunks)
    with matrix_workers(len(chunks), flops) as map_in_order:
        for present, sums, products in map_in_order(sums_of, chunks):
            mean[present] += sums
            moments.scale_class.add(scatter, present, products)
    # Of the centered rows so far. In place, as all of [C, D] may be most of the work.
    mean /= np.maximum(moments.count, 1)[:, None]
    weighted = -moments.count[:, None] * mean
    moments.scale_class.add_between(scatter, slice(None), weighted, mean)
    mean += center
    _check_finite(mean, features, order, ids, classes)
    if not np.isfinite(scatter).all():
        raise ValueError(
            f"Products of features overflow {features.dtype}: the largest magnitude "
            f"is {np.abs(features).max():.3g}. Scale the features down, or pass them "
            f"as float64."
        )
    return moments


def _check_finite(mean, features, order, ids, classes):
    """Raises ValueError for NaN or infinity, which shows in the mean of its class."""
    for class_id in np.flatnonzero(~np.isfinite(mean).all(axis=1)):
        rows = order[ids == class_id]
        wrong = rows[~np.isfinite(features[rows]).all(axis=1)]
        if not wrong.size:
            continue  # the sum itself overflowed; so does the scatter, which is checked
        raise ValueError(
            f"Class {classes[class_id]} has {wrong.size} of {rows.size} examples with "
            f"NaN or infinite features, the first in row {wrong[0]}. Clean the inputs, "
            f"or look for an overflow (float16?) before the split layer."
        )
