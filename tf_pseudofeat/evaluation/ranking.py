"""Average precision and ROC-AUC of one class, from one sort."""

import numpy as np
import numpy.typing as npt

__all__ = ["ranking_of"]


def ranking_of(
    positive: npt.ArrayLike, values: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> tuple[float, float]:
    """How well values rank the examples of a class before the others.

    As scikit-learn's `average_precision_score` and `roc_auc_score`, which check and
    sort their arguments for each class and score anew: here a score of a thousand
    examples takes a tenth of a millisecond. With the examples in descending order of
    their values, and the sums w over the first k of them, ties together,

        precision_k = w_positive / w, recall_k = w_positive / w_positive of all
        average precision = sum_k (recall_k - recall_(k-1)) * precision_k
        ROC-AUC = sum_k (false_k - false_(k-1)) * (recall_k + recall_(k-1)) / 2

    Args:
        positive: whether each example is of the class, `[N]`; some are, some are not.
        values: finite, higher for the class, `[N]`.
        weight: positive, `[N]`; None for 1.

    Returns:
        average_precision: from 0 to 1.
        roc_auc: from 0 to 1.

    Raises:
        ValueError: If a value is not finite.
    """
    values = np.asarray(values)
    if not np.isfinite(values).all():
        raise ValueError("Values to rank contain NaN or infinity; expected numbers.")
    order = np.argsort(-values, kind="stable")
    values, positive = values[order], np.asarray(positive, bool)[order]
    weight = np.ones(len(values)) if weight is None else np.asarray(weight)[order]
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # of each tie
    right = np.cumsum(weight * positive, dtype=np.float64)[last]
    wrong = np.cumsum(weight * ~positive, dtype=np.float64)[last]
    recall, false = right / right[-1], wrong / wrong[-1]
    steps = np.diff(recall, prepend=0.0)
    precision = right / (right + wrong)
    area = np.diff(false, prepend=0.0) @ (recall - steps / 2)
    return float(steps @ precision), float(area)
