"""Rows of features in the order of their classes, and a rough center of each class."""

import itertools

import numpy as np

__all__ = ["class_borders", "rough_centers", "row_chunks", "sort_by_class"]

# Rows that enter one matrix product. Fewer are all memory traffic; with more, float32
# loses digits before the float64 sum collects them.
_CHUNK_ROWS = 4096


# Rows of a class that say roughly where it lies, to center all of them there.
_CENTER_ROWS = 256


def sort_by_class(ids, num_classes):
    """The rows class by class; of numbers this short NumPy's sort is one by digits."""
    short = np.uint16 if num_classes <= 2**16 else np.int64
    return np.argsort(ids.astype(short), kind="stable")


def rough_centers(features, order, ids, num_classes):
    """Near the mean of each class `[C, D]`, from rows all over the class.

    Of rows that are all the same it is that row, to the last bit, so that they have no
    scatter, not even that of the rounding of a mean.
    """
    center = np.zeros((num_classes, features.shape[1]), features.dtype)
    for start, stop in itertools.pairwise(class_borders(ids)):
        step = max(1, (stop - start) // _CENTER_ROWS)
        some = features.take(order[start:stop:step], axis=0)
        mean = some.mean(axis=0, dtype=np.float64)
        if features.dtype == np.float64:
            mean += (some - mean).mean(axis=0)
        center[ids[start]] = mean
    return center


def class_borders(ids):
    """Where the classes begin in sorted ids, and the end."""
    return [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), ids.size]


def row_chunks(ids, one_class):
    """Slices of the sorted rows, of one class each or not."""
    borders = class_borders(ids) if one_class else [0, ids.size]
    for start, stop in itertools.pairwise(borders):
        for first in range(start, stop, _CHUNK_ROWS):
            yield slice(first, min(first + _CHUNK_ROWS, stop))
