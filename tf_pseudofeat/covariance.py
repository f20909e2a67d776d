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

import numpy as np
import scipy.linalg

from tf_pseudofeat.arguments import check_rank
from tf_pseudofeat.low_rank import LowRankScale, low_rank_part, turned
from tf_pseudofeat.moments import ClassMoments

__all__ = [
    "COVARIANCE_TYPES",
    "ClassCovariance",
    "CovarianceEstimate",
    "CovarianceReport",
    "check_settings",
    "estimate_covariance",
    "moment_kind",
    "report_covariance",
]

COVARIANCE_TYPES = ("full", "diag", "tied", "spherical", "low_rank")

# Tried in turn, as fractions of the mean variance, until the condition is within reach.
_JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3)
# A float32 factor of a worse conditioned matrix samples noise, not the class.
_LARGEST_CONDITION = 1e12


@dataclasses.dataclass(frozen=True)
class ClassCovariance:
    """How the covariance of one class was made.

    Attributes:
        class_id: which class; None for the one that all classes share ("tied").
        count: examples that it rests on.
        rank: rank of the sample covariance; of "low_rank", directions of its factor.
        shrinkage: weight of the spherical target, in [0, 1].
        jitter: variance added to every feature.
        condition: largest over smallest eigenvalue of the result; of "low_rank", what
            it is at most, (max diag^2 + |factor|^2) / min diag^2.
        note: what was out of the ordinary, or "".
    """

    class_id: int | None
    count: int
    rank: int
    shrinkage: float
    jitter: float
    condition: float
    note: str = ""


@dataclasses.dataclass(frozen=True)
class CovarianceReport:
    """One `ClassCovariance` per class (a single one for "tied"); prints as a table."""

    covariance_type: str
    feature_size: int
    classes: tuple[ClassCovariance, ...]

    def to_dict(self):
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
        """`CovarianceReport`; made when it is asked for, see `report_covariance`."""
        return report_covariance(self.moments, self.covariance_type, self.shrinkage)


def moment_kind(covariance_type):
    """The `ClassMoments.kind` that a covariance type is estimated from."""
    if covariance_type not in COVARIANCE_TYPES:
        raise ValueError(
            f"`covariance_type` must be one of {list(COVARIANCE_TYPES)}; received "
            f"{covariance_type!r}."
        )
    return "diag" if covariance_type == "spherical" else covariance_type


def check_settings(covariance_type, shrinkage="oas", covariance_scale=1.0, rank=None):
    """Refuses settings that `estimate_covariance` cannot follow.

    Raises:
        ValueError: With what came and what was expected.
    """
    moment_kind(covariance_type)
    check_rank(covariance_type, rank)
    fits = shrinkage == "oas" or (
        isinstance(shrinkage, int | float) and 0 <= shrinkage <= 1
    )
    if not fits:
        raise ValueError(
            f"`shrinkage` must be 'oas' or a number from 0 to 1; received "
            f"{shrinkage!r}."
        )
    if not isinstance(covariance_scale, numbers.Real) or not (
        0 < covariance_scale < np.inf
    ):
        raise ValueError(
            f"`covariance_scale` must be a positive number; received "
            f"{covariance_scale!r}."
        )


def estimate_covariance(
    moments, covariance_type="full", shrinkage="oas", covariance_scale=1.0
):
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
    if covariance_type != "tied":
        _check_counts(moments, covariance_type)
    scatter = moments.scatter
    scale = np.empty_like(scatter[np.newaxis] if moments.kind == "tied" else scatter)
    samples = _samples(moments, covariance_type, shrinkage)
    parts = [scale]
    if covariance_type == "low_rank":
        factor = np.zeros((*scale.shape, moments.rank), np.float32)
        scale = LowRankScale(scale, factor)
        parts = [*scale]
    for *out, sample in zip(*parts, samples, strict=True):
        sample.factor(*out)
    if covariance_scale != 1:
        for part in parts:
            part *= np.sqrt(covariance_scale)
    return CovarianceEstimate(scale, moments, covariance_type, shrinkage)


def report_covariance(moments, covariance_type="full", shrinkage="oas"):
    """How `estimate_covariance` makes each covariance of the same arguments.

    Rank and condition come from the eigenvalues of every covariance, which take longer
    than the factors; so the report is made by itself, for who wants to read it.

    Returns:
        report: `CovarianceReport`.
    """
    rows = tuple(s.row() for s in _samples(moments, covariance_type, shrinkage))
    return CovarianceReport(covariance_type, moments.feature_size, rows)


