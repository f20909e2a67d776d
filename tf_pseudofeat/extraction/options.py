"""Options of feature extraction (Step 2): which examples, and which views of them."""

import dataclasses
from typing import Any, Self

from tf_pseudofeat.core.files import local_path
from tf_pseudofeat.core.options import check_known, field_names, with_fields
from tf_pseudofeat.core.validation import check_is_object, whole_number

__all__ = ["ELSEWHERE", "Extraction", "resolve_extraction"]

# What users look for among the options, and what to pass for it.
ELSEWHERE = {
    "sample_weight": "weights as the third item of `data`, (x, y, sample_weight)"
}

_PER_CLASS = 500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction:
    """How features are extracted; every field is optional.

    For a trunk that has memorized its training data, the features of rare classes have
    far too little variance. Features of views, which are slightly augmented examples,
    vary like those of new data; and a few hundred examples of a class are as good as
    all.

    Attributes:
        augment: how views are made. "auto" shifts images of at least 16 pixels a side
            by whole pixels, up to an eighth of each side, and keeps other inputs
            unchanged. Or a Keras preprocessing layer or model, called with
            `training=True`; or a function from a batch of inputs to a batch of inputs,
            which gets a different `seed`, int32 `[2]`, for each batch if it has such an
            argument. None for the unchanged examples.
        views: number of views of each example; 1 by default.
        per_class: maximum number of examples of each class; "auto" is 500; None for
            all. Of arrays they are drawn at random; of a dataset they are the first
            ones, so shuffle a dataset that is ordered.
        steps: number of batches to read; required for an infinite dataset.
        batch_size: batch size if data are arrays.
        cache_dir: folder to write the features to, if they do not fit in memory, or to
            reuse them with `load_features`. One shard of 64 MiB is in memory at a time.
            On an error or interrupt the files are removed.

    Raises:
        ValueError: If `views` is given without `augment`, a number is not a whole
            number of at least 1, or `cache_dir` is on another file system, `gs://...`.
        TypeError: If `augment` is not callable or is a class, or `cache_dir` is not a
            path.

    Examples:
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
        """Every example, without views."""
        return cls(augment=None, per_class=None)

    def __post_init__(self):
        for name in ("views", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None or name == "batch_size":
                object.__setattr__(self, name, whole_number(name, value))
        if not (self.per_class is None or _is_auto(self.per_class)):
            if isinstance(self.per_class, str):
                raise ValueError(
                    f"`per_class` must be a whole number of at least 1, 'auto', or "
                    f"None for all; received {self.per_class!r}."
                )
            count = whole_number("per_class", self.per_class)
            object.__setattr__(self, "per_class", count)
        if self.cache_dir is not None:
            cache_dir = str(local_path(self.cache_dir, "cache_dir"))
            object.__setattr__(self, "cache_dir", cache_dir)
        if self.augment is None:
            if self.views is not None:
                raise ValueError(
                    f"views={self.views} needs `augment`: without it there are no "
                    f"views. Pass a Keras preprocessing model, a function, or 'auto' "
                    f"as `augment`."
                )
            return
        check_is_object("augment", self.augment)
        if not (_is_auto(self.augment) or callable(self.augment)):
            raise TypeError(
                f"`augment` must be 'auto', a Keras preprocessing layer or model, a "
                f"function from a batch of inputs to a batch of inputs, or None; "
                f"received {self.augment!r:.200}."
            )

    @property
    def num_views(self) -> int:
        """Number of views of each example; 0 without `augment`."""
        return 0 if self.augment is None else self.views or 1

    def literal(self) -> Self:
        """Resolves "auto" to every example, without views."""
        return dataclasses.replace(
            self,
            per_class=None if _is_auto(self.per_class) else self.per_class,
            augment=None if _is_auto(self.augment) else self.augment,
        )

    def for_recipe(self, recipe: Any) -> Self:
        """Resolves "auto" for a `HeadRecipe`."""
        per_class, augment = self.per_class, self.augment
        if _is_auto(per_class):
            per_class = _PER_CLASS if recipe.balances else None
        if _is_auto(augment) and self.views is None and not recipe.balances:
            augment = None
        return dataclasses.replace(self, per_class=per_class, augment=augment)


def _is_auto(value):
    return isinstance(value, str) and value == "auto"


def resolve_extraction(extraction, options):
    """Returns `extraction` with the fields that `options` override.

    Raises:
        TypeError: If a name is not a field, or `extraction` is of another type.
        ValueError: If a value is out of range.
    """
    check_known(options, field_names(Extraction), ELSEWHERE)
    return with_fields(Extraction, "extraction", extraction, options)
