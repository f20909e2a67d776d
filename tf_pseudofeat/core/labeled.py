"""Features with their labels and sample weights, valid by construction."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.finite import check_any_weight, check_finite, check_weights
from tf_pseudofeat.core.labels import class_ids, numbers_in
from tf_pseudofeat.core.stored_array import StoredArray

__all__ = ["LabeledFeatures"]

_ARRAYS = ("features", "labels", "sample_weight", "ids")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LabeledFeatures:
    """Features, labels and weights; unpacks to `features, labels`.

    An instance needs no further checks: features are finite real numbers in native byte
    order, each has one label, and each weight is positive. Examples of weight 0 are
    dropped on construction.

    Args:
        features: `[N, ...]`, an array, or a `StoredArray` of features on disk, which
            are checked when they are written.
        labels: `[N]`, `[N, 1]` or one-hot `[N, C]`, in the form that the loss expects.
        sample_weight: `[N]`, finite and not negative, or None.
        inputs: arrays `[N, ...]` in any structure that the features were computed from,
            to name the cause in error messages.

    Attributes:
        features: `[N, ...]`.
        labels: in the form of the input.
        sample_weight: `[N]`, or None.
        ids: class id of each example, int64 `[N]`.

    Raises:
        ValueError: If lengths differ or are 0, features are not real or not finite,
            labels are not class ids, or weights are negative, not finite, or all 0.

    Examples:
        >>> features, labels = LabeledFeatures(np.eye(3), [0, 1, 1])
    """

    features: np.ndarray
    labels: np.ndarray
    sample_weight: np.ndarray | None = None
    inputs: dataclasses.InitVar[object] = None
    ids: np.ndarray = dataclasses.field(init=False, repr=False)

    def __post_init__(self, inputs):
        arrays = {"features": self.features, "labels": self.labels}
        if self.sample_weight is not None:
            arrays["sample_weight"] = self.sample_weight
        arrays = {name: _native(array) for name, array in arrays.items()}
        if arrays["features"].dtype.kind == "b":
            raise ValueError(
                "Features must be numbers; received dtype bool. Cast them."
            )
        _check_shapes({name: list(array.shape) for name, array in arrays.items()})
        if not isinstance(self.features, StoredArray):
            check_finite(arrays["features"], inputs=inputs)
        if self.sample_weight is not None:
            arrays = _without_weightless(arrays)
        arrays["ids"] = class_ids(arrays["labels"])
        self._set(arrays)

    @classmethod
    def of_batch(
        cls,
        features: npt.ArrayLike,
        labels: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
        inputs: object = None,
    ) -> Self | None:
        """`LabeledFeatures` of a batch, None if no example has positive weight."""
        arrays = [features, labels] + ([] if sample_weight is None else [sample_weight])
        lengths = {np.shape(array)[:1] for array in arrays}
        weightless = sample_weight is not None and not np.any(sample_weight)
        if len(lengths) == 1 and (lengths == {(0,)} or weightless):
            return None
        return cls(features, labels, sample_weight, inputs)

    def __repr__(self):
        shape, dtype = list(self.features.shape), self.features.dtype
        weighted = "" if self.sample_weight is None else ", weighted"
        return f"LabeledFeatures({dtype} {shape}{weighted})"

    def __iter__(self) -> Iterator[Any]:
        yield self.features
        yield self.labels

    def __len__(self) -> int:
        return self.ids.size

    def class_counts(self, num_classes: int) -> np.ndarray:
        """Examples per class, int64 `[C]`.

        Raises:
            ValueError: If a label is not a class below C, or one-hot rows are not C
                wide.
        """
        width = self.labels.shape[1] if self.labels.ndim == 2 else 1
        if width not in (1, num_classes) or self.ids.max() >= num_classes:
            class_ids(self.labels, num_classes)  # raises, and says which
        return np.bincount(self.ids, minlength=num_classes)

    def select(self, rows: npt.ArrayLike | slice) -> Self:
        """Selects examples by mask or row number; features on disk stay on disk.

        Args:
            rows: bool `[N]`, or integers `[M]`.

        Raises:
            ValueError: If none is selected, or `rows` has another shape.
        """
        rows = np.arange(len(self))[rows]
        if rows.ndim != 1 or not rows.size:
            raise ValueError(
                f"`rows` must select at least one example, by a mask [N] or row "
                f"numbers [M]; it selects shape {list(rows.shape)}."
            )
        return self._like({name: _take(getattr(self, name), rows) for name in _ARRAYS})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Concatenates `LabeledFeatures`; if all are on disk, they stay there."""
        if len({part.sample_weight is None for part in parts}) != 1:
            raise ValueError(
                f"Either all LabeledFeatures must have weights, or none; received "
                f"{list(parts)}."
            )
        if len(parts) == 1:
            return parts[0]
        return cls._like(
            {name: _join([getattr(part, name) for part in parts]) for name in _ARRAYS}
        )

    @classmethod
    def _like(cls, arrays):
        """Makes an instance of arrays that are known to be valid."""
        made = cls.__new__(cls)
        made._set(arrays)
        return made

    def _set(self, arrays):
        for name in _ARRAYS:
            object.__setattr__(self, name, arrays.get(name))


def _native(array):
    """Converts an array to native byte order, and floats to at most float64."""
    if isinstance(array, StoredArray):
        return array
    array = numbers_in(np.asarray(array))
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_shapes(shapes):
    lengths = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"Features [N, ...], labels and weights must have the same length, at "
            f"least 1; received shapes {shapes}."
        )
    if 0 in shapes["features"] or len(shapes["features"]) < 2:
        raise ValueError(
            f"Features must have shape [N, ...], with at least one number for each of "
            f"the N examples; received shape {shapes['features']}."
        )


def _take(array, rows):
    if array is None:
        return None
    return array.select(rows) if isinstance(array, StoredArray) else array[rows]


def _join(arrays):
    if arrays[0] is None:
        return None
    stored = all(isinstance(array, StoredArray) for array in arrays)
    return (StoredArray if stored else np).concatenate(arrays)


def _without_weightless(arrays):
    weight = arrays["sample_weight"]
    check_weights(weight, len(arrays["labels"]))
    check_any_weight(weight)
    if weight.dtype.kind in "biu":  # weights of pseudo-features are means
        arrays["sample_weight"] = weight.astype(np.float32)
    rows = np.flatnonzero(arrays["sample_weight"])
    if rows.size == len(arrays["labels"]):
        return arrays
    return {name: _take(array, rows) for name, array in arrays.items()}