def _mean_variance(moments):
    """The mean variance of a feature within its class, over all classes.

    The unit of jitter for a class that has no variance itself.
    """
    freedom = max(moments.count.sum() - np.count_nonzero(moments.count), 1)
    total = (
        np.trace(moments.scatter, axis1=-2, axis2=-1).sum()
        if moments.kind in ("full", "tied")
        else moments.scatter.sum()
    )
    return total / freedom / moments.feature_size or 1.0


def _samples(moments, covariance_type, shrinkage):
    """Yields the `_Sample` of every class, or the one that "tied" classes share."""
    unit = _mean_variance(moments)
    if covariance_type == "tied":
        # Pooled over the classes: N - C degrees of freedom, so n - 1 = N - C in [2].
        freedom = int(moments.count.sum() - np.count_nonzero(moments.count))
        _check_freedom(moments, freedom)
        yield _Sample(moments.scatter, freedom + 1, shrinkage, unit, class_id=None)
        return
    weight = 1.0 if covariance_type == "spherical" else shrinkage
    for class_id, count in enumerate(moments.count):
        scatter = moments.scatter[class_id]
        if count and covariance_type == "low_rank":
            sketch = moments.sketch[class_id]
            yield _LowRankSample(scatter, sketch, count, weight, unit, class_id)
        elif count:
            yield _Sample(scatter, count, weight, unit, class_id)
        else:
            yield _NoSample(class_id)


class _Sample:
    """One sample covariance, `[D, D]` or its diagonal `[D]`, and how it is mended."""

    def __init__(self, scatter, count, shrinkage, pooled_unit, class_id):
        size = len(scatter)
        self.class_id, self.count = class_id, int(count)
        self.scatter = scatter
        self.is_matrix = scatter.ndim == 2
        squares = np.diagonal(scatter) if self.is_matrix else scatter
        self.target = squares.mean() / (count - 1)
        self.pooled_unit = pooled_unit
        # Not `np.vdot`: the threads of NumPy's BLAS and of SciPy's, in turns, get in
        # each other's way.
        alpha = np.square(scatter / (count - 1)).sum() / size**2
        self.weight = _weight(shrinkage, alpha, self.target, size, count)

    def factor(self, out):
        """Writes the factor, lower triangular `[D, D]` or standard deviations `[D]`."""
        np.multiply(self.scatter, (1 - self.weight) / (self.count - 1), out=out)
        added = self.weight * self.target + self.jitter
        if not self.is_matrix:
            np.sqrt(out + added, out=out)
            return
        out[np.diag_indices(len(out))] += added
        # The transpose is as LAPACK wants it: no copy is made.
        upper = scipy.linalg.cholesky(out.T, overwrite_a=True, check_finite=False)
        out[...] = upper.T

    def row(self):
        """`ClassCovariance`."""
        smallest, largest = self.spectrum[[0, -1]] + self.jitter
        size = len(self.scatter)
        digits = size * np.finfo(np.float32).eps if self.is_matrix else 0.0
        rank = int(np.sum(self.eigenvalues > digits * self.eigenvalues[-1]))
        return ClassCovariance(
            class_id=self.class_id,
            count=self.count,
            rank=rank if self.target else 0,
            shrinkage=self.weight,
            jitter=self.jitter,
            condition=float(largest / smallest),
            note=_note(self.target, rank, size),
        )

    @functools.cached_property
    def eigenvalues(self):
        """Of the sample covariance, ascending `[D]`."""
        sample = self.scatter / (self.count - 1)
        return (np.linalg.eigvalsh if self.is_matrix else np.sort)(sample)

    @functools.cached_property
    def spectrum(self):
        """Eigenvalues after shrinkage, ascending `[D]`."""
        return (1 - self.weight) * self.eigenvalues + self.weight * self.target

    @functools.cached_property
    def jitter(self):
        """Variance to add so that the condition is within reach."""
        # No eigenvalue is above the trace or below what shrinkage mixes in: mostly that
        # settles it, without the eigenvalues.
        if self.target and self.weight * _LARGEST_CONDITION >= len(self.scatter):
            return 0.0
        return _jitter(self.spectrum, self.target or self.pooled_unit, self.class_id)


