"""Count, mean and scatter of every class, in one pass, in pieces that merge.

The sufficient statistics of a Gaussian per class: all that Step 3 of Konno and
Iwazume (2018) needs to know of the features.
"""

import dataclasses
import os

import numpy as np

from tf_pseudofeat.labels import class_ids

__all__ = ["ClassMoments", "merge", "moments_of", "moments_of_batches", "no_moments"]

# Rows that enter one matrix product. Fewer are all memory traffic; with more, float32
# loses digits before the float64 sum collects them.
_CHUNK_ROWS = 4096
# Rows of a stream that are collected before the classes are told apart.
_BUFFER_ROWS = 4 * _CHUNK_ROWS


@dataclasses.dataclass(frozen=True, eq=False)
class ClassMoments:
    """Statistics of C classes of D features; immutable, float64.

    Attributes:
        count: examples per class `[C]`.
        mean: class means `[C, D]`, zero for an empty class.
        scatter: sums of products of deviations from the class mean: `[C, D, D]` if
            `kind` is "full", pooled over the classes `[D, D]` if "tied", squares
            alone `[C, D]` if "diag".
        kind: "full", "tied" or "diag".
    """

    count: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray
    kind: str = "full"

    @property
    def num_classes(self):
        """C."""
        return self.mean.shape[0]

    @property
    def feature_size(self):
        """D."""
        return self.mean.shape[1]


def no_moments(num_classes, feature_size, kind="full"):
    """The moments of no example at all: where every sum starts.

    Raises:
        ValueError: `kind` is unknown, or the statistics cannot fit in memory.
    """
    shapes = {
        "full": (num_classes, feature_size, feature_size),
        "tied": (feature_size, feature_size),
        "diag": (num_classes, feature_size),
    }
    if kind not in shapes:
        raise ValueError(f"`kind` must be one of {sorted(shapes)}; received {kind!r}.")
    _check_memory(shapes[kind])
    return ClassMoments(
        count=np.zeros(num_classes),
        mean=np.zeros((num_classes, feature_size)),
        scatter=np.zeros(shapes[kind]),
        kind=kind,
    )


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused, below
def moments_of(features, labels, num_classes, kind="full"):
    """The moments of features in memory.

        mean_c    = 1 / n_c sum_i x_i                        over the i of class c
        scatter_c = sum_i (x_i - mean_c)(x_i - mean_c)^T     over the i of class c

    Rows are centred before they are multiplied, in the precision they come in (at
    least float32); all sums are float64.

    Args:
        features: floats `[N, D]`, or a feature map `[N, ...]`, flattened to D.
        labels: `[N]`, `[N, 1]` or one-hot `[N, C]`.
        num_classes: C.
        kind: "full", "tied" or "diag", see `ClassMoments`.

    Returns:
        moments: `ClassMoments`.

    Raises:
        ValueError: Lengths differ, a label is out of range, or a feature is NaN or
            infinite.
    """
    features, ids = _check_rows(features, labels, num_classes)
    moments = no_moments(num_classes, features.shape[1], kind)
    for class_id, rows in _rows_by_class(ids):
        mean = features[rows].mean(axis=0, dtype=np.float64)  # [D]
        if features.dtype == np.float64:
            # Rows that are all the same are their mean to the last bit, and so have no
            # scatter, not even that of the rounding of a mean.
            mean += (features[rows] - mean).mean(axis=0)
        _check_finite(mean, features, rows, class_id)
        moments.count[class_id] = rows.size
        moments.mean[class_id] = mean
        target = moments.scatter if kind == "tied" else moments.scatter[class_id]
        target += _scatter(features, rows, mean, kind)
    if not np.isfinite(moments.scatter).all():
        raise ValueError(
            f"Products of features overflow {features.dtype}: the largest magnitude "
            f"is {np.abs(features).max():.3g}. Scale the features down, or pass them "
            f"as float64."
        )
    return moments


def moments_of_batches(batches, num_classes, kind="full"):
    """The moments of a stream, in one pass and bounded memory.

    Args:
        batches: a `tf.data.Dataset` or any iterable of `(features, labels)` batches;
            further elements of a batch, like sample weights, are not looked at.
        num_classes: C.
        kind: "full", "tied" or "diag", see `ClassMoments`.

    Returns:
        moments: `ClassMoments`.

    Raises:
        ValueError: As `moments_of`, or the stream is empty.
    """
    total = None
    for features, labels in _buffered(batches):
        part = moments_of(features, labels, num_classes, kind)
        total = part if total is None else merge(total, part)
    if total is None:
        raise ValueError("The stream of features is empty; nothing can be estimated.")
    return total


