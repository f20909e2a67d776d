"""Count, mean and scatter of every class, as one immutable object.

The sufficient statistics of a Gaussian per class: all that Step 3 of Konno and Iwazume
(2018) needs of the features.
"""

import dataclasses
import math
import os

import numpy as np

from tf_pseudofeat.gaussians.covariance_types import MOMENT_KINDS
from tf_pseudofeat.gaussians.rank import check_rank, resolve_rank

__all__ = ["ClassMoments", "check_memory", "shapes_of_moments", "zero_moments"]


@dataclasses.dataclass(frozen=True, eq=False)
class ClassMoments:
    """Statistics of C classes of D features; immutable, float64.

    Attributes:
        count: examples per class `[C]`.
        mean: class means `[C, D]`, zero for an empty class.
        scatter: sums of products of deviations from the class mean: `[C, D, D]` if
            `kind` is "full", pooled over the classes `[D, D]` if "tied", squares
            only `[C, D]` if "diag" or "low_rank".
        kind: "full", "tied", "diag" or "low_rank".
        sketch: float32 `[C, 2 rank, D]` for "low_rank" only: rows whose products
            approximate the scatter of the class, see `low_rank.add_rows`.
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
        """The scale class for this kind of scatter, such as `TriangularScale`."""
        return MOMENT_KINDS[self.kind].scale_class

    @property
    def rank(self) -> int | None:
        """The number of directions of "low_rank"; None for other kinds."""
        return None if self.sketch is None else self.sketch.shape[1] // 2


def zero_moments(num_classes, feature_size, kind="full", rank=None):
    """All-zero moments, the identity of `merge_moments`.

    Raises:
        ValueError: If `kind` is unknown, `rank` does not fit it, or the statistics do
            not fit in memory.
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
    """Returns the shapes and dtypes of the arrays of `ClassMoments`.

    Args:
        num_classes: C.
        feature_size: D.
        kind: see `ClassMoments`.
        rank: number of directions, required for "low_rank".

    Returns:
        shapes: {field: (shape, dtype)}.

    Raises:
        ValueError: If `kind` is unknown.
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
    """Checks that the statistics fit in memory.

    Raises:
        ValueError: If they need more than half of it, or `rank` exceeds the feature
            size.
    """
    if MOMENT_KINDS[kind].has_rank:
        rank = resolve_rank(rank, feature_size)
    shapes = shapes_of_moments(num_classes, feature_size, kind, rank)
    for field in ("scatter", "sketch"):
        if field in shapes:
            shape, dtype = shapes[field]
            _check_size(shape, dtype.itemsize)


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
