"""Sorts rows of features by class, and finds a rough center of each class."""

import itertools
import math

import numpy as np

__all__ = ["class_borders", "rough_centers", "row_chunks", "sort_by_class"]

# Most rows per matrix product. Fewer are bound by memory bandwidth; more lose digits in
# float32 before they are added in float64.
_CHUNK_ROWS = 4096


# Rows of a class from which its rough center is computed.
_CENTER_ROWS = 256


def sort_by_class(ids, num_classes):
    """Sorts rows by class; for short integers NumPy uses a radix sort."""
    short = np.uint16 if num_classes <= 2**16 else np.int64
    return np.argsort(ids.astype(short), kind="stable")


def rough_centers(features, order, ids, num_classes):
    """Rough means of the classes `[C, D]`, from evenly spaced rows.

    If all rows of a class are the same, its center is that row, bit for bit, so the
    scatter is exactly zero.
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
    """The start of each class in sorted ids, and the end."""
    return [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), ids.size]


def row_chunks(ids, one_class):
    """Returns slices of the sorted rows, each within one class if `one_class`.

    Those of a class are equally long, and an even number if they are several, so that
    workers who share them end together.
    """
    borders = class_borders(ids) if one_class else [0, ids.size]
    chunks = []
    for start, stop in itertools.pairwise(borders):
        pairs = math.ceil((stop - start) / (2 * _CHUNK_ROWS))
        number = 2 * pairs if stop - start > _CHUNK_ROWS else 1
        step = math.ceil((stop - start) / number)
        chunks += [slice(k, min(k + step, stop)) for k in range(start, stop, step)]
    return chunks
