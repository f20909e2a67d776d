"""The covariance types: moments, scale class, and whether classes share one."""

import typing

from tf_pseudofeat.gaussians.diagonal import DiagonalScale
from tf_pseudofeat.gaussians.low_rank import LowRankScale
from tf_pseudofeat.gaussians.triangular import TriangularScale

__all__ = ["COVARIANCE_TYPES", "MOMENT_KINDS", "as_scale", "plain"]


class CovarianceType(typing.NamedTuple):
    """A covariance type. To add one, write a scale class and an entry below.

    Attributes:
        kind: kind of the `ClassMoments` that it is estimated from.
        scale_class: class of the estimate, with the interface of `TriangularScale`.
        is_shared: whether all classes share one covariance.
        has_rank: whether it takes a `rank`, and its moments have a sketch.
        shrinkage: fixed shrinkage, or None.
    """

    kind: str
    scale_class: type
    is_shared: bool = False
    has_rank: bool = False
    shrinkage: float | None = None

    def shapes(self, num_classes, size, rank=None):
        """The shapes of the arrays of its scale."""
        sizes = {"C": 1 if self.is_shared else num_classes, "D": size, "R": rank}
        return [tuple(sizes[axis] for axis in axes) for axes in self.scale_class.axes]


COVARIANCE_TYPES = {
    "full": CovarianceType("full", TriangularScale),
    "diag": CovarianceType("diag", DiagonalScale),
    "tied": CovarianceType("tied", TriangularScale, is_shared=True),
    "spherical": CovarianceType("diag", DiagonalScale, shrinkage=1.0),
    "low_rank": CovarianceType("low_rank", LowRankScale, has_rank=True),
}
MOMENT_KINDS = {name: t for name, t in COVARIANCE_TYPES.items() if t.kind == name}


def as_scale(array):
    """Converts an array `[C, D, D]`, `[1, D, D]` or `[C, D]` to a scale."""
    if isinstance(array, tuple):
        return array
    return (DiagonalScale if len(array.shape) == 2 else TriangularScale)(array)


def plain(scale):
    """Converts a scale to an array, if its shape identifies the scale."""
    return scale[0] if type(scale) in (DiagonalScale, TriangularScale) else scale
