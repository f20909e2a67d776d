"""Features with the labels and weights that belong to them, valid by construction."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tf_pseudofeat.core.arguments import check_finite, check_weights
from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.core.stored import StoredArray

__all__ = ["LabeledFeatures"]

_ARRAYS = ("features", "labels", "sample_weight", "ids")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LabeledFeatures:
    """Features, labels and weights; unpacks to `features, labels`.

    Whoever holds one needs no further check: features are finite real numbers in native
    byte order, each has one label, and each weight is above 0. Examples of weight 0 are
    left out when it is made, so that they count nowhere.

    Args:
        features: `[N, ...]`, an array, or a `StoredArray` of features on disk, which
            were checked when they were written.
        labels: `[N]`, `[N, 1]` or one-hot `[N, C]`, in the form that the loss expects.
        sample_weight: `[N]`, finite and not negative, or None.
        inputs: what the features were computed from, arrays `[N, ...]` in any
            structure, to tell in an error which of the two is to blame.

    Attributes:
        features: `[N, ...]`.
        labels: as they came.
        sample_weight: `[N]`, or None.
        ids: class id of each example, int64 `[N]`.

    Raises:
        ValueError: Lengths differ or are 0; features are not real or not finite; labels
            are no class ids; a weight is negative or not finite, or all are 0.

    Example:

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
            raise ValueError("Features are numbers; received dtype bool. Cast them.")
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
        """The same of a batch, which may be of nothing that counts: then None."""
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
            ValueError: A label names no class below C, or one-hot rows are not C wide.
        """
        width = self.labels.shape[1] if self.labels.ndim == 2 else 1
        if width not in (1, num_classes) or self.ids.max() >= num_classes:
            class_ids(self.labels, num_classes)  # raises, and says which
        return np.bincount(self.ids, minlength=num_classes)

    def select(self, rows: npt.ArrayLike | slice) -> Self:
        """Some of the examples, by a mask or by number; what is on disk stays there.

        Args:
            rows: bool `[N]`, or whole numbers `[M]`.

        Raises:
            ValueError: There is none, or `rows` has another shape.
        """
        rows = np.arange(len(self))[rows]
        if rows.ndim != 1 or not rows.size:
            raise ValueError(
                f"`rows` selects one example or more, by a mask [N] or by numbers [M]; "
                f"received what selects shape {list(rows.shape)}."
            )
        return self._like({name: _take(getattr(self, name), rows) for name in _ARRAYS})

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Several `LabeledFeatures` as one; what is all on disk stays there."""
        if len({part.sample_weight is None for part in parts}) != 1:
            raise ValueError(
                f"Several LabeledFeatures are joined where all have weights, or none "
                f"has; received {list(parts)}."
            )
        if len(parts) == 1:
            return parts[0]
        return cls._like(
            {name: _join([getattr(part, name) for part in parts]) for name in _ARRAYS}
        )

    @classmethod
    def _like(cls, arrays):
        """One made of the parts of valid ones: there is nothing to check."""
        made = cls.__new__(cls)
        made._set(arrays)
        return made

    def _set(self, arrays):
        for name in _ARRAYS:
            object.__setattr__(self, name, arrays.get(name))


def _native(array):
    """The same numbers in the machine's byte order, none wider than float64."""
    if isinstance(array, StoredArray):
        return array
    array = np.asarray(array)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_shapes(shapes):
    lengths = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"Features [N, ...], labels and weights must have one length above 0; "
            f"received shapes {shapes}."
        )
    if 0 in shapes["features"] or len(shapes["features"]) < 2:
        raise ValueError(
            f"Features have shape [N, ...], at least one number for each of the N "
            f"examples; received shape {shapes['features']}."
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
    if weight.dtype.kind in "biu":  # those of pseudo-features are means
        arrays["sample_weight"] = weight.astype(np.float32)
    rows = np.flatnonzero(arrays["sample_weight"])
    if not rows.size:
        raise ValueError(
            f"All {len(arrays['labels'])} sample weights are 0, so there is no "
            f"example. Give some a weight above 0."
        )
    if rows.size == len(arrays["labels"]):
        return arrays
    return {name: _take(array, rows) for name, array in arrays.items()}
