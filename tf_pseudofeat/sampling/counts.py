"""The number of pseudo-features of each class, by imbalanced-learn's strategies."""

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from imblearn.utils import check_sampling_strategy

from tf_pseudofeat.core.labels import class_ids

__all__ = [
    "STRATEGIES",
    "check_several_classes",
    "check_strategy",
    "check_strategy_name",
    "class_counts",
    "minority_classes",
    "multiply_minority",
    "pseudo_counts",
    "small_classes",
]

# imbalanced-learn's names of strategies; an over-sampler does not take "majority".
STRATEGIES = ("auto", "minority", "not minority", "not majority", "all")


def class_counts(labels: npt.ArrayLike, num_classes: int | None = None) -> np.ndarray:
    """Counts the examples of each class.

    Args:
        labels: `[N]`, `[N, 1]` or one-hot `[N, C]`.
        num_classes: C; by default the highest class id plus one.

    Returns:
        counts: int64 `[C]`.
    """
    ids = class_ids(labels, num_classes)
    return np.bincount(ids, minlength=num_classes or 0)


def small_classes(counts, below=0.5):
    """Ids of the classes with fewer than `below` times the examples of the largest.

    There may be none. Classes without examples do not count.
    """
    _check_below(below)
    counts = np.asarray(counts)
    return np.flatnonzero((counts > 0) & (counts < below * counts.max())).tolist()


def minority_classes(counts, below=0.5):
    """Ids of the `small_classes`, else of the smallest class, or classes if tied.

    So there is always one. Classes without examples do not count.
    """
    counts = np.asarray(counts)
    if not counts.any():
        raise ValueError("No class has an example; labels are needed to count.")
    smallest = np.flatnonzero(counts == counts[counts > 0].min()).tolist()
    return small_classes(counts, below) or smallest


def multiply_minority(
    multiplier: float, below: float = 0.5
) -> Callable[[npt.ArrayLike], dict[int, int]]:
    """A sampling strategy: every minority class grows to `multiplier` times itself.

    Section 3.6 of Konno and Iwazume (2018) goes past balance, to 10, 20, 50 and 100
    times. The result is a callable as imbalanced-learn takes, so it serves this
    package and imbalanced-learn's own over-samplers alike.

    Args:
        multiplier: total over present size, at least 1.
        below: what counts as minority, as in `minority_classes`.

    Returns:
        strategy: callable, labels -> {class: target total}.

    Raises:
        ValueError: If an argument is out of range.

    Examples:
        >>> pseudo_counts([0] * 10 + [1] * 2, multiply_minority(20))
        {1: 38}
    """
    if not isinstance(multiplier, numbers.Real) or not 1 <= multiplier < np.inf:
        raise ValueError(
            f"`multiplier` is the minority's target size over its present size, a "
            f"finite number that must be at least 1; received {multiplier!r}."
        )
    _check_below(below)
    return _MultiplyMinority(multiplier, below)


@dataclasses.dataclass(frozen=True)
class _MultiplyMinority:
    """A callable with a readable `str` for reports."""

    multiplier: float
    below: float

    def __call__(self, labels):
        counts = class_counts(labels)
        return {
            class_id: round(self.multiplier * int(counts[class_id]))
            for class_id in minority_classes(counts, self.below)
        }

    def __str__(self):
        return f"multiply_minority({self.multiplier}, below={self.below})"


def pseudo_counts(
    labels: npt.ArrayLike,
    sampling_strategy: str | float | Mapping | Callable = "auto",
    sample_weight: npt.ArrayLike | None = None,
) -> dict[int, int]:
    """How many pseudo-features to add to each class (Step 4 of the paper).

    With sample weights, a named strategy balances the total weights of the classes
    instead of their counts: a pseudo-feature has the mean weight of its class, so
    classes that are already balanced by weights get none.

    Args:
        labels: `[N]`, `[N, 1]` or one-hot `[N, C]`.
        sampling_strategy: as in imbalanced-learn: `"auto"` or `"not majority"`
            (fill every class to the largest), `"minority"`, `"not minority"`,
            `"all"`, a float ratio (two classes), `{class: target total}`, or a
            callable that gives such a dict, like `multiply_minority(50)`.
        sample_weight: `[N]`, above 0, or None.

    Returns:
        counts: dict {class id: number to add}, without classes that get none.

    Raises:
        ValueError: If the strategy or a class is unknown, a total is below the present
            count, or the labels have a single class.
        TypeError: If the strategy is of another type.

    Examples:
        >>> pseudo_counts([0, 0, 0, 1], "auto")
        {1: 2}
    """
    ids = class_ids(labels)
    counts = np.bincount(ids)
    check_several_classes(counts, None)
    if callable(sampling_strategy):
        sampling_strategy = sampling_strategy(ids)
    _check_kind(sampling_strategy)
    if isinstance(sampling_strategy, dict):
        _check_totals(sampling_strategy, counts)
    if isinstance(sampling_strategy, numbers.Real) and np.count_nonzero(counts) == 2:
        return _to_ratio(sampling_strategy, counts)
    if isinstance(sampling_strategy, str) and sample_weight is not None:
        check_sampling_strategy(sampling_strategy, ids, "over-sampling")
        return _filled_up(ids, sampling_strategy, np.asarray(sample_weight))
    resolved = check_sampling_strategy(sampling_strategy, ids, "over-sampling")
    return {int(c): int(extra) for c, extra in sorted(resolved.items()) if extra}


