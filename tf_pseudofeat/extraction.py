"""What the trunk looks at in Step 2: which examples, and through which views."""

import dataclasses

from tf_pseudofeat.arguments import whole_number

__all__ = ["Extraction"]

_PER_CLASS = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction:
    """How features are extracted; every field is optional.

    A trunk that has memorized its training data shows their rare classes far too
    narrow. In a view, an example that is changed a little, they spread as new data do;
    and of one class a few hundred examples say as much as all.

    Attributes:
        augment: how views are made. "auto" takes the first of these that there is:
            random layers in the trunk, such as `RandomFlip`, which are then active; a
            dataset that is itself augmented, which two readings of its first batch
            show unless it is shuffled; shifts of images, by whole pixels, up to an
            eighth of each side; or none. Noise on floats and Dropout have not been
            worth it. Or a Keras preprocessing layer or model, called with
            `training=True`; or a function from a batch of inputs to such a batch, which
            gets another `seed`, int32 `[2]`, for each batch where it has such an
            argument. None for the examples as they are.
        views: of each example; 1 by default.
        per_class: at most so many examples of each class are looked at; None for all.
            "auto" is 500, and all where the recipe has a `sampler`, a
            `sampling_strategy` or a `fresh_head`, which may need them. Of arrays they
            are drawn at random, of a dataset they are the first that it gives: shuffle
            it where its order means something.
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
    >>> Extraction(augment=shifts, views=2, per_class=1000).num_views
    2
    """

    augment: object = "auto"
    views: int | None = None
    per_class: int | str | None = "auto"
    steps: int | None = None
    batch_size: int = 256
    cache_dir: object = None

    @classmethod
    def plain(cls):
        """Every example, as it is, as in Konno and Iwazume (2018)."""
        return cls(augment=None, per_class=None)

    def __post_init__(self):
        for name in ("views", "steps", "batch_size", "per_class"):
            value = getattr(self, name)
            if name == "per_class" and isinstance(value, str) and value == "auto":
                continue
            if value is not None or name == "batch_size":
                object.__setattr__(self, name, whole_number(name, value))
        if self.augment is None:
            if self.views is not None:
                raise ValueError(
                    f"views={self.views} needs `augment`: without it, the examples are "
                    f"looked at as they are, once. Pass a Keras preprocessing model, a "
                    f"function, or 'auto' as `augment`."
                )
        elif self.augment != "auto" and not callable(self.augment):
            raise TypeError(
                f"`augment` is 'auto', a Keras preprocessing layer or model, a "
                f"function from a batch of inputs to such a batch, or None; received "
                f"{self.augment!r:.200}."
            )

    @property
    def num_views(self):
        """Views of each example; 0 without `augment`."""
        return 0 if self.augment is None else self.views or 1

    def for_recipe(self, recipe):
        """The same, with a number of examples or None for "auto".

        Args:
            recipe: `HeadRecipe`.
        """
        if self.per_class != "auto":
            return self
        per_class = _PER_CLASS if recipe.balances else None
        return dataclasses.replace(self, per_class=per_class)
