"""The parameters of one Gaussian per class as a Keras layer: densities and samples."""

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.core.stateless_seed import stateless_seed
from tf_pseudofeat.gaussians.covariance_types import as_scale, plain
from tf_pseudofeat.gaussians.fit_checks import rank_of
from tf_pseudofeat.gaussians.moments import check_memory
from tf_pseudofeat.gaussians.sampling import sample_gaussians

__all__ = ["GaussianParameters"]


class GaussianParameters(keras.layers.Layer):
    """Log densities and samples of one Gaussian per class, whose parameters it holds.

    Subclasses fit the parameters. They set `num_classes`, `covariance_type`, `rank`,
    and `_type`, the `CovarianceType` of these settings.
    """

    _feature_shape: Any  # None before `build`
    _moments: Any  # `ClassMoments` of the last fit, or None

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
    def distribution(self) -> Any:
        """The Gaussians as a TFP distribution, batch `[C]`, event `[D]`.

        `tfd.MultivariateNormalTriL` ("full", "tied"), `tfd.MultivariateNormalDiag`, or
        `tfd.MultivariateNormalDiagPlusLowRankCovariance` ("low_rank").
        Created on each access, so it is never stale. Classes without examples have a
        standard normal as placeholder. Its `log_prob` subtracts the mean in float32:
        for a mean of 100 deviations, it is up to a hundred times less exact than
        `call`.
        """
        # Imported here, since the import takes seconds and few need it.
        from tensorflow_probability import distributions as tfd

        loc, scale = self.parameters()
        return as_scale(scale).to_tfp(tfd, loc)

    def parameters(self, classes: Sequence[int] | None = None) -> tuple[Any, Any]:
        """Returns `(loc [C, D], scale)` as constants on the host, for `tf.data`.

        Args:
            classes: class ids `[K]` to select, in that order; by default all C. A
                factor that all classes share is not repeated.
        """
        self.feature_shape  # noqa: B018  raises if not fitted

        def snapshot(variable):
            values = _as_constant(variable)
            if classes is not None and len(values) == self.num_classes:
                values = tf.gather(values, np.arange(self.num_classes)[[*classes]])
            return values

        with tf.init_scope(), tf.device("CPU"):
            arrays = map(snapshot, self._scale_variables())
            return snapshot(self.loc), plain(self._type.scale_class(*arrays))

    def sample(self, labels: npt.ArrayLike, seed: npt.ArrayLike) -> tf.Tensor:
        """Draws pseudo-features, one per label (Step 4 of the paper).

        Args:
            labels: class ids `[B]`.
            seed: two integers; the same seed gives the same draws, in eager and graph
                mode. Row i gets the same noise whatever its class, so draw all classes
                in one call, or use a different seed for each call.

        Returns:
            samples: float32 tensor `[B, ...]`, shaped like the fitted features.

        Raises:
            ValueError: If a class has no example, or `seed` is not two integers.
        """
        loc, scale = self.parameters()
        if not tf.is_symbolic_tensor(labels):
            labels = class_ids(labels, self.num_classes)
            self.check_can_sample(np.unique(labels))
        samples = sample_gaussians(loc, scale, labels, stateless_seed(seed))
        return tf.reshape(samples, [-1, *self.feature_shape])

    def check_can_sample(self, classes: Iterable[int]) -> None:
        """Raises ValueError if one of `classes` was fitted to no example."""
        counts = None if self._moments is None else self._moments.count
        empty = [int(c) for c in classes if counts is not None and not counts[c]]
        if empty:
            raise ValueError(
                f"Class {empty[0]} had no example among the {int(counts.sum())} that "
                f"were fitted, so it cannot be sampled (empty classes requested: "
                f"{empty}). Add examples, or leave it out."
            )

    def build(self, input_shape):
        """Creates the parameters, standard normals of density 0 until `adapt`."""
        self._feature_shape = self._checked_shape(input_shape)
        self.check_shape(self._feature_shape)  # the shape may come from a file
        # Otherwise `call` would accept [B, 2 D] as [2 B, D].
        self.input_spec = keras.layers.InputSpec(shape=(None, *self._feature_shape))
        classes, size = self.num_classes, math.prod(self._feature_shape)
        scale_shape, *others = self._type.shapes(classes, size, rank_of(self, size))
        normalizer = keras.initializers.Constant(-np.inf)  # as of no example
        parameter = functools.partial(
            self.add_weight, dtype="float32", trainable=False, autocast=False
        )
        self.loc = parameter((classes, size), "zeros", name="loc")
        self.scale = parameter(scale_shape, self._unit, name="scale")
        self.center = parameter((size,), "zeros", name="center")
        self.whitening = parameter(scale_shape, self._unit, name="whitening")
        self.whitened_loc = parameter((classes, size), "zeros", name="whitened_loc")
        self.log_normalizer = parameter((classes,), normalizer, name="log_normalizer")
        names = self._type.scale_class._fields[1:]
        for name, shape in zip(names, others, strict=True):
            setattr(self, name, parameter(shape, "zeros", name=name))

    def call(self, features):
        """Log densities `[B, C]` of features `[B, ...]`.

            white_c     = whitening_c (x - center) - whitened_loc_c
            log_density = log_normalizer_c - |white_c|^2 / 2

        Triangular solves and their gradients are slow, so the factors are inverted in
        float64 when they are fitted, and each batch takes a matrix product.

        For examples of the class itself, the float32 result was within 2e-5 of the
        exact one at a condition number of 1e4, 2e-3 at 1e8 and 0.02 at 1e10 (6
        features; `tests/gaussians/exact_test.py` has the bound). The error grows with
        the distance from the class, and in proportion to the distance between the
        classes: 4e-5 where their means are 100 standard deviations apart, 4e-3 at 1e4,
        0.4 at 1e6.
        """
        ops = keras.ops
        features = ops.cast(features, "float32")  # as the parameters are
        features = ops.reshape(features, (-1, self.loc.shape[1]))
        _, *others = self._scale_variables()
        distance = self._type.scale_class.distances(
            features - self.center, self.whitening, self.whitened_loc, *others
        )
        return ops.cast(self.log_normalizer - 0.5 * distance, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        """`[B, C]`."""
        return (input_shape[0], self.num_classes)

    def check_shape(self, feature_shape: Sequence[int]) -> None:
        """Raises if features of this shape do not fit the layer, or in memory."""
        if self.built:
            self._checked_shape((None, *feature_shape))
        size = math.prod(feature_shape)
        check_memory(self.num_classes, size, self._type.kind, self.rank)

    def _unit(self, shape, dtype):
        """Initializer of the first array of the scale: that of standard normals."""
        one = np.zeros(shape[1:])
        self._type.scale_class.factorize(one, 1.0)
        # A copy, since on torch a broadcast array is a read-only view.
        return keras.ops.copy(keras.ops.broadcast_to(one.astype(dtype), shape))

    def _scale_variables(self):
        names = self._type.scale_class._fields[1:]
        return [self.scale, *(getattr(self, name) for name in names)]

    @np.errstate(over="ignore")  # overflow is an error below
    def _assign(self, moments, scale):
        """Assigns the parameters from float64 moments and factors, all or none."""
        # Subtracting the overall mean keeps the differences exact in float32.
        center = moments.count @ moments.mean / moments.count.sum()  # [D]
        center = center.astype(np.float32)
        whitening, whitened_loc = scale.whiten(moments.mean - center)
        normalizer = -moments.feature_size / 2 * np.log(2 * np.pi) - scale.log_det()
        values = {
            "loc": moments.mean,
            "scale": scale[0],
            "center": center,
            "whitening": whitening,
            "whitened_loc": whitened_loc,
            "log_normalizer": np.where(moments.count > 0, normalizer, -np.inf),
            **dict(zip(scale._fields[1:], scale[1:], strict=True)),
        }
        # Not shared with the estimate; the largest array was made here.
        values = {
            name: value.astype(np.float32, copy=name != "whitening")
            for name, value in values.items()
        }
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
                f"{(None, *theirs)}. Split at a layer of fixed size, such as global "
                f"pooling."
            )
        if mine not in (None, theirs):
            raise ValueError(
                f"{self.name} holds features of shape [B, "
                f"{', '.join(map(str, mine))}]; received "
                f"{list(shape)}. Use a new layer for features of another shape."
            )
        return theirs


def _as_constant(variable):
    """The value of a Keras variable, on the current device of TensorFlow."""
    if keras.backend.backend() == "tensorflow":
        # No copy: a variable that is assigned to leaves its old value to its readers.
        return tf.identity(tf.convert_to_tensor(variable.value))
    return tf.constant(keras.ops.convert_to_numpy(variable))


def _check_in_range(values, mean, spread):
    """Raises ValueError if float32 cannot hold the means or deviations."""
    linear = (value for name, value in values.items() if name != "log_normalizer")
    if not all(np.isfinite(value).all() for value in linear):
        raise ValueError(
            f"The Gaussians have means up to {np.abs(mean).max():.3g} and standard "
            f"deviations from {spread.min():.3g} to {spread.max():.3g}, but float32 "
            f"holds numbers up to 3.4e38 and inverses of numbers from 3e-39. Scale the "
            f"features."
        )
