"""One multivariate Gaussian per class: Steps 3 and 4 of Konno and Iwazume (2018).

`sample_gaussians` is the mathematics; `ClassConditionalGaussian` is the Keras layer
that estimates, holds, saves and evaluates the parameters.
"""

import contextlib
import functools

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf
import tensorflow_probability as tfp

from tf_pseudofeat.arguments import resolve_rank, stateless_seed, whole_number
from tf_pseudofeat.covariance import (
    check_settings,
    estimate_covariance,
    moment_kind,
    report_covariance,
)
from tf_pseudofeat.labels import class_ids
from tf_pseudofeat.low_rank import LowRankScale
from tf_pseudofeat.moments import (
    ClassMoments,
    labelled_batches,
    merge,
    moments_of,
    moments_of_batches,
)
from tf_pseudofeat.stored import StoredArray

__all__ = ["ClassConditionalGaussian", "check_gaussian", "sample_gaussians"]

# A product for each class costs a stream some 1 ms an epoch to begin, a loop 20 ms.
_UNROLLED_CLASSES = 64
# Deviations from the means, of one example, that `call` has in memory at a time.
_DEVIATIONS = 2**16


def sample_gaussians(loc, scale, labels, seed):
    """Draws one feature per label.

        x_i = loc_c + scale_c noise_i,    c = labels_i,    noise_i ~ N(0, I)

    Of a `LowRankScale`, scale_c is `[diag(diag_c), factor_c]`, and a row needs
    D + rank numbers of noise.

    Rows are grouped by class, so that a batch costs one matrix product per class
    that occurs in it. The noise of row i depends on `seed` and i alone.

    Args:
        loc: float tensor `[C, D]`.
        scale: lower triangular factors `[C, D, D]`, one shared factor `[1, D, D]`,
            standard deviations `[C, D]`, or a `LowRankScale`.
        labels: whole number tensor `[B]`.
        seed: int32 `[2]`, stateless: the same seed gives the same draws.

    Returns:
        samples: `[B, D]`, dtype of `loc`.
    """
    size, is_low_rank = loc.shape[-1], isinstance(scale, LowRankScale)
    width = size + scale.factor.shape[-1] if is_low_rank else size
    noise = tf.random.stateless_normal([tf.size(labels), width], seed, dtype=loc.dtype)
    if is_low_rank:
        deviation = noise[:, :size] * tf.gather(scale.diag, labels)
        deviation += _matmul_by_class(noise[:, size:], scale.factor, labels)
    elif scale.shape.rank == 2:
        deviation = noise * tf.gather(scale, labels)
    elif scale.shape[0] == 1:
        deviation = tf.matmul(noise, scale[0], transpose_b=True)
    else:
        deviation = _matmul_by_class(noise, scale, labels)
    return tf.gather(loc, labels) + deviation


def _matmul_by_class(noise, scale, labels):
    """`scale[labels_i] noise_i` `[B, D]`, without gathering the scale for each row."""
    num_classes = scale.shape[0]
    if num_classes > _UNROLLED_CLASSES:
        return _matmul_in_a_loop(noise, scale, labels)
    labels, rows = tf.cast(labels, tf.int32), tf.range(tf.size(labels))
    parts = tf.dynamic_partition(noise, labels, num_classes)
    products = [tf.matmul(x, scale[c], transpose_b=True) for c, x in enumerate(parts)]
    return tf.dynamic_stitch(tf.dynamic_partition(rows, labels, num_classes), products)


