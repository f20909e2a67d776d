"""Labels in the forms that people train with, and back again.

Sparse `[N]`, sparse `[N, 1]` and one-hot `[N, C]` labels all name one class per
example. Everything in this package counts and samples by class id; what goes back
into `fit` has the form that came in, because the loss of the model expects it.
"""

import numpy as np

from tf_pseudofeat.arguments import whole_number

__all__ = ["class_ids", "labels_like"]


def class_ids(labels, num_classes=None):
    """The class id of each example, whichever form the labels have.

    Args:
        labels: `[N]` or `[N, 1]` whole numbers from 0, of any numeric dtype, or
            `[N, C]` one-hot rows.
        num_classes: C, if known: ids must lie below it, one-hot rows be C wide.

    Returns:
        ids: int64 `[N]`.

    Raises:
        ValueError: The labels have another form, or name a class out of range.

    Example:

    >>> class_ids([[0.0, 1.0], [1.0, 0.0]])
    array([1, 0])
    """
    if num_classes is not None:
        num_classes = whole_number("num_classes", num_classes)
    labels = np.asarray(labels)
    if labels.dtype.kind not in "biuf" and labels.dtype.name != "bfloat16":
        raise ValueError(
            f"Labels must be numbers (class ids or one-hot rows); received dtype "
            f"{labels.dtype}. Map class names to ids from 0 first."
        )
    if labels.ndim == 2 and labels.shape[1] > 1:
        return _ids_of_one_hot(labels, num_classes)
    if labels.ndim == 2:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(
            f"Labels must have shape [N], [N, 1] or one-hot [N, C]; received shape "
            f"{labels.shape}. One label per example is needed."
        )
    _check_ids(labels, num_classes)
    return labels.astype(np.int64)


def labels_like(ids, labels, num_classes):
    """Class ids `[M]` in the form and dtype of `labels`: the inverse of `class_ids`."""
    ids, labels = np.asarray(ids), np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return np.eye(num_classes, dtype=labels.dtype)[ids]  # [M, C]
    return ids.astype(labels.dtype).reshape((-1,) + (1,) * (labels.ndim - 1))


def _ids_of_one_hot(labels, num_classes):
    if num_classes is not None and labels.shape[1] != num_classes:
        raise ValueError(
            f"One-hot labels are {labels.shape[1]} wide, but there are {num_classes} "
            f"classes. Encode the labels with one column per class."
        )
    hot = labels == 1
    wrong = np.flatnonzero((hot.sum(axis=1) != 1) | ((labels != 0) & ~hot).any(axis=1))
    if wrong.size:
        raise ValueError(
            f"Labels of shape {labels.shape} must be one-hot, a single 1 in each row; "
            f"row {wrong[0]} is {labels[wrong[0]].tolist()} ({wrong.size} such rows). "
            f"Soft or multiple labels have no single class to sample; of predictions "
            f"take the argmax(axis=-1)."
        )
    return hot.argmax(axis=1)


def _check_ids(labels, num_classes):
    highest = np.iinfo(np.int64).max if num_classes is None else num_classes - 1
    values = labels.astype(np.float64)  # float16 cannot be compared with `highest`
    wrong = (values < 0) | (values > highest) | (values != np.floor(values))
    wrong |= ~np.isfinite(values)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        allowed = "0, 1, 2, ..." if num_classes is None else f"0 to {num_classes - 1}"
        raise ValueError(
            f"Labels must be class ids {allowed}; example {first} has label "
            f"{labels[first]} ({int(wrong.sum())} such examples of {labels.size}). "
            f"Renumber the classes from 0, or give the model more outputs."
        )
