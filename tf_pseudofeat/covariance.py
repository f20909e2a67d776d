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

import numpy as np

__all__ = [
    "COVARIANCE_TYPES",
    "ClassCovariance",
    "CovarianceEstimate",
    "CovarianceReport",
    "check_settings",
    "estimate_covariance",
    "moment_kind",
]

COVARIANCE_TYPES = ("full", "diag", "tied", "spherical")

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
        rank: rank of the sample covariance.
        shrinkage: weight of the spherical target, in [0, 1].
        jitter: variance added to every feature.
        condition: largest over smallest eigenvalue of the result.
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
        scale: lower triangular `[C, D, D]` ("full") or `[1, D, D]` ("tied"), or
            standard deviations `[C, D]` ("diag", "spherical").
        report: `CovarianceReport`.
    """

    scale: np.ndarray
    report: CovarianceReport


def moment_kind(covariance_type):
    """The `ClassMoments.kind` that a covariance type is estimated from."""
    if covariance_type not in COVARIANCE_TYPES:
        raise ValueError(
            f"`covariance_type` must be one of {list(COVARIANCE_TYPES)}; received "
            f"{covariance_type!r}."
        )
    return "diag" if covariance_type == "spherical" else covariance_type


def check_settings(covariance_type, shrinkage="oas", covariance_scale=1.0):
    """Refuses settings that `estimate_covariance` cannot follow.

    Raises:
        ValueError: With what came and what was expected.
    """
    moment_kind(covariance_type)
    fits = shrinkage == "oas" or (
        isinstance(shrinkage, int | float) and 0 <= shrinkage <= 1
    )
    if not fits:
        raise ValueError(
            f"`shrinkage` must be 'oas' or a number from 0 to 1; received "
            f"{shrinkage!r}."
        )
    if not (np.isfinite(covariance_scale) and covariance_scale > 0):
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

    Args:
        moments: `ClassMoments` of the kind that `moment_kind(covariance_type)` names.
        covariance_type: "full", "diag" (independent features), "tied" (one for all
            classes: the pooled within-class covariance) or "spherical".
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
    if covariance_type == "tied":
        scale, rows = _tied(moments, shrinkage)
    else:
        _check_counts(moments, covariance_type)
        scale, rows = _per_class(moments, covariance_type, shrinkage)
    report = CovarianceReport(covariance_type, moments.feature_size, tuple(rows))
    return CovarianceEstimate(np.sqrt(covariance_scale) * scale, report)


def _tied(moments, shrinkage):
    """Pooled over the classes: N - C degrees of freedom, so n - 1 = N - C in [2]."""
    freedom = int(moments.count.sum() - np.count_nonzero(moments.count))
    if freedom < 1:
        raise ValueError(
            f"{int(moments.count.sum())} examples of "
            f"{np.count_nonzero(moments.count)} classes leave no deviation from the "
            f"class means; at least one class needs 2 examples."
        )
    unit = _mean_variance(moments)
    scale, row = _factor(moments.scatter, freedom + 1, shrinkage, unit, class_id=None)
    return scale[np.newaxis], (row,)


def _per_class(moments, covariance_type, shrinkage):
    unit = _mean_variance(moments)
    scale, rows = np.zeros_like(moments.scatter), []
    for class_id, (count, scatter) in enumerate(
        zip(moments.count, moments.scatter, strict=True)
    ):
        if not count:
            scale[class_id] = 1.0 if scatter.ndim == 1 else np.eye(len(scatter))
            row = ClassCovariance(class_id, 0, 0, 0.0, 0.0, 1.0, "no example")
        elif covariance_type == "full":
            scale[class_id], row = _factor(scatter, count, shrinkage, unit, class_id)
        else:
            weight = 1.0 if covariance_type == "spherical" else shrinkage
            scale[class_id], row = _deviations(scatter, count, weight, unit, class_id)
        rows.append(row)
    return scale, rows


def _mean_variance(moments):
    """The mean variance of a feature within its class, over all classes.

    The unit of jitter for a class that has no variance itself.
    """
    freedom = max(moments.count.sum() - np.count_nonzero(moments.count), 1)
    total = (
        np.trace(moments.scatter, axis1=-2, axis2=-1).sum()
        if moments.kind != "diag"
        else moments.scatter.sum()
    )
    return total / freedom / moments.feature_size or 1.0


def _factor(scatter, count, shrinkage, pooled_unit, class_id):
    """`(lower triangular factor [D, D], ClassCovariance)` of one scatter matrix."""
    size = len(scatter)
    sample = (scatter + scatter.T) / (2 * (count - 1))
    target = np.trace(sample) / size
    weight = _weight(shrinkage, np.mean(sample**2), target, size, count)
    shrunk = (1 - weight) * sample
    shrunk[np.diag_indices(size)] += weight * target
    eigenvalues = np.linalg.eigvalsh(sample)
    rank = int(np.sum(eigenvalues > size * np.finfo(np.float32).eps * eigenvalues[-1]))
    spectrum = (1 - weight) * eigenvalues + weight * target
    jitter = _jitter(spectrum, target or pooled_unit, class_id)
    shrunk[np.diag_indices(size)] += jitter
    scale = np.linalg.cholesky(shrunk)
    return scale, ClassCovariance(
        class_id=class_id,
        count=int(count),
        rank=rank if target else 0,
        shrinkage=weight,
        jitter=jitter,
        condition=float((spectrum[-1] + jitter) / (spectrum[0] + jitter)),
        note=_note(target, rank, size),
    )


def _deviations(scatter, count, shrinkage, pooled_unit, class_id):
    """`(standard deviations [D], ClassCovariance)` of one class's squares."""
    sample = scatter / (count - 1)
    target = sample.mean()
    size = len(sample)
    weight = _weight(shrinkage, np.sum(sample**2) / size**2, target, size, count)
    variance = (1 - weight) * sample + weight * target
    jitter = _jitter(np.sort(variance), target or pooled_unit, class_id)
    rank = int(np.sum(sample > 0))
    return np.sqrt(variance + jitter), ClassCovariance(
        class_id=class_id,
        count=int(count),
        rank=rank,
        shrinkage=weight,
        jitter=jitter,
        condition=float((variance.max() + jitter) / (variance.min() + jitter)),
        note=_note(target, rank, size),
    )


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


def _check_counts(moments, covariance_type):
    single = np.flatnonzero(moments.count == 1).tolist()
    if single:
        raise ValueError(
            f"Class {single[0]} has 1 example; a {covariance_type!r} covariance of its "
            f"own needs at least 2 (classes with 1 example: {single}). Pass "
            f"covariance_type='tied', which shares one covariance."
        )