def _filled_up(ids, strategy, sample_weight):
    """{class: number of mean weights up to the largest total weight}."""
    counts, masses = np.bincount(ids), np.bincount(ids, sample_weight)
    present = np.flatnonzero(counts)
    least, most = (present[f(masses[present])] for f in (np.argmin, np.argmax))
    chosen = {
        "minority": [least],
        "not minority": [c for c in present if c != least],
        "all": present,
    }.get(strategy, [c for c in present if c != most])
    extra = np.rint(counts * (masses[most] / np.where(counts, masses, 1) - 1))
    return {int(c): int(extra[c]) for c in chosen if extra[c] > 0}


def check_several_classes(counts, num_classes):
    """Raises ValueError if fewer than two classes have examples.

    Args:
        counts: examples per class `[K]`.
        num_classes: C of the model; None if unknown.
    """
    present = np.flatnonzero(counts)
    if present.size > 1:
        return
    of_how_many = "" if num_classes is None else f" of {num_classes}"
    if not present.size:
        raise ValueError(
            f"There is no example of any class{of_how_many}. Pass the labels of two "
            f"classes or more."
        )
    raise ValueError(
        f"All {int(counts[present[0]])} examples are of class {present[0]}, one class"
        f"{of_how_many}, so there is nothing to balance. Pass data with examples of "
        f"two classes or more."
    )


def check_strategy(sampling_strategy, num_classes):
    """Raises, before there are labels, if a strategy is invalid for any labels."""
    if callable(sampling_strategy):
        return
    _check_kind(sampling_strategy)
    if isinstance(sampling_strategy, str):
        pseudo_counts(np.arange(num_classes), sampling_strategy)
    if isinstance(sampling_strategy, dict):
        unknown = [c for c in sampling_strategy if c not in range(num_classes)]
        if unknown:
            raise ValueError(
                f"sampling_strategy names class {unknown[0]!r}; the model has classes "
                f"0 to {num_classes - 1}."
            )


def check_strategy_name(strategy, names=STRATEGIES):
    """Raises ValueError if a strategy is a string that is not one of `names`."""
    if isinstance(strategy, str) and strategy not in names:
        raise ValueError(
            f"`sampling_strategy` must be one of {', '.join(map(repr, names))}, a "
            f"ratio, totals {{class: number}}, or a function from labels to such "
            f"totals; received {strategy!r}. An over-sampler, such as SMOTE(), is "
            f"passed as `sampler`."
        )


def _check_kind(strategy):
    check_strategy_name(strategy)
    if isinstance(strategy, numbers.Real) and not 0 < strategy <= 1:
        raise ValueError(
            f"A ratio as `sampling_strategy` must be in (0, 1]; received "
            f"{strategy!r}. For more, pass totals {{class: number}}."
        )
    if not isinstance(strategy, str | dict | numbers.Real):
        raise TypeError(
            f"`sampling_strategy` must be a string such as 'auto', a ratio, totals "
            f"{{class: number}}, or a function from labels to such totals; received "
            f"{strategy!r}."
        )


def _to_ratio(ratio, counts):
    """The number of examples that brings two classes to a ratio.

    In floating point, 0.29 of 100 examples is below 29, so the ratio is increased by a
    rounding error.
    """
    largest, smallest = np.argmax(counts), np.flatnonzero(counts)
    smallest = smallest[smallest != largest][0]
    dtype = np.asarray(ratio).dtype
    rounding = 2 * float(np.finfo(dtype if dtype.kind == "f" else float).eps)
    total = math.floor(float(ratio) * int(counts[largest]) * (1 + rounding))
    extra = total - int(counts[smallest])
    if extra < 0:
        raise ValueError(
            f"sampling_strategy={ratio} asks for {total} examples of class {smallest} "
            f"beside the {counts[largest]} of class {largest}, and it already has "
            f"{counts[smallest]}. Pass a ratio from "
            f"{counts[smallest] / counts[largest]:.6g} to 1; to remove examples, pass "
            f"an under-sampler as `sampler`."
        )
    return {int(smallest): extra} if extra else {}


def _check_below(below):
    if not isinstance(below, numbers.Real) or not 0 < below <= 1:
        raise ValueError(f"`below` must be in (0, 1]; received {below!r}.")


def _check_totals(totals, counts):
    for class_id, total in totals.items():
        known = isinstance(class_id, int | np.integer) and 0 <= class_id < counts.size
        present = int(counts[class_id]) if known else 0
        if not present:
            raise ValueError(
                f"sampling_strategy names class {class_id!r}, which has no example; "
                f"the labels have classes {np.flatnonzero(counts).tolist()}."
            )
        whole = isinstance(total, numbers.Real) and total % 1 == 0
        if not whole or total < present:
            raise ValueError(
                f"sampling_strategy asks for {total!r} examples of class {class_id}, "
                f"which already has {present}. Totals are whole numbers that include "
                f"the real examples; to remove examples, pass an under-sampler as "
                f"`sampler`."
            )
