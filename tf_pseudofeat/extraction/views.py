"""Views: small changes of an example that keep its class."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

__all__ = ["Shifts", "ViewSource", "choose_views"]

_SHIFT = 1 / 8  # of each side
_SMALLEST_SIDE = 16  # in pixels; for smaller images one pixel is not a small shift


@dataclasses.dataclass(frozen=True)
class ViewSource:
    """How the views of one extraction are made.

    Attributes:
        name: description for the report.
        augment: what is applied to the inputs, see `Extraction`; None without views.
    """

    name: str
    augment: object = None

    @property
    def is_view(self):
        """Whether there are views."""
        return self.augment is not None


def choose_views(extraction, x):
    """Chooses the `ViewSource` of an extraction.

    Active random layers of the trunk, active Dropout, and noise on floats were no
    better than no views, or worse: see docs/results/recipe.

    Args:
        extraction: `Extraction`.
        x: a batch of inputs.

    Returns:
        source: `ViewSource`.

    Raises:
        ValueError: If a number of views is given, but nothing makes views.
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
            f"views={extraction.views}, but nothing makes views: the inputs are not "
            f"images. Pass a Keras preprocessing model or a function as `augment`."
        )
    return ViewSource("none")


class Shifts:
    """Shifts images by whole pixels, at most an eighth of each side.

    Borders are filled by reflection. Images are arrays `[B, height, width, channels]`
    with 1, 3 or 4 channels and sides of at least 16 pixels, or
    `[B, channels, height, width]` if that is Keras's image data format. Other inputs
    are unchanged; several images of the same size are shifted together.

    Args:
        x: inputs, arrays in any structure.

    Attributes:
        axes: {index of an image among the inputs: its axes of height and width}.
    """

    def __init__(self, x):
        places = enumerate(map(_image_axes, keras.tree.flatten(x)))
        self.axes = {place: axes for place, axes in places if axes}

    def __call__(self, x, seed):
        """Shifts a batch by random amounts from `seed`, int `[2]`."""
        rng = np.random.default_rng([int(number) for number in seed])
        leaves, drawn = keras.tree.flatten(x), {}
        for place, axes in self.axes.items():
            images = np.asarray(leaves[place])
            for name, axis in zip(("height", "width"), axes, strict=True):
                side = images.shape[axis]
                most = int(side * _SHIFT)
                if (
                    name,
                    side,
                ) not in drawn:  # images of one example are shifted together
                    shifts = rng.integers(-most, most, len(images), endpoint=True)
                    drawn[name, side] = shifts
                images = _shifted(images, axis, drawn[name, side])
            leaves[place] = images
        return keras.tree.pack_sequence_as(x, leaves)


def _shifted(images, axis, shifts):
    """Shifts images along an axis by the numbers of pixels `[B]`."""
    side = images.shape[axis]
    places = np.abs(np.arange(side) - shifts[:, None])  # [B, side]
    places = np.minimum(places, 2 * (side - 1) - places)
    shape = [1] * images.ndim
    shape[0], shape[axis] = places.shape
    return np.take_along_axis(images, places.reshape(shape), axis)


def _image_axes(leaf):
    """The axes of height and width of images, or None for other inputs."""
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