class _LowRankSample:
    """One sample covariance as a factor `[D, K]` and a diagonal `[D]`, and its mending.

    What is done to it never needs the matrix `[D, D]`.
    """

    def __init__(self, scatter, sketch, count, shrinkage, pooled_unit, class_id):
        size, variance = len(scatter), scatter / (count - 1)
        self.class_id, self.count = class_id, int(count)
        self.pooled_unit = pooled_unit
        self.target = variance.mean()
        rows = sketch / np.sqrt(count - 1)
        self.directions, self.rest = low_rank_part(variance, rows)
        held = np.square(self.directions).sum(axis=1)  # [D]
        self.lengths = np.square(self.directions).sum(axis=0)  # [K], eigenvalues
        # Of the entries of S; the columns of its factor are orthogonal.
        squares = np.square(self.lengths).sum()
        squares += (self.rest * (2 * held + self.rest)).sum()
        self.weight = _weight(shrinkage, squares / size**2, self.target, size, count)

    def factor(self, diag, factor):
        """Writes the deviations `[D]` and the factor `[D, rank]`."""
        np.sqrt(self.variance + self.jitter, out=diag)
        directions = turned(np.sqrt(1 - self.weight) * self.directions, diag)
        factor[:, : directions.shape[1]] = directions

    def row(self):
        """`ClassCovariance`."""
        smallest, largest = self.bounds + self.jitter
        share = self.lengths.sum() / (self.target * len(self.rest) or 1.0)
        note = f"{100 * share:.0f} % of the variance in {self.lengths.size} directions"
        return ClassCovariance(
            class_id=self.class_id,
            count=self.count,
            rank=self.lengths.size,
            shrinkage=self.weight,
            jitter=self.jitter,
            condition=float(largest / smallest),
            note=note if self.target else _note(self.target, 0, 0),
        )

    @property
    def variance(self):
        """Of what is independent, after shrinkage `[D]`."""
        return (1 - self.weight) * self.rest + self.weight * self.target

    @functools.cached_property
    def bounds(self):
        """What no eigenvalue is below or above, after shrinkage `[2]`."""
        variance = self.variance
        largest = variance.max() + (1 - self.weight) * self.lengths.max(initial=0.0)
        return np.array([variance.min(), largest])

    @functools.cached_property
    def jitter(self):
        """Variance to add so that the condition is within reach."""
        return _jitter(self.bounds, self.target or self.pooled_unit, self.class_id)


class _NoSample:
    """The placeholder of a class without examples: a standard normal."""

    def __init__(self, class_id):
        self.class_id = class_id

    def factor(self, out, low_rank=None):
        out[...] = 1.0 if out.ndim == 1 else np.eye(len(out))

    def row(self):
        return ClassCovariance(self.class_id, 0, 0, 0.0, 0.0, 1.0, "no example")


def _weight(shrinkage, alpha, mu, size, count):
    """The weight of the target; for "oas" that of equation (23) of [2].

    alpha is the mean square of the D * D entries of the covariance, mu the mean of the
    variances.
    """
    if shrinkage != "oas":
        return float(shrinkage)
    numerator = alpha + mu**2
    denominator = (count + 1) * (alpha - mu**2 / size)
    return 1.0 if denominator <= 0 else float(min(numerator / denominator, 1.0))


def _jitter(spectrum, unit, class_id):
    """The first rung of the ladder that brings the condition within reach."""
    for jitter in np.multiply(_JITTERS, unit):
        smallest, largest = spectrum[0] + jitter, spectrum[-1] + jitter
        if smallest > 0 and largest / smallest <= _LARGEST_CONDITION:
            return float(jitter)
    owner = "all classes" if class_id is None else f"class {class_id}"
    raise ValueError(
        f"The covariance of {owner} spans variances {spectrum[0]:.3g} to "
        f"{spectrum[-1]:.3g} and stays singular with jitter "
        f"{_JITTERS[-1] * unit:.3g}. Scale the features, or raise `shrinkage`."
    )


def _note(target, rank, size):
    if not target:
        return "all examples are the same point"
    return f"sample covariance is singular ({rank} of {size})" if rank < size else ""


def _check_freedom(moments, freedom):
    if freedom < 1:
        raise ValueError(
            f"{int(moments.count.sum())} examples of "
            f"{np.count_nonzero(moments.count)} classes leave no deviation from the "
            f"class means; at least one class needs 2 examples."
        )


def _check_counts(moments, covariance_type):
    single = np.flatnonzero(moments.count == 1).tolist()
    if single:
        raise ValueError(
            f"Class {single[0]} has 1 example; a {covariance_type!r} covariance of its "
            f"own needs at least 2 (classes with 1 example: {single}). Pass "
            f"covariance_type='tied', which shares one covariance."
        )
