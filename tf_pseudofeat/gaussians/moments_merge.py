"""Merges the moments of disjoint sets of examples."""

import dataclasses

import numpy as np

from tf_pseudofeat.gaussians.low_rank import add_rows
from tf_pseudofeat.gaussians.moments import ClassMoments

__all__ = ["between_means", "check_single", "merge_all_but_sketches", "merge_moments"]


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
    merged = merge_all_but_sketches(first, second)
    if first.sketch is None:
        return merged
    check_single(merged.scatter)
    sketch = first.sketch.copy()
    for class_id in np.flatnonzero(second.count):
        between = between_means(first, second, class_id)
        rows = np.concatenate([second.sketch[class_id], between])
        add_rows(sketch[class_id], rows)
    return dataclasses.replace(merged, sketch=sketch)


def merge_all_but_sketches(first, second):
    """Merges everything except the sketches."""
    count = first.count + second.count
    share = second.count / np.maximum(count, 1)
    delta = second.mean - first.mean  # [C, D]
    weight = first.count * share  # [C], n_a n_b / (n_a + n_b)
    scatter = first.scatter + second.scatter
    first.scale_class.add_between(scatter, weight[:, None] * delta, delta)
    mean = first.mean + share[:, None] * delta
    return ClassMoments(count=count, mean=mean, scatter=scatter, kind=first.kind)


def between_means(first, second, class_id):
    """The row `[1, D]` whose products are the scatter between two means."""
    counts = first.count[class_id], second.count[class_id]
    weight = counts[0] * counts[1] / max(sum(counts), 1)
    delta = second.mean[class_id] - first.mean[class_id]
    return np.sqrt(weight) * delta[np.newaxis]


def check_single(squares):
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
