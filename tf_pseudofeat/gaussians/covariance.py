"""From class moments to positive-definite covariances, and a report of what it took.

Step 3 of Konno and Iwazume (2018) [1]. Few examples, dead units and constant features
make a sample covariance singular; shrinkage and a stated ladder of jitter make it a
covariance that can be sampled, and the report says where that was needed.

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

from tf_pseudofeat.core.arguments import check_rank
from tf_pseudofeat.gaussians.covariance_types import COVARIANCE_TYPES, plain
from tf_pseudofeat.gaussians.low_rank import LowRankScale
from tf_pseudofeat.gaussians.moments import ClassMoments
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
    """One `ClassCovariance` per class (a single one for "tied"); prints as a table."""

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
        moments: what they were estimated from.
        covariance_type: see `estimate_covariance`.
        shrinkage: see `estimate_covariance`.
    """

    scale: np.ndarray | LowRankScale
    moments: ClassMoments
    covariance_type: str
    shrinkage: str | float

    @functools.cached_property
    def report(self):
        """`CovarianceReport`; from all eigenvalues, so made when it is asked for."""
        samples = _samples(self.moments, self.covariance_type, self.shrinkage)
        rows = tuple(
            ClassCovariance(class_id, 0, 0, 0.0, 0.0, 1.0, "no example")
            if sample is None
            else sample.row()
            for class_id, sample in enumerate(samples)
        )
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
    """Raises ValueError for settings that `estimate_covariance` cannot follow."""
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
    """Raises for classes that have too few examples for their covariances.

    Args:
        count: examples of each class `[C]`.
        covariance_type: see `estimate_covariance`.

    Raises:
        ValueError: A class has a single example and a covariance of its own; or of a
            shared one, no class has two.
    """
    count = np.asarray(count)
    single = np.flatnonzero(count == 1).tolist()
    if not COVARIANCE_TYPES[covariance_type].is_shared:
        if single:
            raise ValueError(
                f"Class {single[0]} has 1 example; a {covariance_type!r} covariance of "
                f"its own needs at least 2 (classes with 1 example: {single}). Pass "
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
    """Factors of each class's covariance, and how they came about.

        S     = scatter / (n - 1)
        sigma = covariance_scale ((1 - shrinkage) S + shrinkage tr(S) / D I + jitter I)

    Of "low_rank", S is the model of the sample covariance: `rank` of its directions and
    what they leave of its diagonal, which is so exact. "oas" chooses for this S.

        S = factor factor^T + diag(variance - rowsum(factor^2))

    Args:
        moments: `ClassMoments` of the kind that `moment_kind(covariance_type)` names.
        covariance_type: "full", "diag" (independent features), "tied" (one for all
            classes: the pooled within-class covariance), "spherical" or "low_rank".
        shrinkage: 0.0 is the paper's plain sample covariance; "oas" chooses by [2];
            a float in [0, 1] is taken as it is. "spherical" is the target itself and
            does not shrink.
        covariance_scale: magnifies every covariance (section 3.6 of [1]).

    Returns:
        estimate: `CovarianceEstimate`.

    Raises:
        ValueError: A class has a single example and a covariance of its own; the
            settings or the kind of moments do not fit.
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
    for *out, sample in zip(*arrays, samples, strict=True):
        if sample is None:  # a standard normal, as a placeholder
            out[0][...] = 0.0
            settings.scale_class.factorize(out[0], 1.0)
        else:
            sample.factor(*out)
    if covariance_scale != 1:
        for array in arrays:
            array *= np.sqrt(covariance_scale)
    scale = plain(settings.scale_class(*arrays))
    return CovarianceEstimate(scale, moments, covariance_type, shrinkage)


def _samples(moments, covariance_type, shrinkage):
    """Yields the `SampleCovariance` of every class, or None; or the one they share."""
    settings, count = COVARIANCE_TYPES[covariance_type], moments.count
    scale_class = settings.scale_class
    sample_class = functools.partial(scale_class.sample_class, scale_class)
    weight = shrinkage if settings.shrinkage is None else settings.shrinkage
    freedom = int(count.sum() - np.count_nonzero(count))
    # The mean variance of a feature within its class: the unit of jitter for a class
    # that has no variance itself.
    variance = scale_class.squares(moments.scatter).sum(axis=-1).sum()
    unit = variance / max(freedom, 1) / moments.feature_size or 1.0
    check_examples(count, covariance_type)
    if settings.is_shared:
        # Pooled over the classes: N - C degrees of freedom, so n - 1 = N - C in [2].
        yield sample_class(moments.scatter, freedom + 1, weight, unit)
        return
    for class_id, n in enumerate(count):
        sketch = None if moments.sketch is None else moments.sketch[class_id]
        how = moments.scatter[class_id], n, weight, unit, class_id, sketch
        yield sample_class(*how) if n else None
