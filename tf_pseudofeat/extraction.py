"""How Step 2 reads the data, and through which views."""

import dataclasses

from tf_pseudofeat.arguments import whole_number

__all__ = ["Extraction"]

_VIEWS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction:
    """How features are extracted; every field is optional.

    With `augment` the data are read once more for each view, and every time other
    augmented inputs are seen. A trunk that has memorized its training images shows
    their rare classes far too narrow; under views that it was not trained on they
    spread as new images do.

    Attributes:
        augment: a Keras preprocessing layer or model, called with `training=True`, or
            a function from a batch of inputs to such a batch; a function with an
            argument `seed` gets another one, int32 `[2]`, for each batch.
        views: how often to read the data augmented; 3 by default, needs `augment`.
        steps: batches to read; needed for an infinite dataset.
        batch_size: of data that come as arrays.
        cache_dir: a folder to write the features to, for a set that does not fit in
            memory, or to use it again with `load_features`. One shard of 64 MiB is in
            memory at a time. On an error or an interrupt nothing stays.

    Raises:
        ValueError: `views` without `augment`; a number is not whole or below 1.
        TypeError: `augment` cannot be called.

    Example:

    >>> shifts = keras.layers.RandomTranslation(0.1, 0.1)
    >>> Extraction(augment=shifts, views=2).num_views
    2
    """

    augment: object = None
    views: int | None = None
    steps: int | None = None
    batch_size: int = 256
    cache_dir: object = None

    def __post_init__(self):
        for name in ("views", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None or name == "batch_size":
                object.__setattr__(self, name, whole_number(name, value))
        if self.augment is None:
            if self.views not in (None, 1):
                raise ValueError(
                    f"views={self.views} without `augment` would be {self.views} times "
                    f"the same; pass a Keras preprocessing model or a function as "
                    f"`augment`."
                )
        elif not callable(self.augment):
            raise TypeError(
                f"`augment` is a Keras preprocessing layer or model, or a function "
                f"from a batch of inputs to such a batch; received "
                f"{type(self.augment).__name__}."
            )

    @property
    def num_views(self):
        """Augmented passes over the data; 0 without `augment`."""
        return 0 if self.augment is None else self.views or _VIEWS
