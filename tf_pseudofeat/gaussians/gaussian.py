"""One multivariate Gaussian per class: Steps 3 and 4 of Konno and Iwazume (2018).

The mathematics is in `covariance.py`, `sampling.py` and the scale of each type, such as
`triangular.py`; the Keras layer here estimates, holds, saves and evaluates parameters.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tf_pseudofeat.core.arguments import (
    check_is_object,
    resolve_rank,
    stateless_seed,
    whole_number,
)
from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.core.stored import StoredArray
from tf_pseudofeat.gaussians.covariance import (
    CovarianceReport,
    check_settings,
    estimate_covariance,
)
from tf_pseudofeat.gaussians.covariance_types import COVARIANCE_TYPES, as_scale, plain
from tf_pseudofeat.gaussians.moments import (
    ClassMoments,
    check_memory,
    labelled_batches,
    merge,
    moments_of,
    moments_of_batches,
)
from tf_pseudofeat.gaussians.moments_check import check_moments, check_shapes
from tf_pseudofeat.gaussians.sampling import sample_gaussians

__all__ = ["ClassConditionalGaussian", "check_gaussian"]

_ARRAYS = ("count", "mean", "scatter", "sketch")  # of `ClassMoments`


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class ClassConditionalGaussian(keras.layers.Layer):
    """A multivariate Gaussian per class, fitted to features.

    Use it to draw pseudo-features of rare classes (`sample`), to see how likely an
    input is under every class (`call`), or as a `tfp` distribution. It is fitted by
    `adapt` and by nothing else; training never changes it.

        x | c ~ N(mean_c, covariance_scale * covariance_c)

    The paper's estimator is `shrinkage=0.0`. The default departs from it, because a
    class with fewer examples than features has a singular sample covariance.

    Args:
        num_classes: C.
        covariance_type: "full" (the paper), "diag" (the paper's independent
            Gaussian), "tied" (one covariance for all classes: `D * D` numbers instead
            of `C * D * D`), "spherical", or "low_rank" (the `rank` strongest
            directions of each class, and independent noise that makes the variances
            exact), for correlations of classes too many for "full".
        shrinkage: "oas", chosen from the data per class, or a weight from 0 to 1.
        covariance_scale: magnifies the covariances (section 3.6 of the paper).
        rank: of "low_rank" alone, directions of each class; by default 16, or D if that
            is less. Statistics take `C (8 rank + 16) D` bytes, the parameters
            `C (4 rank + 16) D`.
        **kwargs: `name` and the other arguments of a Keras layer.

    Call arguments:
        features: floats `[B, ...]`, of the shape that was fitted.

    Returns:
        log_density: float32 `[B, C]`, -inf for a class that had no example.

    Raises:
        ValueError: In `adapt`: a label out of range; NaN or infinite features; a class
            with one example, unless "tied"; means or deviations that float32 cannot
            hold. In `sample`: a class without examples.

    Example:

    >>> features = np.random.default_rng(0).normal(size=(100, 3))
    >>> gaussian = ClassConditionalGaussian(num_classes=2)
    >>> gaussian.adapt(features, [0] * 90 + [1] * 10)
    >>> gaussian.sample([1, 1, 0], seed=(1, 2)).shape
    TensorShape([3, 3])

    References:
        Konno and Iwazume, "Pseudo-Feature Generation for Imbalanced Data Analysis in
        Deep Learning", arXiv 1807.06538, 2018.
    """

    _feature_shape: Any  # None before there are features

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
        """Forgets what was fitted, and fits; where that fails, nothing has changed.

        Args:
            features: floats `[N, ...]`, an array or a `StoredArray`; or, with no
                `labels`, a `tf.data.Dataset` or an iterable of `(features, labels)`
                batches.
            labels: `[N]`, `[N, 1]` or one-hot `[N, C]`.
        """
        with self._or_as_before():
            self.reset_state()
            if labels is not None:
                self.update_state(features, labels)
            else:
                self._update_from_batches(features)
            self.finalize_state()

    def adapt_moments(
        self, moments: ClassMoments, feature_shape: Sequence[int] | None = None
    ) -> None:
        """The same as `adapt`, from statistics that were gathered elsewhere.

        Args:
            moments: `ClassMoments`, as from `moments_of_batches`, `load_moments` or a
                cluster (`tf_pseudofeat.engines.beam`); "diag" for "spherical".
            feature_shape: of one feature, where that is a map; by default `(D,)`, or
                what the layer was built for.

        Raises:
            TypeError: `moments` is something else.
            ValueError: It is of no example, of other classes or features, or of another
                kind or rank.
        """
        shape = _shape_of_moments(self, moments, feature_shape)
        with self._or_as_before():
            self.reset_state()
            self._add(moments, (None, *shape))
            self.finalize_state()

    def update_state(self, features: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Adds examples to the statistics; `finalize_state` makes them count."""
        if not isinstance(features, StoredArray):
            features = np.asarray(features)
        self._checked_shape(features.shape)
        how = self.num_classes, self._type.kind, self.rank
        moments = moments_of(features, labels, *how)
        self._add(moments, features.shape)

    def merge_state(self, others: Iterable[Self]) -> None:
        """Adds the statistics of a list of layers with the same settings."""
        with self._or_as_before():
            for other in others:
                _check_mergeable(self, other)
                if other.moments is not None:
                    self._add(other.moments, (None, *other.seen_shape))

    def finalize_state(self) -> None:
        """Turns the statistics into the parameters of the Gaussians."""
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
        """Forgets the statistics; the parameters stay until `finalize_state`."""
        self._moments = self._estimate = None
        if not self.built:
            self._feature_shape = None

    # What was fitted.

    @property
    def moments(self) -> ClassMoments | None:
        """The `ClassMoments` that were fitted, float64; None before that."""
        return self._moments

    @property
    def report(self) -> CovarianceReport | None:
        """The `CovarianceReport` of the last fit; None before that.

        It is made when it is first asked for: that takes the eigenvalues of every
        covariance, about as long as the fit.
        """
        return None if self._estimate is None else self._estimate.report

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one feature: `(D,)`, or that of a feature map."""
        if not self.built:
            raise ValueError(
                f"{self.name} has not seen features yet; call "
                f"`adapt(features, labels)` first."
            )
        return self._feature_shape

    @property
    def seen_shape(self) -> tuple[int, ...] | None:
        """The shape of one feature of the statistics, finalized or not; or None."""
        return self._feature_shape

    @property
    def distribution(self) -> Any:
        """The Gaussians as a TFP distribution, batch `[C]`, event `[D]`.

        `tfd.MultivariateNormalTriL` ("full", "tied"), `tfd.MultivariateNormalDiag`, or
        `tfd.MultivariateNormalDiagPlusLowRankCovariance` ("low_rank").
        Made anew on each access, so that it is never stale. The entry of a class
        without examples is a placeholder, a standard normal. Its `log_prob` takes the
        mean in float32: where that is 100 deviations away from 0, it is up to a hundred
        times less exact than `call`.
        """
        # Here, since the import takes seconds, and most never read this.
        from tensorflow_probability import distributions as tfd

        loc, scale = self.parameters()
        return as_scale(scale).to_tfp(tfd, loc)

    def parameters(self, classes: Sequence[int] | None = None) -> tuple[Any, Any]:
        """A snapshot of `(loc [C, D], scale)`, constants on the host, for `tf.data`.

        Args:
            classes: ids `[K]` to have the parameters of, in that order; a factor that
                all classes share stays one. All C by default.
        """
        self.feature_shape  # noqa: B018  raises where nothing is fitted

        def snapshot(variable):
            values = keras.ops.convert_to_numpy(variable)
            if classes is not None and len(values) == self.num_classes:
                values = values[classes]
            return tf.constant(values)

        with tf.init_scope(), tf.device("CPU"):
            arrays = map(snapshot, self._scale_variables())
            return snapshot(self.loc), plain(self._type.scale_class(*arrays))

    def sample(self, labels: npt.ArrayLike, seed: npt.ArrayLike) -> tf.Tensor:
        """Draws pseudo-features, one per label (Step 4 of the paper).

        Args:
            labels: class ids `[B]`.
            seed: two whole numbers; the same seed gives the same draws, in eager and
                graph mode alike. It gives row i the same noise whatever its class: ask
                for all classes in one call, or with another seed for each call.

        Returns:
            samples: float32 tensor `[B, ...]`, shaped like the fitted features.

        Raises:
            ValueError: A class has no example, or `seed` is not two numbers.
        """
        loc, scale = self.parameters()
        if not tf.is_symbolic_tensor(labels):
            labels = class_ids(labels, self.num_classes)
            self.check_can_sample(np.unique(labels))
        samples = sample_gaussians(loc, scale, labels, stateless_seed(seed))
        return tf.reshape(samples, [-1, *self.feature_shape])

    def check_shape(self, feature_shape: Sequence[int]) -> None:
        """Raises where features of a shape cannot be fitted, or not held in memory."""
        if self.built:
            self._checked_shape((None, *feature_shape))
        size = math.prod(feature_shape)
        check_memory(self.num_classes, size, self._type.kind, self.rank)

    def check_can_sample(self, classes: Iterable[int]) -> None:
        """Raises where one of `classes` had no example to be fitted to."""
        counts = None if self._moments is None else self._moments.count
        empty = [int(c) for c in classes if counts is not None and not counts[c]]
        if empty:
            raise ValueError(
                f"Class {empty[0]} had no example among the {int(counts.sum())} that "
                f"were fitted, so there is nothing to sample (empty classes asked "
                f"for: {empty}). Give it examples, or leave it out."
            )

    # Keras.

    def build(self, input_shape):
        """Makes the parameters: a standard normal per class until `adapt`."""
        self._feature_shape = self._checked_shape(input_shape)
        self.check_shape(self._feature_shape)  # as a file may say anything
        # Without it, `call` would take [B, 2 D] for [2 B, D].
        self.input_spec = keras.layers.InputSpec(shape=(None, *self._feature_shape))
        classes, size = self.num_classes, math.prod(self._feature_shape)
        scale_shape, *others = self._type.shapes(classes, size, _rank_of(self, size))
        normaliser = keras.initializers.Constant(-size / 2 * np.log(2 * np.pi))
        parameter = functools.partial(
            self.add_weight, dtype="float32", trainable=False, autocast=False
        )
        self.loc = parameter((classes, size), "zeros", name="loc")
        self.scale = parameter(scale_shape, self._unit, name="scale")
        self.centre = parameter((size,), "zeros", name="centre")
        self.whitening = parameter(scale_shape, self._unit, name="whitening")
        self.whitened_loc = parameter((classes, size), "zeros", name="whitened_loc")
        self.log_normaliser = parameter((classes,), normaliser, name="log_normaliser")
        names = self._type.scale_class._fields[1:]
        for name, shape in zip(names, others, strict=True):
            setattr(self, name, parameter(shape, "zeros", name=name))

    def call(self, features):
        """Log densities `[B, C]` of features `[B, ...]`.

            white_c     = whitening_c (x - centre) - whitened_loc_c
            log_density = log_normaliser_c - |white_c|^2 / 2

        A triangular solve for each class is slow, and so is its backward pass. So the
        factors are inverted when they are fitted, in float64, and what is left for each
        batch is a matrix product.

        In float32. Of examples of the class itself they were within 2e-5 of the exact
        ones at a condition of 1e4, 2e-3 at 1e8 and 0.02 at 1e10 (6 features;
        `tests/exact_test.py` has the bound). The error grows with the distance from
        the class, and in proportion to the distance between the classes: 4e-5 where
        their means are 100 standard deviations apart, 4e-3 at 1e4, 0.4 at 1e6.
        """
        ops = keras.ops
        features = ops.cast(features, "float32")  # as the parameters are
        features = ops.reshape(features, (-1, self.loc.shape[1]))
        _, *others = self._scale_variables()
        distance = self._type.scale_class.distances(
            features - self.centre, self.whitening, self.whitened_loc, *others
        )
        return ops.cast(self.log_normaliser - 0.5 * distance, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """`[B, C]`."""
        return (input_shape[0], self.num_classes)

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
        """The layer that `get_config` describes, not yet fitted."""
        config = {k: v for k, v in config.items() if k not in ("trainable", "autocast")}
        return cls(**config)

    def save_own_variables(self, store):
        """Saves the float64 statistics; the parameters follow from them."""
        if self._moments is None:  # not fitted, but perhaps given by `set_weights`
            super().save_own_variables(store)
            return
        for field in _ARRAYS:
            if getattr(self._moments, field) is not None:
                store[field] = getattr(self._moments, field)

    def load_own_variables(self, store):
        """Loads the statistics and derives the parameters again.

        Raises:
            ValueError: They cannot be those of any examples, or are not for this layer;
                it is as it was, then.
        """
        with self._or_as_before():
            self._moments = self._estimate = None
            if "count" not in store:
                super().load_own_variables(store)
                return
            self._moments = self._stored_moments(store)
            self.finalize_state()

    # The steps of the above.

    @contextlib.contextmanager
    def _or_as_before(self):
        """What fails changes nothing."""
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
        _shape_of_moments(self, moments, self._feature_shape)
        return moments

    def _unit(self, shape, dtype):
        """The first array of the scale of standard normals."""
        one = np.zeros(shape[1:])
        self._type.scale_class.factorize(one, 1.0)
        # A copy, or torch would keep one matrix for all classes, not to be written to.
        return keras.ops.copy(keras.ops.broadcast_to(one.astype(dtype), shape))

    def _scale_variables(self):
        names = self._type.scale_class._fields[1:]
        return [self.scale, *(getattr(self, name) for name in names)]

    @np.errstate(over="ignore")  # what overflows is refused
    def _assign(self, moments, scale):
        """Parameters from float64 moments and factors; all of them, or none."""
        # The mean of all examples is taken off before float32 loses what differs.
        centre = moments.count @ moments.mean / moments.count.sum()  # [D]
        centre = centre.astype(np.float32)
        whitening, whitened_loc = scale.whiten(moments.mean - centre)
        normaliser = -moments.feature_size / 2 * np.log(2 * np.pi) - scale.log_det()
        values = {
            "loc": moments.mean,
            "scale": scale[0],
            "centre": centre,
            "whitening": whitening,
            "whitened_loc": whitened_loc,
            "log_normaliser": np.where(moments.count > 0, normaliser, -np.inf),
            **dict(zip(scale._fields[1:], scale[1:], strict=True)),
        }
        values = {name: value.astype(np.float32) for name, value in values.items()}
        _check_in_range(values, moments.mean, scale.diag)
        for name, value in values.items():
            getattr(self, name).assign(value)

    def _checked_shape(self, shape):
        """The shape of one feature, of features of shape `[B, ...]`."""
        mine, theirs = self._feature_shape, tuple(shape[1:])
        known = (isinstance(n, int | np.integer) and n >= 1 for n in theirs)
        if not theirs or not all(known):
            raise ValueError(
                f"Features must have a known shape [B, D] or [B, ...]; received "
                f"{(None, *theirs)}. Split at a layer of fixed size, such as a "
                f"global pooling."
            )
        if mine not in (None, theirs):
            raise ValueError(
                f"{self.name} holds features of shape [B, "
                f"{', '.join(map(str, mine))}]; received "
                f"{list(shape)}. Use a new layer for features of another shape."
            )
        return theirs

    def _add(self, moments, shape):
        self._feature_shape = self._checked_shape(shape)
        mine = self._moments
        self._moments = moments if mine is None else merge(mine, moments)

    def _update_from_batches(self, batches):
        batches = labelled_batches(batches)
        first = list(itertools.islice(batches, 1))
        for features, _ in first:
            self._checked_shape(features.shape)
        how = self.num_classes, self._type.kind, self.rank
        moments = moments_of_batches(itertools.chain(first, batches), *how)
        self._add(moments, first[0][0].shape)


def _check_in_range(values, mean, spread):
    """Refuses means and deviations that float32 turns into infinity."""
    linear = (value for name, value in values.items() if name != "log_normaliser")
    if not all(np.isfinite(value).all() for value in linear):
        raise ValueError(
            f"The Gaussians have means up to {np.abs(mean).max():.3g} and standard "
            f"deviations from {spread.min():.3g} to {spread.max():.3g}, and float32, "
            f"which holds them, ends at 3.4e38 and has no inverse of less than 3e-39. "
            f"Scale the features."
        )


def check_gaussian(gaussian):
    """Refuses what is no `ClassConditionalGaussian`."""
    check_is_object("gaussian", gaussian, "num_classes")
    if not isinstance(gaussian, ClassConditionalGaussian):
        raise ValueError(
            f"`gaussian` is a ClassConditionalGaussian; received "
            f"{type(gaussian).__name__}. Array samplers go in as `sampler`."
        )


def _shape_of_moments(layer, moments, feature_shape):
    """The shape of one feature, of moments that fit the layer."""
    if not isinstance(moments, ClassMoments):
        raise TypeError(
            f"`moments` is a ClassMoments; received {type(moments).__name__}. Features "
            f"go into adapt(features, labels)."
        )
    received = moments.num_classes, moments.kind
    expected = layer.num_classes, layer._type.kind
    if received != expected:
        raise ValueError(
            f"{layer.name} has {expected[0]} classes and {layer.covariance_type!r}, "
            f"which takes moments of kind {expected[1]!r}; received {received[0]} "
            f"classes and kind {received[1]!r}."
        )
    if not moments.count.sum() > 0 or not np.isfinite(moments.scatter).all():
        raise ValueError(
            f"The moments are of no example, or have NaN or infinity in them; their "
            f"counts are {moments.count}. Gather them from finite features."
        )
    size = moments.feature_size
    if moments.rank != _rank_of(layer, size):
        raise ValueError(
            f"{layer.name} keeps {_rank_of(layer, size)} directions of each class, the "
            f"moments {moments.rank}. Pass rank={moments.rank} to the layer."
        )
    built = layer.feature_shape if layer.built else None
    shape = tuple(feature_shape or built or (size,))
    if int(np.prod(shape)) != size:
        raise ValueError(
            f"The moments are of features of {size} numbers; {list(shape)} has "
            f"{int(np.prod(shape))}. Pass their `feature_shape`, or use a new layer."
        )
    return shape


def _check_mergeable(layer, other):
    if not isinstance(other, ClassConditionalGaussian):
        raise TypeError(
            f"Only a list of ClassConditionalGaussian layers merges; received a "
            f"{type(other).__name__} in it."
        )
    if other.moments is None:
        return
    moments = other.moments
    mine = layer.num_classes, layer._type.kind, _rank_of(layer, moments.feature_size)
    if mine != (moments.num_classes, moments.kind, moments.rank):
        raise ValueError(
            f"Only layers of the same classes and covariance type merge; {layer.name} "
            f"has {layer.num_classes} classes and {_described(layer)}, "
            f"{other.name} has {other.num_classes} and {_described(other)}."
        )


def _rank_of(layer, size):
    return resolve_rank(layer.rank, size) if layer._type.has_rank else None


def _described(layer):
    rank = "" if layer.rank is None else f" of rank {layer.rank}"
    return f"{layer.covariance_type!r}{rank}"
