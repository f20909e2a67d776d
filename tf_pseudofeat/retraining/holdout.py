"""A stratified part of the examples, held out as validation data."""

import math

import numpy as np
from sklearn.model_selection import train_test_split

from tf_pseudofeat.sampling.counts import minority_classes

__all__ = ["hold_out"]


def hold_out(arrays, ids, fraction, seed, class_names):
    """Splits examples into those to train on and those to validate on.

    Args:
        arrays: list of arrays of N examples.
        ids: class ids `[N]`; classes without examples do not count.
        fraction: `validation_fraction`, between 0 and 1.
        seed: int.
        class_names: of the C classes, for error messages.

    Returns:
        training: list of arrays.
        validation: list of arrays.

    Raises:
        ValueError: If one of both parts would have no example of a class that the
            scores need: the only other class, or all rare ones.
    """
    counts = np.bincount(ids, minlength=len(class_names))
    problem = _too_few(counts, fraction, class_names)
    if not problem:
        rows = train_test_split(
            np.arange(ids.size), test_size=fraction, random_state=seed, stratify=ids
        )
        training, validation = (
            np.bincount(ids[r], minlength=counts.size) for r in rows
        )
        problem = _without_a_class(counts, training, "all", fraction, class_names)
        problem = problem or _without_a_class(
            counts, validation, "none", fraction, class_names
        )
    if problem:
        raise ValueError(
            f"`validation_fraction`={fraction:g} must leave examples to train on and "
            f"to validate on; {problem}. Pass another fraction, 0 for no validation, "
            f"or more data."
        )
    return tuple([array[part] for array in arrays] for part in rows)


def _too_few(counts, fraction, class_names):
    """Why scikit-learn cannot stratify, whose messages name other arguments; or ""."""
    present, size = np.flatnonzero(counts), int(counts.sum())
    rarest = present[counts[present].argmin()]
    if counts[rarest] < 2:
        return f"class {class_names[rarest]} has 1 example"
    held_out = math.ceil(fraction * size)
    if min(held_out, size - held_out) < present.size:
        return (
            f"{_percent(fraction)} of {size} examples do not fit {present.size} classes"
        )
    return ""


def _without_a_class(counts, part, how_many, fraction, class_names):
    """Why the scores of a part are not defined, or ""."""
    minority = minority_classes(counts)
    if part[minority].any() and np.count_nonzero(part) > 1:
        return ""
    missing = min(np.flatnonzero(part == 0), key=lambda c: counts[c] == 0)
    return (
        f"class {class_names[missing]} has {counts[missing]} examples, of which "
        f"{_percent(fraction)} are {how_many}"
    )


def _percent(fraction):
    return f"{100 * fraction:g} %"
