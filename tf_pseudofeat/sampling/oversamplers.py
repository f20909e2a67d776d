"""The paper's methods for arrays: imbalanced-learn samplers for its `Pipeline`."""

import functools
import typing
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from imblearn.over_sampling.base import BaseOverSampler
from scipy import sparse
from sklearn.utils import check_random_state

from tf_pseudofeat.gaussians.covariance import estimate_covariance, moment_kind
from tf_pseudofeat.gaussians.moments_estimation import moments_of
from tf_pseudofeat.gaussians.sampling import sample_gaussians
from tf_pseudofeat.sampling.rounding import (
    cast_draws,
    check_continuous,
    warn_of_rounding,
)

__all__ = ["GaussianOverSampler", "PerturbedOverSampler"]

_CALLER = 6  # stack frames from `_cast` to the caller of `fit_resample`


class _OverSampler(BaseOverSampler):
    """Base class: real examples first, unchanged, then those of `_draw` by class."""

    _parameter_constraints: typing.ClassVar[dict] = {
        **BaseOverSampler._parameter_constraints,
        "random_state": ["random_state"],
    }

    def _check_X_y(self, X, y, accept_sparse=None):
        self._dtypes = _dtypes(X)  # before all columns become one array
        return super()._check_X_y(X, y, accept_sparse)

    def _fit_resample(self, X, y):
        rng = check_random_state(self.random_state)
        dense = X.toarray() if sparse.issparse(X) else X
        classes, ids = np.unique(y, return_inverse=True)
        extra = [self.sampling_strategy_.get(c, 0) for c in classes.tolist()]
        new_ids = np.repeat(np.arange(classes.size), extra)
        drawn = self._cast(self._draw(dense, ids, new_ids, rng), X.dtype)
        if sparse.issparse(X):
            drawn = sparse.csr_matrix(drawn)
            stacked = sparse.vstack([X, drawn], format=X.format, dtype=X.dtype)
        else:
            stacked = np.concatenate([X, drawn])
        return stacked, np.concatenate([y, classes[new_ids].astype(y.dtype)])

    def _cast(self, drawn, dtype):
        """Casts draws `[M, D]` to the dtype of the array; rounds integer columns."""
        check_continuous(dtype)
        if drawn.size:
            warn_of_rounding(self._dtypes or [dtype], _CALLER)
        for place, each in enumerate(self._dtypes):
            if each.kind in "iu":
                drawn[:, place] = cast_draws(drawn[:, place], each)
        return cast_draws(drawn, dtype)


def _dtypes(X):
    """NumPy dtypes of the columns of a DataFrame; [] for an array."""
    if not hasattr(X, "columns"):
        return []
    for name, dtype in zip(X.columns, X.dtypes, strict=True):
        check_continuous(dtype, f"Column {name!r}")
    # Extension dtypes of pandas, such as nullable ones, name their NumPy dtype.
    held = (getattr(each, "subtype", each) for each in X.dtypes)
    return [np.dtype(getattr(each, "numpy_dtype", each)) for each in held]


