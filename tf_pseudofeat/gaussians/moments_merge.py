"""Merges the moments of disjoint sets of examples."""

import dataclasses

import numpy as np

from tf_pseudofeat.gaussians.low_rank import add_rows
from tf_pseudofeat.gaussians.moments import ClassMoments

__all__ = ["add_moments", "merge_moments"]

_ARRAYS = ("count", "mean", "scatter")


def merge_moments(first: ClassMoments, second: ClassMoments) -> ClassMoments:
    """Merges the moments of two disjoint sets of examples.

        delta   = mean_b - mean_a
        scatter = scatter_a + scatter_b + n_a n_b / (n_a + n_b) delta delta^T

    Exact in any order and grouping, up to float64 rounding. Sketches of "low_rank" are
    merged by `low_rank.add_rows`, in float32.

    Args:
        first: `ClassMoments`.
        second: `ClassMoments` with the same classes, features, kind and rank.

    Returns:
        merged: a new `ClassMoments`.

    Raises:
        TypeError: If one of them is not a `ClassMoments`.
        ValueError: If classes, features, kinds or ranks differ.

    References:
        Chan, Golub and LeVeque (1979), "Updating Formulae and a Pairwise Algorithm
        for Computing Sample Variances".
    """
    _check_same(first, second)
    arrays = {name: getattr(first, name).copy() for name in _ARRAYS}
    if first.sketch is not None:
        arrays["sketch"] = first.sketch.copy()
    merged = dataclasses.replace(first, **arrays)
    between = add_moments(merged, second, np.arange(first.num_classes))
    if first.sketch is not None:
        for class_id in np.flatnonzero(second.count):
            rows = np.concatenate([second.sketch[class_id], between[class_id, None]])
            add_rows(merged.sketch[class_id], rows)
    return merged


def add_moments(total, part, classes):
    """Adds the moments of other examples to `total`, in place, except for sketches.

    Args:
        total: `ClassMoments` of C classes.
        part: those of K classes, without a sketch, or with one that is ignored.
        classes: which of the C these are `[K]`; each at most once.

    Returns:
        between: for a `total` with sketches, the row of each class `[K, D]` whose
            products are the scatter between the two means; else None.

    Raises:
        ValueError: If squares overflow, or deviations the float32 rows of a sketch.
    """
    count = total.count[classes] + part.count
    share = part.count / np.maximum(count, 1)
    delta = part.mean - total.mean[classes]  # [K, D]
    weight = total.count[classes] * share  # [K], n_a n_b / (n_a + n_b)
    with np.errstate(over="ignore", invalid="ignore"):  # overflow is an error below
        total.scale_class.add(total.scatter, classes, part.scatter)
        weighted = weight[:, None] * delta
        total.scale_class.add_between(total.scatter, classes, weighted, delta)
        total.mean[classes] += share[:, None] * delta
    total.count[classes] = count
    squares = total.scale_class.squares(total.scatter)
    if not np.isfinite(squares if squares.ndim == 1 else squares[classes]).all():
        raise ValueError(
            f"Products of features overflow float64: means of the same class lie up to "
            f"{np.abs(delta).max():.3g} apart. Scale the features down."
        )
    if total.sketch is None:
        return None
    _check_single(total.scatter[classes])
    return np.sqrt(weight)[:, None] * delta


def _check_single(squares):
    """Raises ValueError if deviations overflow the float32 rows of a sketch."""
    if np.sqrt(squares.max()) > np.finfo(np.float32).max:
        raise ValueError(
            f"Deviations from the class means overflow float32, the dtype of low-rank "
            f"covariances: they are up to {np.sqrt(squares.max()):.3g}. Scale the "
            f"features down."
        )


def _check_same(first, second):
    for moments in (first, second):
        if not isinstance(moments, ClassMoments):
            raise TypeError(
                f"Only ClassMoments can be merged; received {type(moments).__name__}. "
                f"A ClassConditionalGaussian has them as `moments`."
            )
    mine, theirs = map(_described, (first, second))
    if mine != theirs:
        raise ValueError(
            f"Only moments with the same kind, classes and features can be merged; "
            f"received {mine} and {theirs}."
        )


def _described(moments):
    shape = f"{moments.kind} [C, D] = {list(moments.mean.shape)}"
    return shape if moments.rank is None else f"{shape} of rank {moments.rank}"
