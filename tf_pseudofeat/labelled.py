"""Features with the labels that belong to them."""

import dataclasses

import numpy as np

__all__ = ["LabelledFeatures"]


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledFeatures:
    """Features with what belongs to them; unpacks to `features, labels`.

    Attributes:
        features: `[N, ...]`, in the dtype that the trunk computes; an array, or a
            `StoredArray` of those that lie on disk.
        labels: `[N]`, `[N, 1]` or one-hot `[N, C]`, as they came.
        sample_weight: `[N]`, or None.
    """

    features: np.ndarray
    labels: np.ndarray
    sample_weight: np.ndarray | None = None

    def __iter__(self):
        yield self.features
        yield self.labels
