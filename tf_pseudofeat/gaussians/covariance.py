"""Estimates positive definite covariances from class moments, with a report.

Step 3 of Konno and Iwazume (2018) [1]. Few examples, dead units and constant features
make a sample covariance singular. Shrinkage and, if needed, jitter make it positive
definite; the report says where.

References:
    [1] Konno and Iwazume, "Pseudo-Feature Generation for Imbalanced Data Analysis in
        Deep Learning", arXiv 1807.06538, 2018.
    [2] Chen, Wiesel, Eldar and Hero, "Shrinkage Algorithms for MMSE Covariance
        Estimation", IEEE Transactions on Signal Processing 58(10), 2010.
"""

import dataclasses
import functools
import numbers
from typing import Any

import numpy as np

from tf_pseudofeat.core.matrix_workers import matrix_workers
from tf_pseudofeat.gaussians.covariance_types import COVARIANCE_TYPES, plain
from tf_pseudofeat.gaussians.low_rank import LowRankScale
from tf_pseudofeat.gaussians.moments import ClassMoments
from tf_pseudofeat.gaussians.rank import check_rank
from tf_pseudofeat.gaussians.sample_covariance import ClassCovariance

__all__ = [
    "COVARIANCE_TYPES",
    "ClassCovariance",
    "CovarianceEstimate",
    "CovarianceReport",
    "check_examples",
    "check_settings",
    "estimate_covariance",
    "moment_kind",
]


