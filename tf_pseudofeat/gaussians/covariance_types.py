"""The types of covariance: of each, its moments, its scale, and who shares one."""

import typing

from tf_pseudofeat.gaussians.diagonal import DiagonalScale
from tf_pseudofeat.gaussians.low_rank import LowRankScale
from tf_pseudofeat.gaussians.triangular import TriangularScale

__all__ = ["COVARIANCE_TYPES", "MOMENT_KINDS", "as_scale", "plain"]


class CovarianceType(typing.NamedTuple):
    """A type of covariance; another one is a scale in its own file, and a line below.

    Attributes:
        kind: of the `ClassMoments` that it is estimated from.
        scale_class: what the estimate is held in, with all that `TriangularScale` has.
        is_shared: whether all classes have the same.
        has_rank: whether it takes a `rank`, and its moments keep a sketch.
        shrinkage: the only weight that it has, or None.
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
    """The scale of an array `[C, D, D]`, `[1, D, D]` or `[C, D]`, or what is one."""
    if isinstance(array, tuple):
        return array
    return (DiagonalScale if len(array.shape) == 2 else TriangularScale)(array)


def plain(scale):
    """The inverse of `as_scale`: the array alone, where its shape tells the scale."""
    return scale[0] if type(scale) in (DiagonalScale, TriangularScale) else scale