def merge(first, second):
    """The moments of two disjoint sets of examples, from the moments of each.

        delta   = mean_b - mean_a
        scatter = scatter_a + scatter_b + n_a n_b / (n_a + n_b) delta delta^T

    Exact in any order and any grouping, up to float64 rounding.

    Args:
        first: `ClassMoments`.
        second: `ClassMoments` of the same classes, features and kind.

    Returns:
        merged: a new `ClassMoments`.

    References:
        Chan, Golub and LeVeque (1979), "Updating Formulae and a Pairwise Algorithm
        for Computing Sample Variances".
    """
    _check_same(first, second)
    count = first.count + second.count
    share = second.count / np.maximum(count, 1)
    delta = second.mean - first.mean  # [C, D]
    weight = first.count * share  # [C], n_a n_b / (n_a + n_b)
    return ClassMoments(
        count=count,
        mean=first.mean + share[:, None] * delta,
        scatter=first.scatter + second.scatter + _between(weight, delta, first.kind),
        kind=first.kind,
    )


def _between(weight, delta, kind):
    weighted = weight[:, None] * delta  # [C, D]
    if kind == "diag":
        return weighted * delta
    if kind == "tied":
        return weighted.T @ delta
    return weighted[:, :, None] * delta[:, None, :]


def _scatter(features, rows, mean, kind):
    centre = mean.astype(features.dtype)
    rest = np.zeros_like(mean)  # what rounding the centre left in the rows
    total = 0.0
    for start in range(0, rows.size, _CHUNK_ROWS):
        centred = features[rows[start : start + _CHUNK_ROWS]] - centre
        rest += centred.sum(axis=0, dtype=np.float64)
        if kind == "diag":
            total += np.square(centred).sum(axis=0, dtype=np.float64)
        else:
            total += (centred.T @ centred).astype(np.float64)
    excess = rest * rest if kind == "diag" else np.outer(rest, rest)
    return total - excess / rows.size


def _rows_by_class(ids):
    order = np.argsort(ids, kind="stable")
    classes, starts = np.unique(ids[order], return_index=True)
    return zip(classes, np.split(order, starts[1:]), strict=True)


def _buffered(batches):
    pending, size = [], 0
    for features, labels, *_ in batches:
        pending.append((np.asarray(features), np.asarray(labels)))
        size += len(pending[-1][0])
        if size >= _BUFFER_ROWS:
            yield tuple(map(np.concatenate, zip(*pending, strict=True)))
            pending, size = [], 0
    if pending:
        yield tuple(map(np.concatenate, zip(*pending, strict=True)))


def _check_rows(features, labels, num_classes):
    features = np.asarray(features)
    ids = class_ids(labels, num_classes)
    if features.ndim < 2 or features.shape[0] != ids.size or not ids.size:
        raise ValueError(
            f"Features must be [N, D] or maps [N, ...] with a label for each of the N "
            f"rows; received features of shape {features.shape} and {ids.size} labels."
        )
    if features.dtype not in (np.float32, np.float64):
        features = features.astype(np.float32)  # float16, bfloat16, whole numbers
    return features.reshape(ids.size, -1), ids


def _check_finite(mean, features, rows, class_id):
    if np.isfinite(mean).all():  # one NaN or infinity anywhere would show in the mean
        return
    wrong = rows[~np.isfinite(features[rows]).all(axis=1)]
    if not wrong.size:
        return  # the sum itself overflowed; so does the scatter, which is checked
    raise ValueError(
        f"Class {class_id} has {wrong.size} of {rows.size} examples with NaN or "
        f"infinite features, the first in row {wrong[0]}. Clean the inputs, or look "
        f"for an overflow (float16?) before the split layer."
    )


def _check_same(first, second):
    mine = (first.kind, first.mean.shape)
    theirs = (second.kind, second.mean.shape)
    if mine != theirs:
        raise ValueError(
            f"Only moments of the same kind, classes and features merge; received "
            f"{mine[0]} [C, D] = {list(mine[1])} and "
            f"{theirs[0]} [C, D] = {list(theirs[1])}."
        )


def _check_memory(shape):
    needed = 8 * int(np.prod(shape, dtype=np.int64))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory // 2:
        raise ValueError(
            f"Covariances of shape {list(shape)} need {needed / 2**30:.1f} GiB in "
            f"float64; this machine has {memory / 2**30:.1f} GiB. Pass "
            f"covariance_type='tied' or 'diag', or split where features are smaller."
        )