@dataclasses.dataclass(frozen=True)
class CovarianceReport:
    """One `ClassCovariance` per class (or one for "tied"); prints as a table."""

    covariance_type: str
    feature_size: int
    classes: tuple[ClassCovariance, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts and lists."""
        return dataclasses.asdict(self)

    def __str__(self):
        lines = [
            f"{self.covariance_type} covariance of {self.feature_size} features",
            f"{'class':>6} {'count':>8} {'rank':>6} {'shrinkage':>10} {'jitter':>10} "
            f"{'condition':>10}  note",
        ]
        lines += [
            f"{'all' if row.class_id is None else row.class_id:>6} {row.count:>8} "
            f"{row.rank:>6} {row.shrinkage:>10.4f} {row.jitter:>10.2e} "
            f"{row.condition:>10.2e}  {row.note}"
            for row in self.classes
        ]
        return "\n".join(line.rstrip() for line in lines)


@dataclasses.dataclass(frozen=True, eq=False)
class CovarianceEstimate:
    """Factors of the covariances, covariance = scale scale^T, float64.

    Attributes:
        scale: lower triangular `[C, D, D]` ("full") or `[1, D, D]` ("tied"), standard
            deviations `[C, D]` ("diag", "spherical"), or a `LowRankScale` of
            deviations `[C, D]` and a float32 factor `[C, D, rank]` ("low_rank").
        moments: the moments that they were estimated from.
        covariance_type: see `estimate_covariance`.
        shrinkage: see `estimate_covariance`.
    """

    scale: np.ndarray | LowRankScale
    moments: ClassMoments
    covariance_type: str
    shrinkage: str | float

    @functools.cached_property
    def report(self):
        """`CovarianceReport`, from all eigenvalues, so computed on first access."""
        samples = _samples(self.moments, self.covariance_type, self.shrinkage)

        def row(class_id, sample_of):
            if sample_of is None:
                return ClassCovariance(class_id, 0, 0, 0.0, 0.0, 1.0, "no example")
            return sample_of().row()

        with matrix_workers(len(samples), 4 * _flops(self.moments)) as map_in_order:
            rows = tuple(map_in_order(row, range(len(samples)), samples))
        size = self.moments.feature_size
        return CovarianceReport(self.covariance_type, size, rows)


def moment_kind(covariance_type):
    """The `ClassMoments.kind` that a covariance type is estimated from."""
    if covariance_type not in list(COVARIANCE_TYPES):
        raise ValueError(
            f"`covariance_type` must be one of {list(COVARIANCE_TYPES)}; received "
            f"{covariance_type!r}."
        )
    return COVARIANCE_TYPES[covariance_type].kind


def check_settings(covariance_type, shrinkage="oas", covariance_scale=1.0, rank=None):
    """Raises ValueError for invalid settings of `estimate_covariance`."""
    moment_kind(covariance_type)
    check_rank(covariance_type, rank)
    is_weight = isinstance(shrinkage, int | float) and 0 <= shrinkage <= 1
    if not is_weight and shrinkage != "oas":
        raise ValueError(
            f"`shrinkage` must be 'oas' or a number from 0 to 1; received "
            f"{shrinkage!r}."
        )
    is_real = isinstance(covariance_scale, numbers.Real)
    if not is_real or not 0 < covariance_scale < np.inf:
        raise ValueError(
            f"`covariance_scale` must be a positive number; received "
            f"{covariance_scale!r}."
        )


def check_examples(count, covariance_type):
    """Raises if classes have too few examples for their covariances.

    Args:
        count: examples of each class `[C]`.
        covariance_type: see `estimate_covariance`.

    Raises:
        ValueError: If a class with its own covariance has one example; or if no class
            has two examples for a shared covariance.
    """
    count = np.asarray(count)
    single = np.flatnonzero(count == 1).tolist()
    if not COVARIANCE_TYPES[covariance_type].is_shared:
        if single:
            raise ValueError(
                f"Class {single[0]} has 1 example; a {covariance_type!r} covariance "
                f"needs at least 2 (classes with 1 example: {single}). Pass "
                f"covariance_type='tied', which shares one covariance."
            )
    elif not (count > 1).any():
        raise ValueError(
            f"{int(count.sum())} examples of {np.count_nonzero(count)} classes "
            f"leave no deviation from the class means; at least one class needs 2 "
            f"examples."
        )


def estimate_covariance(
    moments: ClassMoments,
    covariance_type: str = "full",
    shrinkage: float | str = "oas",
    covariance_scale: float = 1.0,
) -> CovarianceEstimate:
    """Estimates a factor of the covariance of each class.

        S     = scatter / (n - 1)
        sigma = covariance_scale ((1 - shrinkage) S + shrinkage tr(S) / D I + jitter I)

    For "low_rank", S is a model of the sample covariance: `rank` directions, and a
    diagonal that makes its diagonal exact. "oas" chooses the shrinkage of this S.

        S = factor factor^T + diag(variance - rowsum(factor^2))

    Args:
        moments: `ClassMoments` of the kind that `moment_kind(covariance_type)` names.
        covariance_type: "full", "diag" (independent features), "tied" (one for all
            classes: the pooled within-class covariance), "spherical" or "low_rank".
        shrinkage: 0.0 is the paper's plain sample covariance; "oas" chooses by [2]; or
            a float in [0, 1]. Ignored for "spherical", which is the shrinkage target
            itself.
        covariance_scale: factor of every covariance (section 3.6 of [1]).

    Returns:
        estimate: `CovarianceEstimate`.

    Raises:
        ValueError: If a class with its own covariance has one example, or settings or
            the kind of moments do not fit.
    """
    check_settings(covariance_type, shrinkage, covariance_scale)
    if moments.kind != moment_kind(covariance_type):
        raise ValueError(
            f"covariance_type={covariance_type!r} needs moments of kind "
            f"{moment_kind(covariance_type)!r}; received kind {moments.kind!r}."
        )
    settings = COVARIANCE_TYPES[covariance_type]
    shapes = settings.shapes(*moments.mean.shape, moments.rank)
    arrays = np.empty(shapes[0]), *(np.zeros(each, np.float32) for each in shapes[1:])
    samples = _samples(moments, covariance_type, shrinkage)

    def factor(sample_of, *out):
        if sample_of is None:  # a standard normal as placeholder
            out[0][...] = 0.0
            settings.scale_class.factorize(out[0], 1.0)
        else:
            sample_of().factor(*out)

    with matrix_workers(len(samples), _flops(moments)) as map_in_order:
        list(map_in_order(factor, samples, *arrays))
    if covariance_scale != 1:
        for array in arrays:
            array *= np.sqrt(covariance_scale)
    scale = plain(settings.scale_class(*arrays))
    return CovarianceEstimate(scale, moments, covariance_type, shrinkage)


def _flops(moments):
    """Floating-point operations for one factor, about."""
    if moments.sketch is not None:
        return 2 * moments.rank * moments.sketch[0].size
    return moments.scatter[0].size * moments.feature_size


def _samples(moments, covariance_type, shrinkage):
    """What makes the `SampleCovariance` of each class, or None; or the shared one."""
    settings, count = COVARIANCE_TYPES[covariance_type], moments.count
    scale_class = settings.scale_class
    sample_class = functools.partial(scale_class.sample_class, scale_class)
    if settings.shrinkage is not None:
        shrinkage = settings.shrinkage
    freedom = int(count.sum() - np.count_nonzero(count))
    # The mean within-class variance of a feature: the unit of jitter for a class
    # without variance.
    variance = scale_class.squares(moments.scatter).sum(axis=-1).sum()
    fallback_variance = variance / max(freedom, 1) / moments.feature_size or 1.0
    check_examples(count, covariance_type)
    if settings.is_shared:
        # Pooled over the classes: N - C degrees of freedom, so n - 1 = N - C in [2].
        how = moments.scatter, freedom + 1, shrinkage, fallback_variance
        return [functools.partial(sample_class, *how)]
    how = {"shrinkage": shrinkage, "fallback_variance": fallback_variance}
    sketches = [None] * len(count) if moments.sketch is None else moments.sketch
    return [
        functools.partial(
            sample_class, scatter, n, class_id=class_id, sketch=sketch, **how
        )
        if n
        else None
        for class_id, (n, scatter, sketch) in enumerate(
            zip(count, moments.scatter, sketches, strict=True)
        )
    ]
