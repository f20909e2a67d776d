"""The sample covariance of a class, regularized to be positive definite."""

import dataclasses
import functools

import numpy as np

__all__ = ["ClassCovariance", "SampleCovariance"]

# Tried in turn, as fractions of the mean variance, until the condition number is small
# enough.
_JITTERS = (0.0, 1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3)
# Samples from a float32 factor with a larger condition number are mostly rounding
# errors.
_LARGEST_CONDITION = 1e12


@dataclasses.dataclass(frozen=True)
class ClassCovariance:
    """How the covariance of one class was estimated.

    Attributes:
        class_id: the class; None if all classes share the covariance ("tied").
        count: number of examples.
        rank: rank of the sample covariance; of "low_rank", directions of its factor.
        shrinkage: weight of the spherical target, in [0, 1].
        jitter: variance added to every feature.
        condition: largest over smallest eigenvalue of the result; of "low_rank", an
            upper bound, (max diag^2 + |factor|^2) / min diag^2.
        note: a remark on anything unusual, or "".
    """

    class_id: int | None
    count: int
    rank: int
    shrinkage: float
    jitter: float
    condition: float
    note: str = ""


class SampleCovariance:
    """One sample covariance S, regularized.

        sigma = (1 - shrinkage) S + shrinkage target I + jitter I
        target = tr(S) / D

    Args:
        scale_class: class of the factor, such as `TriangularScale`.
        scatter: (n - 1) S, `[D, D]` or a diagonal `[D]`.
        count: n.
        shrinkage: weight of the target, or "oas".
        fallback_variance: unit of the jitter if S is 0.
        class_id: the class, or None if all classes share the covariance.
        sketch: of the class, if its moments have one.
    """

    def __init__(
        self,
        scale_class,
        scatter,
        count,
        shrinkage,
        fallback_variance,
        class_id=None,
        sketch=None,
    ):
        self.scale_class, self.scatter, self.size = scale_class, scatter, len(scatter)
        self.count, self.class_id = int(count), class_id
        self.target = self._mean_variance()
        self.jitter_unit = self.target or fallback_variance
        self.shrinkage = self._oas() if shrinkage == "oas" else float(shrinkage)

    def factor(self, out):
        """Writes the array of the scale."""
        np.multiply(self.scatter, (1 - self.shrinkage) / (self.count - 1), out=out)
        self.scale_class.factorize(out, self.shrinkage * self.target + self.jitter)

    def row(self):
        """`ClassCovariance`."""
        smallest, largest = self.bounds + self.jitter
        return ClassCovariance(
            class_id=self.class_id,
            count=self.count,
            rank=self.rank,
            shrinkage=self.shrinkage,
            jitter=self.jitter,
            condition=float(largest / smallest),
            note=self._note() if self.target else "all examples are the same point",
        )

    @functools.cached_property
    def bounds(self):
        """Lower and upper bounds of the eigenvalues after shrinkage, `[2]`."""
        ends = self._eigenvalues[[0, -1]]
        return (1 - self.shrinkage) * ends + self.shrinkage * self.target

    @functools.cached_property
    def rank(self):
        """The rank of S."""
        digits = self.size * self.scale_class.rounding
        positive = self._eigenvalues > digits * self._eigenvalues[-1]
        return int(np.sum(positive)) if self.target else 0

    @functools.cached_property
    def jitter(self):
        """The smallest jitter that makes the condition number small enough."""
        # Eigenvalues lie between the shrinkage term and the trace, which mostly
        # suffices without computing them.
        if self.target and self.shrinkage * _LARGEST_CONDITION >= self.size:
            return 0.0
        for jitter in np.multiply(_JITTERS, self.jitter_unit):
            smallest, largest = self.bounds + jitter
            if smallest > 0 and largest / smallest <= _LARGEST_CONDITION:
                return float(jitter)
        owner = "all classes" if self.class_id is None else f"class {self.class_id}"
        raise ValueError(
            f"The covariance of {owner} spans variances {self.bounds[0]:.3g} to "
            f"{self.bounds[1]:.3g} and stays singular with jitter {jitter:.3g}. Scale "
            f"the features, or raise `shrinkage`."
        )

    @functools.cached_property
    def _eigenvalues(self):
        """The eigenvalues of S, ascending `[D]`."""
        return self.scale_class.eigenvalues(self.scatter / (self.count - 1))

    def _mean_variance(self):
        return self.scale_class.squares(self.scatter).mean() / (self.count - 1)

    def _mean_square(self):
        """The mean square of the D * D entries of S."""
        length = np.linalg.norm(self.scatter) / (self.count - 1)
        return (length / self.size) ** 2

    def _oas(self):
        """The shrinkage of equation (23) of Chen et al. (2010), see `covariance.py`."""
        alpha, mu = self._mean_square(), self.target
        numerator = alpha + mu**2
        denominator = (self.count + 1) * (alpha - mu**2 / self.size)
        return 1.0 if denominator <= 0 else float(min(numerator / denominator, 1.0))

    def _note(self):
        singular = f"sample covariance is singular ({self.rank} of {self.size})"
        return singular if self.rank < self.size else ""
