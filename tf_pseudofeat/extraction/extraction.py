"""What the trunk looks at in Step 2: which examples, and through which views."""

import dataclasses
from typing import Any, Self

from tf_pseudofeat.core.arguments import check_is_object, whole_number
from tf_pseudofeat.core.files import local_path
from tf_pseudofeat.core.options import check_known, field_names, with_fields

__all__ = ["Extraction", "resolve_extraction"]

_PER_CLASS = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction:
    """How features are extracted; every field is optional.

    A trunk that has memorized its training data shows their rare classes far too
    narrow. In a view, an example that is changed a little, they spread as new data do;
    and of one class a few hundred examples say as much as all.

    Attributes:
        augment: how views are made. "auto" shifts images of at least 16 pixels a side,
            by whole pixels, up to an eighth of each side, and leaves other inputs as
            they are. Or a Keras
            preprocessing layer or model, called with `training=True`; or a function
            from a batch of inputs to such a batch, which gets another `seed`, int32
            `[2]`, for each batch where it has such an argument. None for the examples
            as they are.
        views: of each example; 1 by default.
        per_class: at most so many examples of each class are looked at; "auto" is 500;
            None for all. Of arrays they are drawn at random, of a dataset they are the
            first that it gives: shuffle it where its order means something.
        steps: batches to read; needed for an infinite dataset.
        batch_size: of data that come as arrays.
        cache_dir: a folder to write the features to, for a set that does not fit in
            memory, or to use it again with `load_features`. One shard of 64 MiB is in
            memory at a time. On an error or an interrupt nothing stays.

    Raises:
        ValueError: `views` without `augment`; a number is not whole or below 1;
            `cache_dir` is on another system, `gs://...`.
        TypeError: `augment` cannot be called, or is a class; `cache_dir` is no path.

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
    def plain(cls) -> Self:
        """Every example, as it is."""
        return cls(augment=None, per_class=None)

    def __post_init__(self):
        for name in ("views", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None or name == "batch_size":
                object.__setattr__(self, name, whole_number(name, value))
        if not (self.per_class is None or _is_auto(self.per_class)):
            if isinstance(self.per_class, str):
                raise ValueError(
                    f"`per_class` is a whole number from 1, 'auto', or None for all; "
                    f"received {self.per_class!r}."
                )
            count = whole_number("per_class", self.per_class)
            object.__setattr__(self, "per_class", count)
        if self.cache_dir is not None:
            cache_dir = str(local_path(self.cache_dir, "cache_dir"))
            object.__setattr__(self, "cache_dir", cache_dir)
        if self.augment is None:
            if self.views is not None:
                raise ValueError(
                    f"views={self.views} needs `augment`: without it, the examples are "
                    f"looked at as they are, once. Pass a Keras preprocessing model, a "
                    f"function, or 'auto' as `augment`."
                )
            return
        check_is_object("augment", self.augment)
        if not (_is_auto(self.augment) or callable(self.augment)):
            raise TypeError(
                f"`augment` is 'auto', a Keras preprocessing layer or model, a "
                f"function from a batch of inputs to such a batch, or None; received "
                f"{self.augment!r:.200}."
            )

    @property
    def num_views(self) -> int:
        """Views of each example; 0 without `augment`."""
        return 0 if self.augment is None else self.views or 1

    def literal(self) -> Self:
        """The same, where "auto" means every example as it is."""
        return dataclasses.replace(
            self,
            per_class=None if _is_auto(self.per_class) else self.per_class,
            augment=None if _is_auto(self.augment) else self.augment,
        )

    def for_recipe(self, recipe: Any) -> Self:
        """The same, with what "auto" means for a `HeadRecipe`."""
        per_class, augment = self.per_class, self.augment
        if _is_auto(per_class):
            per_class = _PER_CLASS if recipe.balances else None
        if _is_auto(augment) and self.views is None and not recipe.balances:
            augment = None
        return dataclasses.replace(self, per_class=per_class, augment=augment)


def _is_auto(value):
    return isinstance(value, str) and value == "auto"


def resolve_extraction(extraction, options):
    """An `Extraction` with the fields that `options` override.

    Raises:
        TypeError: A name is not a field of it, or `extraction` is of another type.
        ValueError: A value is out of its range.
    """
    check_known(options, field_names(Extraction))
    return with_fields(Extraction, "extraction", extraction, options)