def _matmul_in_a_loop(noise, scale, labels):
    """The same, in a graph whose size does not grow with the number of classes."""
    order = tf.argsort(labels, stable=True)
    classes, _, sizes = tf.unique_with_counts(tf.gather(labels, order))
    stops = tf.cumsum(sizes)
    sorted_noise = tf.gather(noise, order)
    products = tf.TensorArray(
        noise.dtype,
        size=tf.size(classes) + 1,
        element_shape=[None, scale.shape[1]],
        infer_shape=False,
    )

    def one_class(i, products):
        rows = sorted_noise[stops[i] - sizes[i] : stops[i]]
        product = tf.matmul(rows, scale[classes[i]], transpose_b=True)
        return i + 1, products.write(i, product)

    last, products = tf.while_loop(
        lambda i, _: i < tf.size(classes), one_class, (0, products)
    )
    # `concat` needs a piece even of no rows.
    products = products.write(last, tf.zeros([0, scale.shape[1]], noise.dtype))
    return tf.gather(products.concat(), tf.math.invert_permutation(order))


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

    def __init__(
        self,
        num_classes,
        covariance_type="full",
        shrinkage="oas",
        covariance_scale=1.0,
        rank=None,
        **kwargs,
    ):
        check_settings(covariance_type, shrinkage, covariance_scale, rank)
        num_classes = whole_number("num_classes", num_classes)
        kwargs.setdefault("dtype", "float32")  # whatever the global policy is
        super().__init__(trainable=False, autocast=False, **kwargs)
        self.num_classes = num_classes
        self.covariance_type = covariance_type
        self.shrinkage = shrinkage
        self.covariance_scale = covariance_scale
        self.rank = rank
        self._moments = None
        self._make_report = None
        self._feature_shape = None

    # Fitting.

    def adapt(self, features, labels=None):
        """Forgets what was fitted, and fits; where that fails, nothing has changed.

        Args:
            features: floats `[N, ...]`, an array or a `StoredArray`; or, with no
                `labels`, a `tf.data.Dataset` or an iterable of `(features, labels)`
                batches.
            labels: `[N]`, `[N, 1]` or one-hot `[N, C]`.
        """
        with self._fitted_anew():
            if labels is not None:
                self.update_state(features, labels)
            else:
                self._update_from_batches(features)

    def adapt_moments(self, moments, feature_shape=None):
        """The same as `adapt`, from statistics that were gathered elsewhere.

        Args:
            moments: `ClassMoments`, as from `moments_of_batches`, `load_moments` or a
                cluster (`tf_pseudofeat.beam`); "diag" for "spherical".
            feature_shape: of one feature, where that is a map; by default `(D,)`, or
                what the layer was built for.

        Raises:
            TypeError: `moments` is something else.
            ValueError: It is of no example, of other classes or features, or of another
                kind or rank.
        """
        shape = _shape_of_moments(self, moments, feature_shape)
        with self._fitted_anew():
            self._add(moments, (None, *shape))

    def update_state(self, features, labels):
        """Adds examples to the statistics; `finalize_state` makes them count."""
        if not isinstance(features, StoredArray):
            features = np.asarray(features)
        self._checked_shape(features.shape)
        kind = moment_kind(self.covariance_type)
        moments = moments_of(features, labels, self.num_classes, kind, self.rank)
        self._add(moments, features.shape)

    def merge_state(self, others):
        """Adds the statistics of a list of layers with the same settings."""
        before = self._moments, self._feature_shape
        try:
            for other in others:
                _check_mergeable(self, other)
                if other.moments is not None:
                    self._add(other.moments, (None, *other.seen_shape))
        except BaseException:
            self._moments, self._feature_shape = before
            raise

    def finalize_state(self):
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
        self._assign(self._moments, estimate.scale)
        self._make_report = functools.cache(
            functools.partial(
                report_covariance, self._moments, self.covariance_type, self.shrinkage
            )
        )

    def reset_state(self):
        """Forgets the statistics; the parameters stay until `finalize_state`."""
        self._moments = self._make_report = None
        if not self.built:
            self._feature_shape = None

    # What was fitted.

    @property
    def moments(self):
        """The `ClassMoments` that were fitted, float64; None before that."""
        return self._moments

    @property
    def report(self):
        """The `CovarianceReport` of the last fit; None before that.

        It is made when it is first asked for: that takes the eigenvalues of every
        covariance, about as long as the fit.
        """
        return None if self._make_report is None else self._make_report()

    @property
    def feature_shape(self):
        """The shape of one feature: `(D,)`, or that of a feature map."""
        if not self.built:
            raise ValueError(
                f"{self.name} has not seen features yet; call "
                f"`adapt(features, labels)` first."
            )
        return self._feature_shape

    @property
    def seen_shape(self):
        """The shape of one feature of the statistics, finalized or not; or None."""
        return self._feature_shape

    @property
    def distribution(self):
        """The Gaussians as a TFP distribution, batch `[C]`, event `[D]`.

        `tfd.MultivariateNormalTriL` ("full", "tied"), `tfd.MultivariateNormalDiag`, or
        `tfd.MultivariateNormalDiagPlusLowRankCovariance` ("low_rank").
        Made anew on each access, so that it is never stale. The entry of a class
        without examples is a placeholder, a standard normal. Its `log_prob` takes the
        mean in float32: where that is 100 deviations away from 0, it is up to a hundred
        times less exact than `call`.
        """
        loc, scale = self.parameters()
        if isinstance(scale, LowRankScale):
            return tfp.distributions.MultivariateNormalDiagPlusLowRankCovariance(
                loc, tf.square(scale.diag), scale.factor
            )
        if scale.shape.rank == 2:
            return tfp.distributions.MultivariateNormalDiag(loc, scale_diag=scale)
        return tfp.distributions.MultivariateNormalTriL(loc, scale_tril=scale)

    def parameters(self, classes=None):
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
            loc, scale = snapshot(self.loc), snapshot(self.scale)
            if self.covariance_type == "low_rank":
                scale = LowRankScale(scale, snapshot(self.low_rank))
            return loc, scale

    def sample(self, labels, seed):
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

    def check_can_sample(self, classes):
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
        # Without it, `call` would take [B, 2 D] for [2 B, D].
        self.input_spec = keras.layers.InputSpec(shape=(None, *self._feature_shape))
        classes, size = self.num_classes, int(np.prod(self._feature_shape))
        factors = {"full": (classes, size, size), "tied": (1, size, size)}
        scale_shape = factors.get(self.covariance_type, (classes, size))
        normaliser = keras.initializers.Constant(-size / 2 * np.log(2 * np.pi))
        self.loc = self._parameter("loc", (classes, size), "zeros")
        self.scale = self._parameter("scale", scale_shape, _unit_factors)
        self.centre = self._parameter("centre", (size,), "zeros")
        self.whitening = self._parameter("whitening", scale_shape, _unit_factors)
        self.whitened_loc = self._parameter("whitened_loc", (classes, size), "zeros")
        self.log_normaliser = self._parameter("log_normaliser", (classes,), normaliser)
        if self.covariance_type == "low_rank":
            shape = classes, size, resolve_rank(self.rank, size)
            self.low_rank = self._parameter("low_rank", shape, "zeros")

    def call(self, features):
        """Log densities `[B, C]` of features `[B, ...]`.

        In float32. Of examples of the class itself they were within 2e-5 of the exact
        ones at a condition of 1e4, 2e-3 at 1e8 and 0.02 at 1e10 (6 features;
        `tests/exact_test.py` has the bound), and grow with the distance from the class.
        """
        ops = keras.ops
        features = ops.cast(features, "float32")  # as the parameters are
        centred = ops.reshape(features, (-1, self.loc.shape[1])) - self.centre
        if len(self.whitening.shape) == 2:
            distance = self._distances_by_class(centred)
        else:
            # The factors stand side by side, so that all classes are one product.
            side_by_side = ops.reshape(self.whitening, (-1, self.loc.shape[1]))
            white = ops.matmul(centred, ops.transpose(side_by_side))
            white = ops.reshape(white, (-1, *self.whitening.shape[:2]))  # [B, C|1, D]
            distance = ops.sum(ops.square(white - self.whitened_loc), axis=-1)
        return ops.cast(self.log_normaliser - 0.5 * distance, self.compute_dtype)

    def _distances_by_class(self, centred):
        """`[B, C]`, of as many classes at a time as fit, never `[B, C, D]` of many."""
        ops = keras.ops
        step = max(1, _DEVIATIONS // self.loc.shape[1])
        whole = self.num_classes // step if self.num_classes > step else 0
        parts = []
        if whole:
            starts = step * ops.arange(whole)
            part = ops.map(lambda start: self._distances(centred, start, step), starts)
            parts.append(ops.reshape(part, (whole * step, -1)))
        if whole * step < self.num_classes:
            rest = self.num_classes - whole * step
            parts.append(self._distances(centred, whole * step, rest))
        return ops.transpose(ops.concatenate(parts, axis=0))

    def _distances(self, centred, start, num):
        """Squared Mahalanobis distances `[K, B]` from `num` classes.

            y        = (x - loc) / diag
            distance = |y - U U^T y|^2 + sum_k (U^T y)_k^2 / (1 + s_k^2)

        with diag^-1 factor = U s, U of orthonormal columns. This is what Woodbury's
        formula comes to, without its difference of two large numbers.
        """
        ops = keras.ops

        def some(variable):
            begin = [start] + [0] * (len(variable.shape) - 1)
            return ops.slice(variable, begin, (num, *variable.shape[1:]))

        whitening = some(self.whitening)  # [K, D]
        white = centred * whitening[:, None] - some(self.whitened_loc)[:, None]
        if self.covariance_type != "low_rank":
            return ops.sum(ops.square(white), axis=-1)
        basis = some(self.low_rank) * whitening[:, :, None]  # U s, [K, D, rank]
        squares = ops.sum(ops.square(basis), axis=1)[:, None]  # s^2, [K, 1, rank]
        inverse = ops.where(squares > 0, 1 / ops.where(squares > 0, squares, 1), 0)
        along = ops.matmul(white, basis)  # s U^T y, [K, B, rank]
        white -= ops.matmul(along * inverse, ops.transpose(basis, (0, 2, 1)))
        along = ops.square(along) * inverse / (1 + squares)
        return ops.sum(ops.square(white), axis=-1) + ops.sum(along, axis=-1)

    def compute_output_shape(self, input_shape):
        """`[B, C]`."""
        return (input_shape[0], self.num_classes)

    def get_config(self):
        """The constructor's arguments, as Keras saves them."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "covariance_type": self.covariance_type,
            "shrinkage": self.shrinkage,
            "covariance_scale": self.covariance_scale,
            "rank": self.rank,
        }

    @classmethod
    def from_config(cls, config):
        """The layer that `get_config` describes, not yet fitted."""
        config = {k: v for k, v in config.items() if k not in ("trainable", "autocast")}
        return cls(**config)

    def save_own_variables(self, store):
        """Saves the float64 statistics; the parameters follow from them."""
        if self._moments is None:  # not fitted, but perhaps given by `set_weights`
            super().save_own_variables(store)
            return
        for field in self._fields():
            store[field] = getattr(self._moments, field)

    def load_own_variables(self, store):
        """Loads the statistics and derives the parameters again."""
        self._moments = self._make_report = None
        if "count" not in store:
            super().load_own_variables(store)
            return
        fields = {f: np.asarray(store[f]) for f in self._fields()}
        self._moments = ClassMoments(**fields, kind=moment_kind(self.covariance_type))
        self.finalize_state()

    # The steps of the above.

    @contextlib.contextmanager
    def _fitted_anew(self):
        """Forgets, lets statistics be added, and finalizes; or all stays as it was."""
        before = self._moments, self._make_report, self._feature_shape
        self.reset_state()
        try:
            yield
            self.finalize_state()
        except BaseException:
            self._moments, self._make_report, self._feature_shape = before
            raise

    def _fields(self):
        """Those of `ClassMoments` that hold its arrays."""
        sketch = ("sketch",) if self.covariance_type == "low_rank" else ()
        return ("count", "mean", "scatter", *sketch)

    def _parameter(self, name, shape, initializer):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype="float32",
            trainable=False,
            autocast=False,
        )

    @np.errstate(over="ignore")  # what overflows is refused
    def _assign(self, moments, scale):
        """Parameters from float64 moments and factors; whitening is scale^-1."""
        size, stretched, directions = moments.feature_size, 0.0, {}
        if isinstance(scale, LowRankScale):
            scale, factor = scale
            directions["low_rank"] = factor
            # Class by class: at once, it would be twice [C, D, rank] in float64.
            squares = [
                np.square(columns / deviation[:, None]).sum(axis=0)
                for columns, deviation in zip(factor, scale, strict=True)
            ]
            stretched = np.log1p(squares).sum(axis=1) / 2
        centre = moments.count @ moments.mean / moments.count.sum()  # [D]
        centre = centre.astype(np.float32)
        offset = moments.mean - centre  # as `call` subtracts it
        if scale.ndim == 2:
            whitening, spread = 1 / scale, scale  # [C, D]
            whitened = whitening * offset
        else:
            whitening = np.empty(scale.shape, np.float32)
            whitened = np.empty(offset.shape)
            for number, factor in enumerate(scale):
                whitening[number] = _inverse(factor)
                owners = [number] if len(scale) == len(offset) else slice(None)
                whitened[owners] = scipy.linalg.solve_triangular(
                    factor, offset[owners].T, lower=True, check_finite=False
                ).T
            spread = np.diagonal(scale, axis1=1, axis2=2)
        normaliser = -size / 2 * np.log(2 * np.pi) - np.log(spread).sum(axis=1)
        normaliser -= stretched
        values = {
            "loc": moments.mean,
            "scale": scale,
            "centre": centre,
            "whitening": whitening,
            "whitened_loc": whitened,
            "log_normaliser": np.where(moments.count > 0, normaliser, -np.inf),
            **directions,
        }
        values = {name: x.astype(np.float32) for name, x in values.items()}
        _check_in_range(values, moments.mean, spread)
        for name, value in values.items():
            getattr(self, name).assign(value)

    def _checked_shape(self, shape):
        """The shape of one feature, of features of shape `[B, ...]`."""
        mine, theirs = self._feature_shape, tuple(shape[1:])
        if None in theirs or not theirs:
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
        shapes = []

        def noted(batches):
            for features, labels in labelled_batches(batches):
                if not shapes:
                    shapes.append(features.shape)
                    self._checked_shape(features.shape)
                yield features, labels

        kind = moment_kind(self.covariance_type)
        moments = moments_of_batches(noted(batches), self.num_classes, kind, self.rank)
        self._add(moments, shapes[0])


def _unit_factors(shape, dtype):
    """Of standard normals: identities, or standard deviations of 1."""
    ops = keras.ops
    if len(shape) == 2:
        return ops.ones(shape, dtype)
    # A copy, or torch would keep one matrix for all classes, not to be written to.
    return ops.copy(ops.broadcast_to(ops.eye(shape[-1], dtype=dtype), shape))


def _inverse(factor):
    """Of a lower triangular factor: what whitens must be one matrix product."""
    inverse, _ = scipy.linalg.lapack.dtrtri(factor.T)
    return inverse.T


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
    expected = layer.num_classes, moment_kind(layer.covariance_type)
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
    size = other.moments.feature_size
    mine, theirs = (
        (each.num_classes, moment_kind(each.covariance_type), _rank_of(each, size))
        for each in (layer, other)
    )
    if mine != theirs:
        raise ValueError(
            f"Only layers of the same classes and covariance type merge; {layer.name} "
            f"has {layer.num_classes} classes and {_described(layer)}, "
            f"{other.name} has {other.num_classes} and {_described(other)}."
        )


def _rank_of(layer, size):
    is_low_rank = layer.covariance_type == "low_rank"
    return resolve_rank(layer.rank, size) if is_low_rank else None


def _described(layer):
    rank = "" if layer.rank is None else f" of rank {layer.rank}"
    return f"{layer.covariance_type!r}{rank}"
