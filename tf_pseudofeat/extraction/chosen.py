"""Chooses a maximum number of examples of each class by their labels."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.finite import check_weights
from tf_pseudofeat.core.labels import class_ids

__all__ = [
    "Chunk",
    "ClassTotals",
    "choose_rows",
    "chosen_chunks",
    "num_rows",
    "take_rows",
    "whole_chunks",
]


@dataclasses.dataclass
class Chunk:
    """Inputs for the trunk with their labels and weights.

    Attributes:
        name: position in the data for error messages, such as "Batch 3".
        x: inputs in the structure that the trunk takes.
        labels: array of B labels, in the form of the input.
        sample_weight: `[B]`, or None.
    """

    name: str
    x: object
    labels: np.ndarray
    sample_weight: np.ndarray | None


class ClassTotals:
    """Counts and total weights of the examples of each class.

    Args:
        counts: initial counts `[K]`, or None.

    Attributes:
        counts: number of examples, int64 `[K]`, where K is the highest class id plus
            one.
        mass: total weights, float64 `[K]`; equal to the counts without weights.
    """

    def __init__(self, counts=None):
        self.counts = np.zeros(0, np.int64) if counts is None else np.array(counts)
        self.mass = self.counts.astype(np.float64)

    def add(self, ids, sample_weight=None):
        """Adds examples with class ids `[B]`, except those of weight 0."""
        if sample_weight is not None:
            ids, sample_weight = (
                ids[sample_weight > 0],
                sample_weight[sample_weight > 0],
            )
        size = max(self.counts.size, int(ids.max(initial=-1)) + 1)
        self.counts = np.bincount(ids, minlength=size) + _padded(self.counts, size)
        self.mass = np.bincount(ids, sample_weight, size) + _padded(self.mass, size)

    def of(self, num_classes):
        """Returns `(counts, mass)` of C classes, each `[C]`."""
        return _padded(self.counts, num_classes), _padded(self.mass, num_classes)


def choose_rows(ids, per_class, rng):
    """At most `per_class` examples of each class, drawn at random.

    Args:
        ids: class ids `[N]`.
        per_class: maximum number.
        rng: NumPy generator.

    Returns:
        rows: `[M]`, in ascending order.
    """
    order = rng.permutation(ids.size)
    return np.sort(order[_rank_in_class(ids[order]) < per_class])


def whole_chunks(batches, totals):
    """Yields each batch as a `Chunk`, and counts it."""
    for number, (x, labels, weight) in enumerate(batches):
        name = f"Batch {number}, counted from 0"
        totals.add(*_checked(name, x, labels, weight))
        yield Chunk(name, x, labels, weight)


def chosen_chunks(batches, totals, per_class):
    """Yields the first `per_class` examples of each class, in batches of equal size.

    All batches are read and counted; at most one batch of examples is held.

    Args:
        batches: yields `(x, labels, sample_weight or None)`; x may hold tensors.
        totals: `ClassTotals` to update.
        per_class: maximum number.
    """
    taken = np.zeros(0, np.int64)  # [K]
    parts, size = [], None
    for number, (x, labels, weight) in enumerate(batches):
        name = f"Batch {number}, counted from 0"
        ids, weight = _checked(name, x, labels, weight)
        totals.add(ids, weight)
        size = size or max(1, len(ids))
        there = np.arange(ids.size) if weight is None else np.flatnonzero(weight)
        taken = _padded(taken, totals.counts.size)
        room = _rank_in_class(ids[there]) + taken[ids[there]] < per_class
        rows = there[room]
        if not rows.size:
            continue
        taken = taken + np.bincount(ids[rows], minlength=taken.size)
        chosen = None if weight is None else weight[rows]
        part = Chunk(name, take_rows(x, rows), labels[rows], chosen)
        if parts and _shapes(parts[0].x) != _shapes(part.x):
            yield _joined(parts)
            parts = []
        parts.append(part)
        while sum(len(part.labels) for part in parts) >= size:
            whole = _joined(parts)
            yield _part(whole, slice(0, size))
            rest = _part(whole, slice(size, None))
            parts = [rest] if len(rest.labels) else []
    if parts:
        yield _joined(parts)


def _checked(name, x, labels, weight):
    """Class ids and weights of a batch, checked to match the inputs."""
    lengths = num_rows(x) | {len(labels)}
    if len(lengths) > 1:
        raise ValueError(
            f"{name}: Inputs and labels must have the same length; received lengths "
            f"{sorted(lengths)}. Each example needs one label."
        )
    try:
        ids = class_ids(labels) if len(labels) else np.zeros(0, np.int64)
        if weight is not None:
            check_weights(weight, len(ids))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return ids, weight


def _rank_in_class(ids):
    """The number of earlier examples of the same class, for each example, `[N]`."""
    order = np.argsort(ids, kind="stable")
    starts = np.searchsorted(ids[order], ids[order])
    rank = np.empty(ids.size, np.int64)
    rank[order] = np.arange(ids.size) - starts
    return rank


def _padded(array, size):
    return np.pad(array, (0, max(0, size - array.size)))


# Rows of inputs, which may be tensors of any kind.


def _part(chunk, rows):
    weight = chunk.sample_weight
    count = len(chunk.labels)
    places = np.arange(count)[rows]
    return Chunk(
        chunk.name,
        take_rows(chunk.x, places),
        chunk.labels[rows],
        None if weight is None else weight[rows],
    )


def _joined(parts):
    if len(parts) == 1:
        return parts[0]
    weight = None
    if parts[0].sample_weight is not None:
        weight = np.concatenate([part.sample_weight for part in parts])
    return Chunk(
        f"{parts[0].name}, or one up to {parts[-1].name.partition(',')[0].lower()}",
        keras.tree.map_structure(
            lambda *leaves: _join(leaves), *(part.x for part in parts)
        ),
        np.concatenate([part.labels for part in parts]),
        weight,
    )


def num_rows(x):
    """The set of lengths of a batch's inputs, which has one element if they agree."""
    return {
        int(leaf.shape[0]) if hasattr(leaf, "shape") else len(leaf)
        for leaf in keras.tree.flatten(x)
    }


def _shapes(x):
    """The shapes of inputs without the number of rows."""
    return [tuple(leaf.shape[1:]) for leaf in keras.tree.flatten(x)]


def take_rows(x, rows):
    """Selects rows of a batch of inputs, arrays or tensors in any structure."""
    return keras.tree.map_structure(lambda leaf: _take_leaf(leaf, rows), x)


def _take_leaf(leaf, rows):
    if isinstance(leaf, tf.SparseTensor):
        rest = leaf.dense_shape[1:]
        zeros = tf.zeros_like(rest)
        slices = [
            tf.sparse.slice(
                leaf, tf.concat([[row], zeros], 0), tf.concat([[1], rest], 0)
            )
            for row in rows.tolist()
        ]
        return (
            tf.sparse.concat(0, slices)
            if slices
            else tf.sparse.slice(
                leaf, tf.zeros_like(leaf.dense_shape), tf.concat([[0], rest], 0)
            )
        )
    if tf.is_tensor(leaf) or isinstance(leaf, tf.RaggedTensor):
        return tf.gather(leaf, rows)
    return np.asarray(leaf)[rows]


def _join(leaves):
    if isinstance(leaves[0], tf.SparseTensor):
        return tf.sparse.concat(0, list(leaves))
    if tf.is_tensor(leaves[0]) or isinstance(leaves[0], tf.RaggedTensor):
        return tf.concat(leaves, axis=0)
    return np.concatenate(leaves)
