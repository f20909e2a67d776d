"""Where a view comes from: what changes an example a little, and not its class."""

import contextlib
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.graph import layers_inside
from tf_pseudofeat.strategies import scope_of

__all__ = ["Shifts", "ViewSource", "choose_views"]

_SHIFT = 1 / 8  # of each side
_SMALLEST_SIDE = 4  # pixels; what is narrower is taken for no image

_AUGMENTING = ("AugMix", "RandAugment", "Solarization")  # and all Random...


@dataclasses.dataclass(frozen=True, eq=False)
class ViewSource:
    """What makes the views of one extraction.

    Attributes:
        name: in words, for the report.
        augment: what is applied to the inputs, see `Extraction`; or None.
        layers: the layers of the trunk that are active, as in training.
        is_view: False where examples are looked at as they are.
        is_reading: whether each reading of the data is another view.
    """

    name: str
    augment: object = None
    layers: tuple = ()
    is_view: bool = True
    is_reading: bool = False

    @contextlib.contextmanager
    def active(self, trunk):
        """The trunk to run; all is as it was afterwards, also the layers' seeds."""
        if not self.layers:
            yield trunk
            return
        seeds = [
            (variable, keras.ops.convert_to_numpy(variable).copy())
            for layer in self.layers
            for variable in layer.variables
        ]
        try:
            for layer in self.layers:
                layer.call = _always_training(layer.call)
            with scope_of(trunk):
                yield _Active(trunk)
        finally:
            for layer in self.layers:
                vars(layer).pop("call", None)
            for variable, value in seeds:
                variable.assign(value)


def choose_views(augment, trunk, x, reading=None):
    """The `ViewSource` of an extraction.

    Args:
        augment: see `Extraction`.
        trunk: Keras model.
        x: a batch of inputs, to see what they are.
        reading: `(first, second)`, the first batches of two readings of a dataset,
            each `(inputs, labels)`; or None.

    Returns:
        source: `ViewSource`.
    """
    if augment is None:
        return ViewSource("none", is_view=False)
    if augment != "auto":
        return ViewSource("augment", augment)
    random = [layer for layer in layers_inside(trunk) if _is_augmenting(layer)]
    if random:
        random = tuple({id(layer): layer for layer in random}.values())
        return ViewSource(f"random layers ({_names(random)})", layers=random)
    if reading is not None and _differ(*reading):
        return ViewSource("the augmented dataset", is_reading=True)
    shifts = Shifts(x)
    if shifts.axes:
        return ViewSource("small shifts of images", shifts)
    return ViewSource("none", is_view=False)


class Shifts:
    """Shifts images by whole pixels, at most an eighth of each side.

    What comes in at the border is reflected. An image is an array `[B, height, width,
    channels]` of 1, 3 or 4 channels, or `[B, channels, height, width]` where Keras's
    image format says so. Other inputs are left as they are.

    Args:
        x: inputs, arrays in any structure, to see what they are.

    Attributes:
        axes: {place of an image among the inputs: its axes of height and width}.
    """

    def __init__(self, x):
        places = enumerate(map(_image_axes, keras.tree.flatten(x)))
        self.axes = {place: axes for place, axes in places if axes}

    def __call__(self, x, seed):
        """A batch like `x`, changed by what follows from `seed`, int `[2]`."""
        rng = np.random.default_rng([int(number) for number in seed])
        leaves = keras.tree.flatten(x)
        for place, axes in self.axes.items():
            leaves[place] = _shifted(np.asarray(leaves[place]), axes, rng)
        return keras.tree.pack_sequence_as(x, leaves)


def _shifted(images, axes, rng):
    for axis in axes:
        side = images.shape[axis]
        most = max(1, int(side * _SHIFT))
        shifts = rng.integers(-most, most, len(images), endpoint=True)
        places = np.abs(np.arange(side) - shifts[:, None])  # [B, side]
        places = np.minimum(places, 2 * (side - 1) - places)
        shape = [1] * images.ndim
        shape[0], shape[axis] = places.shape
        images = np.take_along_axis(images, places.reshape(shape), axis)
    return images


def _image_axes(leaf):
    """The axes of height and width of images, or None."""
    shape, dtype = getattr(leaf, "shape", ()), getattr(leaf, "dtype", None)
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor) or len(shape) != 4:
        return None
    if keras.backend.standardize_dtype(dtype) in ("bool", "string"):
        return None
    channels_last = keras.config.image_data_format() == "channels_last"
    axes, channels = ((1, 2), 3) if channels_last else ((2, 3), 1)
    sides = [int(shape[axis]) for axis in axes]
    is_image = int(shape[channels]) in (1, 3, 4) and min(sides) >= _SMALLEST_SIDE
    return axes if is_image else None


class _Active(keras.Model):
    """Runs a trunk anew: what the trunk has compiled before knows no active layers."""

    def __init__(self, trunk):
        super().__init__(name=trunk.name)
        self.trunk = trunk

    def call(self, x, training=False):
        return self.trunk(x, training=training)


def _always_training(call):
    def active(*args, **kwargs):
        return call(*args, **{**kwargs, "training": True})

    return active


def _is_augmenting(layer):
    names = _keras_names(layer)
    return any(name.startswith("Random") or name in _AUGMENTING for name in names)


def _keras_names(layer):
    """The names of the Keras classes that a layer is of."""
    kinds = type(layer).__mro__
    return {kind.__name__ for kind in kinds if kind.__module__.startswith("keras.")}


def _names(layers):
    names = [layer.name for layer in layers]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _differ(first, second):
    """Whether two readings give the same labels, and other inputs."""
    (x, labels), (again, same) = first, second
    if not _equal(labels, same):
        return False  # shuffled, which says nothing
    pairs = zip(keras.tree.flatten(x), keras.tree.flatten(again), strict=True)
    return any(not _equal(*pair) for pair in pairs)


def _equal(a, b):
    if isinstance(a, tf.RaggedTensor | tf.SparseTensor):
        return True  # nobody augments these
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return False
    floats = a.dtype.kind == "f"
    return np.array_equal(a, b, equal_nan=floats)
