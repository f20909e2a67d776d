"""One multivariate Gaussian per class: Steps 3 and 4 of Konno and Iwazume (2018).

The mathematics is in `covariance.py`, `sampling.py` and the scale of each type, such as
`triangular.py`; the Keras layer here estimates, holds, saves and evaluates parameters.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.core.validation import check_is_object, whole_number
from tf_pseudofeat.gaussians.covariance import (
    CovarianceReport,
    check_settings,
    estimate_covariance,
)
from tf_pseudofeat.gaussians.covariance_types import COVARIANCE_TYPES, as_scale
from tf_pseudofeat.gaussians.fit_checks import (
    described_covariance,
    rank_of,
    shape_of_moments,
)
from tf_pseudofeat.gaussians.moments import ClassMoments
from tf_pseudofeat.gaussians.moments_check import check_moments, check_shapes
from tf_pseudofeat.gaussians.moments_estimation import (
    labeled_batches,
    moments_of,
    moments_of_batches,
)
from tf_pseudofeat.gaussians.moments_merge import merge_moments
from tf_pseudofeat.gaussians.parameters import GaussianParameters

__all__ = ["ClassConditionalGaussian", "check_gaussian"]

_ARRAYS = ("count", "mean", "scatter", "sketch")  # of `ClassMoments`


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class ClassConditionalGaussian(GaussianParameters):
    """A multivariate Gaussian per class, fitted to features.

    Use it to draw pseudo-features of rare classes (`sample`), to compute the log
    density of an input under each class (`call`), or as a TFP `distribution`. It is
    fitted by `adapt` only; training never changes it.

        x | c ~ N(mean_c, covariance_scale * covariance_c)

    The paper's estimator is `shrinkage=0.0`. The default departs from it, because a
    class with fewer examples than features has a singular sample covariance.

    Args:
        num_classes: C.
        covariance_type: "full" (the paper), "diag" (the paper's independent
            Gaussian), "tied" (one covariance for all classes: `D * D` numbers instead
            of `C * D * D`), "spherical", or "low_rank" (the `rank` strongest
            directions of each class, and independent noise that makes the variances
            exact), for correlations with more classes than "full" can hold.
        shrinkage: "oas", which chooses a weight for each class from the data, or a
            weight from 0 to 1.
        covariance_scale: factor of the covariances (section 3.6 of the paper).
        rank: number of directions of each class, for "low_rank" only; by default 16, or
            D if that is less. Statistics take `C (8 rank + 16) D` bytes, the parameters
            `C (4 rank + 16) D`.
        **kwargs: `name` and the other arguments of a Keras layer.

    Call arguments:
        features: floats `[B, ...]`, with the shape of the fitted features.

    Call returns:
        log_density: float32 `[B, C]`, -inf for a class without examples.

    Raises:
        ValueError: In `adapt`, if a label is out of range, features are NaN or
            infinite, a class has one example (unless "tied"), or float32 cannot hold a
            mean or deviation. In `sample`, if a class has no example.

    Examples:
        >>> features = np.random.default_rng(0).normal(size=(100, 3))
        >>> gaussian = ClassConditionalGaussian(num_classes=2)
        >>> gaussian.adapt(features, [0] * 90 + [1] * 10)
        >>> gaussian.sample([1, 1, 0], seed=(1, 2)).shape
        TensorShape([3, 3])

    References:
        Konno and Iwazume, "Pseudo-Feature Generation for Imbalanced Data Analysis in
        Deep Learning", arXiv 1807.06538, 2018.
    """

    def __init__(
        self,
        num_classes: int,
        covariance_type: str = "full",
        shrinkage: float | str = "oas",
        covariance_scale: float = 1.0,
        rank: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_settings(covariance_type, shrinkage, covariance_scale, rank)
        num_classes = whole_number("num_classes", num_classes)
        kwargs.setdefault("dtype", "float32")  # whatever the global policy is
        super().__init__(trainable=False, autocast=False, **kwargs)
        self.num_classes = num_classes
        self.covariance_type = covariance_type
        self.shrinkage = shrinkage
        self.covariance_scale = covariance_scale
        self.rank = rank
        self._type = COVARIANCE_TYPES[covariance_type]
        self._moments = self._estimate = self._feature_shape = None

    # Fitting.

    def adapt(self, features: object, labels: npt.ArrayLike | None = None) -> None:
        """Resets the statistics and fits the Gaussians; on failure nothing changes.

        Args:
            features: floats `[N, ...]`, an array or a `StoredArray`; or, without
                `labels`, a `tf.data.Dataset` or an iterable of `(features, labels)`
                batches.
            labels: `[N]`, `[N, 1]` or one-hot `[N, C]`.
        """
        with self._restored_on_failure():
            self.reset_state()
            if labels is not None:
                self.update_state(features, labels)
            else:
                self._update_from_batches(features)
            self.finalize_state()

    def adapt_moments(
        self, moments: ClassMoments, feature_shape: Sequence[int] | None = None
    ) -> None:
        """Like `adapt`, from statistics that were computed elsewhere.

        Args:
            moments: `ClassMoments`, as from `moments_of_batches`, `load_moments` or a
                cluster (`tf_pseudofeat.engines.beam`); "diag" for "spherical".
            feature_shape: shape of one feature, if it is a feature map; by default
                `(D,)`, or the shape that the layer was built for.

        Raises:
            TypeError: If `moments` is not a `ClassMoments`.
            ValueError: If it has no example, or its classes, features, kind or rank
                differ.
        """
        shape = shape_of_moments(self, moments, feature_shape)
        with self._restored_on_failure():
            self.reset_state()
            self._add(moments, (None, *shape))
            self.finalize_state()

    def update_state(self, features: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Adds examples to the statistics; call `finalize_state` afterwards."""
        if not isinstance(features, StoredArray):
            features = np.asarray(features)
        self._checked_shape(features.shape)
        how = self.num_classes, self._type.kind, self.rank
        moments = moments_of(features, labels, *how)
        self._add(moments, features.shape)

    def merge_state(self, others: Iterable[Self]) -> None:
        """Merges the statistics of other layers with the same settings."""
        with self._restored_on_failure():
            for other in others:
                _check_mergeable(self, other)
                if other.moments is not None:
                    self._add(other.moments, (None, *other.seen_shape))

    def finalize_state(self) -> None:
        """Computes the parameters of the Gaussians from the statistics."""
        if self._moments is None:
            raise ValueError(
                "There are no statistics yet; call `adapt(features, labels)` or "
                "`update_state(features, labels)` first."
            )
        estimate = estimate_covariance(
            self._moments, self.covariance_type, self.shrinkage, self.covariance_scale
        )
        if not self.built:
            self.build((None, *self._feature_shape))
        self._assign(self._moments, as_scale(estimate.scale))
        self._estimate = dataclasses.replace(estimate, scale=None)

    def reset_state(self) -> None:
        """Resets the statistics; the parameters stay until `finalize_state`."""
        self._moments = self._estimate = None
        if not self.built:
            self._feature_shape = None

    # What was fitted.

    @property
    def moments(self) -> ClassMoments | None:
        """The fitted `ClassMoments`, float64; None before."""
        return self._moments

    @property
    def report(self) -> CovarianceReport | None:
        """The `CovarianceReport` of the last fit; None before that.

        It is computed on first access, which takes the eigenvalues of every covariance,
        about as long as the fit.
        """
        return None if self._estimate is None else self._estimate.report

    @property
    def seen_shape(self) -> tuple[int, ...] | None:
        """The shape of one feature of the statistics, finalized or not, or None."""
        return self._feature_shape

    # Keras.

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras saves them."""
        names = (
            "num_classes",
            "covariance_type",
            "shrinkage",
            "covariance_scale",
            "rank",
        )
        return super().get_config() | {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """Creates the layer from its config, not fitted."""
        config = {k: v for k, v in config.items() if k not in ("trainable", "autocast")}
        return cls(**config)

    def save_own_variables(self, store):
        """Saves the float64 statistics, from which the parameters are derived."""
        if self._moments is None:  # not fitted, but may be set by `set_weights`
            super().save_own_variables(store)
            return
        for field in _ARRAYS:
            if getattr(self._moments, field) is not None:
                store[field] = getattr(self._moments, field)

    def load_own_variables(self, store):
        """Loads the statistics and derives the parameters.

        Raises:
            ValueError: If they cannot be statistics of any examples, or do not fit this
                layer, which then does not change.
        """
        with self._restored_on_failure():
            self._moments = self._estimate = None
            if "count" not in store:
                super().load_own_variables(store)
                return
            self._moments = self._stored_moments(store)
            self.finalize_state()

    # Helpers.

    @contextlib.contextmanager
    def _restored_on_failure(self):
        """Context manager that restores the state on failure."""
        before = self._moments, self._estimate, self._feature_shape
        try:
            yield
        except BaseException:
            self._moments, self._estimate, self._feature_shape = before
            raise

    def _stored_moments(self, store):
        name, kind = f"The file of {self.name}", self._type.kind
        arrays = {f: np.asarray(store[f]) for f in _ARRAYS if f in store}
        heads = {f: (array.shape, array.dtype) for f, array in arrays.items()}
        check_shapes(heads, kind, name)
        moments = ClassMoments(**arrays, kind=kind)
        check_moments(moments, name)
        shape_of_moments(self, moments, self._feature_shape)
        return moments

    def _add(self, moments, shape):
        self._feature_shape = self._checked_shape(shape)
        mine = self._moments
        self._moments = moments if mine is None else merge_moments(mine, moments)

    def _update_from_batches(self, batches):
        batches = labeled_batches(batches)
        first = list(itertools.islice(batches, 1))
        for features, _ in first:
            self._checked_shape(features.shape)
        how = self.num_classes, self._type.kind, self.rank
        moments = moments_of_batches(itertools.chain(first, batches), *how)
        self._add(moments, first[0][0].shape)


def check_gaussian(gaussian):
    """Raises ValueError if `gaussian` is not a `ClassConditionalGaussian`."""
    check_is_object("gaussian", gaussian, "num_classes")
    if not isinstance(gaussian, ClassConditionalGaussian):
        raise ValueError(
            f"`gaussian` must be a ClassConditionalGaussian; received "
            f"{type(gaussian).__name__}. Pass imbalanced-learn samplers as `sampler`."
        )


def _check_mergeable(layer, other):
    if not isinstance(other, ClassConditionalGaussian):
        raise TypeError(
            f"Only ClassConditionalGaussian layers can be merged; received a "
            f"{type(other).__name__}."
        )
    if other.moments is None:
        return
    moments = other.moments
    mine = layer.num_classes, layer._type.kind, rank_of(layer, moments.feature_size)
    if mine != (moments.num_classes, moments.kind, moments.rank):
        raise ValueError(
            f"Only layers with the same classes and covariance type can be merged; "
            f"{layer.name} has {layer.num_classes} classes and "
            f"{described_covariance(layer)}, {other.name} has {other.num_classes} and "
            f"{described_covariance(other)}."
        )
