"""Conversion of labels to class ids and back.

Sparse `[N]`, sparse `[N, 1]` and one-hot `[N, C]` labels all name one class per
example. This package counts and samples by class id; labels that are passed to `fit`
keep the form of the input, which the loss of the model expects.
"""

import collections.abc
import numbers

import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.validation import whole_number

__all__ = [
    "check_class_names",
    "class_ids",
    "ids_of_names",
    "labels_like",
    "numbers_in",
]


def class_ids(labels, num_classes=None):
    """Returns the class id of each example.

    Args:
        labels: `[N]` or `[N, 1]` whole numbers from 0, of any numeric dtype, or
            `[N, C]` one-hot rows.
        num_classes: C, if known: ids must be less than C, one-hot rows C wide.

    Returns:
        ids: int64 `[N]`.

    Raises:
        ValueError: If the labels have another form, or a class id is out of range.

    Examples:
        >>> class_ids([[0.0, 1.0], [1.0, 0.0]])
        array([1, 0])
    """
    if num_classes is not None:
        num_classes = whole_number("num_classes", num_classes)
    labels = numbers_in(np.asarray(labels))
    if labels.dtype.kind not in "biuf" and labels.dtype.name != "bfloat16":
        raise ValueError(
            f"Labels must be numbers (class ids or one-hot rows); received dtype "
            f"{labels.dtype}{_first_of_objects(labels)}. Map class names to ids from "
            f"0 first, or pass `class_names` to a function that takes them."
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


def numbers_in(labels):
    """Converts an array of objects that are all numbers to a numeric dtype.

    Labels of a data frame with a missing value, or of mixed columns, are such objects.
    Other arrays are returned unchanged.
    """
    if labels.dtype.kind != "O":
        return labels
    try:
        converted = np.asarray(labels.tolist())
    except ValueError:  # lists of different lengths
        return labels
    return converted if converted.dtype.kind in "biuf" else labels


def labels_like(ids, labels, num_classes):
    """Converts class ids `[M]` to the form and dtype of `labels`."""
    ids, labels = np.asarray(ids), np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return np.eye(num_classes, dtype=labels.dtype)[ids]  # [M, C]
    return ids.astype(labels.dtype).reshape((-1,) + (1,) * (labels.ndim - 1))


def check_class_names(class_names, num_classes=None):
    """Returns the class names as a tuple in the order of the class ids.

    Args:
        class_names: distinct strings, one for each class, in order; or a mapping from
            the ids 0 to C - 1 to names.
        num_classes: C, if known.

    Raises:
        TypeError: If the names are not ordered, as in a set, or are not strings.
        ValueError: If names repeat, one is empty or has several lines, or there are not
            C.
    """
    if isinstance(class_names, collections.abc.Mapping):
        if sorted(class_names, key=str) != sorted(range(len(class_names)), key=str):
            raise ValueError(
                f"`class_names` must map the class ids 0 to C - 1 to names; received "
                f"the keys {list(class_names)!r:.200}."
            )
        class_names = [class_names[place] for place in range(len(class_names))]
    if isinstance(class_names, str | bytes | collections.abc.Set):
        raise TypeError(
            f"`class_names` must be a list of strings in the order of the class ids; "
            f"received the {type(class_names).__name__} {class_names!r:.200}."
        )
    names = list(class_names)
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TypeError(f"`class_names` must be strings; received {wrong[0]!r:.200}.")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`class_names` has {twice!r} twice; names must be distinct.")
    broken = [name for name in names if len(name.splitlines()) != 1]
    if broken:
        raise ValueError(
            f"`class_names` must have one line each; received {broken[0]!r:.200}."
        )
    if num_classes is not None and len(names) != num_classes:
        raise ValueError(
            f"`class_names` has {len(names)} names for {num_classes} classes. Pass one "
            f"for each, in the order of the labels."
        )
    return tuple(str(name) for name in names)


def ids_of_names(labels, class_names):
    """Converts labels that are class names to class ids; keeps other labels.

    Args:
        labels: strings `[N]` or `[N, 1]`, an array or a symbolic tensor.
        class_names: the names, in the order of the ids, see `check_class_names`.

    Raises:
        ValueError: If an array holds another name. A symbolic tensor raises
            TensorFlow's InvalidArgumentError when it is read.
    """
    if tf.is_tensor(labels):
        if labels.dtype != tf.string:
            return labels
        same = labels[..., tf.newaxis] == tf.constant(class_names)
        known = tf.reduce_all(tf.reduce_any(same, axis=-1))
        message = f"A label is not among the class names {class_names}."
        with tf.control_dependencies([tf.debugging.Assert(known, [message, labels])]):
            return tf.argmax(same, axis=-1)
    array = np.asarray(labels)
    is_text = array.dtype.kind in "UST"
    if array.dtype.kind == "O" and array.size:
        is_text = isinstance(array.flat[0], str | bytes)
    if not is_text:
        return labels
    names = array.ravel().tolist()
    names = [name.decode() if isinstance(name, bytes) else name for name in names]
    places = {name: place for place, name in enumerate(class_names)}
    unknown = [name for name in names if name not in places]
    if unknown:
        raise ValueError(
            f"The label {unknown[0]!r} is not among the class names "
            f"{list(class_names)}."
        )
    ids = [places[name] for name in names]
    return np.array(ids, np.int64).reshape(array.shape)


def _first_of_objects(labels):
    """Which object is no number, for an error message; "" for another dtype."""
    if labels.dtype.kind != "O":
        return ""
    for place, label in enumerate(labels.ravel().tolist()):
        if not isinstance(label, numbers.Real):
            return f", and label {place} is {label!r:.50}"
    return ""


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
            f"{_advice(values[wrong])}"
        )


def _advice(wrong):
    if not np.isfinite(wrong).all() or (wrong != np.floor(wrong)).any():
        return (
            "Labels that are not whole numbers are not class ids: regression targets "
            "have no classes."
        )
    if (wrong == -1).all():
        return (
            "Leave out examples without a class, such as those that `ignore_class` of "
            "a loss skips, or give them weight 0."
        )
    return "Renumber the classes from 0, or give the model more outputs."