class GaussianOverSampler(_OverSampler):
    """Oversamples rare classes with draws from a Gaussian per class.

    The proposed method of Konno and Iwazume (2018), Steps 3 and 4, for arrays. It fits
    the same Gaussians as `ClassConditionalGaussian`, whose draws can be streamed
    without memory.

        x | c ~ N(mean_c, covariance_scale * covariance_c)

    Args:
        sampling_strategy: as in imbalanced-learn, see `pseudo_counts`.
        covariance_type: "full" (the paper), "diag", "tied", "spherical" or "low_rank".
        shrinkage: "oas", or a weight from 0 (the paper) to 1.
        covariance_scale: factor of the covariances.
        rank: number of directions of "low_rank", see `ClassConditionalGaussian`.
        random_state: None, an int, or a `numpy.random.RandomState`.

    Attributes:
        sampling_strategy_: {class: number of draws}.
        covariance_report_: `CovarianceReport`; its class ids are indices in the sorted
            classes.

    Raises:
        ValueError: In `fit_resample`, if a class has one example (unless "tied"), or
            features are bool or categorical.

    Warns:
        UserWarning: If features are integers, to which draws are rounded.

    Examples:
        >>> sampler = GaussianOverSampler(random_state=0)
        >>> features, labels = sampler.fit_resample(features, labels)

    References:
        Konno and Iwazume, "Pseudo-Feature Generation for Imbalanced Data Analysis in
        Deep Learning", arXiv 1807.06538, 2018.
    """

    # Validated by `estimate_covariance`.
    _parameter_constraints: typing.ClassVar[dict] = {
        **_OverSampler._parameter_constraints,
        **dict.fromkeys(
            ("covariance_type", "shrinkage", "covariance_scale", "rank"),
            "no_validation",
        ),
    }

    def __init__(
        self,
        *,
        sampling_strategy: str | float | Mapping | Callable = "auto",
        covariance_type: str = "full",
        shrinkage: float | str = "oas",
        covariance_scale: float = 1.0,
        rank: int | None = None,
        random_state: object = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.covariance_type = covariance_type
        self.shrinkage = shrinkage
        self.covariance_scale = covariance_scale
        self.rank = rank
        self.random_state = random_state

    def _draw(self, features, ids, new_ids, rng):
        kind = moment_kind(self.covariance_type)
        moments = moments_of(features, ids, ids.max() + 1, kind, self.rank)
        estimate = estimate_covariance(
            moments, self.covariance_type, self.shrinkage, self.covariance_scale
        )
        self.covariance_report_ = estimate.report
        seed = rng.randint(2**31 - 1, size=2).astype(np.int32)
        with tf.device("CPU"):
            loc, scale = tf.nest.map_structure(
                functools.partial(tf.constant, dtype=tf.float64),
                (moments.mean, estimate.scale),
            )
            return sample_gaussians(loc, scale, tf.constant(new_ids), seed).numpy()


class PerturbedOverSampler(_OverSampler):
    """Oversamples rare classes with real examples plus noise.

    The "perturbed" baseline of Konno and Iwazume (2018): a real example of the class,
    drawn with replacement, plus Gaussian noise of mean 0.

        x = x_i + noise_scale * noise,    noise_j ~ N(0, variance_cj)

    The paper takes the variance from the real features without further details. Here it
    is the variance of each feature j within the class c: a variance over all classes
    would be too large for narrow classes.

    Args:
        sampling_strategy: as in imbalanced-learn, see `pseudo_counts`.
        noise_scale: ratio of the standard deviations of noise and features, at least 0.
        random_state: None, an int, or a `numpy.random.RandomState`.

    Attributes:
        sampling_strategy_: {class: number of draws}.

    Raises:
        ValueError: In `fit_resample`, if `noise_scale` is negative or not finite, or
            features are bool or categorical.

    Warns:
        UserWarning: If features are integers, to which draws are rounded.

    Examples:
        >>> sampler = PerturbedOverSampler(random_state=0)
        >>> features, labels = sampler.fit_resample(features, labels)

    References:
        Konno and Iwazume, "Pseudo-Feature Generation for Imbalanced Data Analysis in
        Deep Learning", arXiv 1807.06538, 2018.
    """

    _parameter_constraints: typing.ClassVar[dict] = {
        **_OverSampler._parameter_constraints,
        "noise_scale": "no_validation",
    }

    def __init__(
        self,
        *,
        sampling_strategy: str | float | Mapping | Callable = "auto",
        noise_scale: float = 1.0,
        random_state: object = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.noise_scale = noise_scale
        self.random_state = random_state

    def _draw(self, features, ids, new_ids, rng):
        if not 0 <= self.noise_scale < np.inf:
            raise ValueError(
                f"`noise_scale` must be a number of at least 0; received "
                f"{self.noise_scale!r}."
            )
        moments = moments_of(features, ids, ids.max() + 1, "diag")
        variance = moments.scatter / np.maximum(moments.count, 1)[:, np.newaxis]
        order = np.argsort(ids, kind="stable")  # sorted by class
        starts = np.searchsorted(ids[order], new_ids)
        offsets = (rng.uniform(size=new_ids.size) * moments.count[new_ids]).astype(int)
        deviation = self.noise_scale * np.sqrt(variance)[new_ids]
        noise = deviation * rng.standard_normal((new_ids.size, features.shape[1]))
        return features[order[starts + offsets]] + noise
