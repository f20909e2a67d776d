"""Where a view comes from: what changes an example a little, and not its class."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

__all__ = ["Shifts", "ViewSource", "choose_views"]

_SHIFT = 1 / 8  # of each side
_SMALLEST_SIDE = 16  # pixels; of fewer, one is no small shift


@dataclasses.dataclass(frozen=True)
class ViewSource:
    """What makes the views of one extraction.

    Attributes:
        name: in words, for the report.
        augment: what is applied to the inputs, see `Extraction`; None where examples
            are looked at as they are.
    """

    name: str
    augment: object = None

    @property
    def is_view(self):
        """Whether examples are changed."""
        return self.augment is not None


def choose_views(extraction, x):
    """The `ViewSource` of an extraction.

    Random layers of the trunk, active, Dropout, active, and noise on floats have been
    no better than examples as they are, or worse: docs/results/recipe.

    Args:
        extraction: `Extraction`.
        x: a batch of inputs, to see what they are.

    Returns:
        source: `ViewSource`.

    Raises:
        ValueError: It asks for a number of views, and nothing makes views.
    """
    if extraction.augment is None:
        return ViewSource("none")
    if not isinstance(extraction.augment, str):
        return ViewSource("augment", extraction.augment)
    shifts = Shifts(x)
    if shifts.axes:
        return ViewSource("small shifts of images", shifts)
    if extraction.views is not None:
        raise ValueError(
            f"views={extraction.views}, and nothing makes views: the inputs are no "
            f"images. Pass a Keras preprocessing model or a function as `augment`."
        )
    return ViewSource("none")


class Shifts:
    """Shifts images by whole pixels, at most an eighth of each side.

    What comes in at the border is reflected. An image is an array `[B, height, width,
    channels]` of 1, 3 or 4 channels and sides of at least 16 pixels, or `[B, channels,
    height, width]` where Keras's image format says so. Other inputs are left as they
    are; several images of one size are shifted alike.

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
        leaves, drawn = keras.tree.flatten(x), {}
        for place, axes in self.axes.items():
            images = np.asarray(leaves[place])
            for name, axis in zip(("height", "width"), axes, strict=True):
                side = images.shape[axis]
                most = int(side * _SHIFT)
                if (name, side) not in drawn:  # images of one example move together
                    shifts = rng.integers(-most, most, len(images), endpoint=True)
                    drawn[name, side] = shifts
                images = _shifted(images, axis, drawn[name, side])
            leaves[place] = images
        return keras.tree.pack_sequence_as(x, leaves)


def _shifted(images, axis, shifts):
    """Images whose pixels are shifted along an axis, by as many for each `[B]`."""
    side = images.shape[axis]
    places = np.abs(np.arange(side) - shifts[:, None])  # [B, side]
    places = np.minimum(places, 2 * (side - 1) - places)
    shape = [1] * images.ndim
    shape[0], shape[axis] = places.shape
    return np.take_along_axis(images, places.reshape(shape), axis)


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
