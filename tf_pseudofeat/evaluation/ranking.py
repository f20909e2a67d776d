"""Average precision and ROC AUC of a class against the rest, from a single sort.

Equal to scikit-learn's, which sorts for each score, and checks its inputs at a multiple
of the cost: standard errors take both scores of every class twenty times.
"""

import numpy as np

__all__ = ["rank_class"]


def rank_class(odds, is_class, weight):
    """Computes the average precision and the ROC AUC of a class.

    Args:
        odds: any increasing function of the probability of the class, `[N]`.
        is_class: whether each example is of the class, bool `[N]`, with both values.
        weight: positive weights, `[N]`.

    Returns:
        average_precision: the mean precision at the examples of the class.
        roc_auc: the probability that an example of the class has higher odds than
            another one; ties count half.
    """
    order = np.argsort(-odds, kind="stable")
    odds, is_class, weight = odds[order], is_class[order], weight[order]
    last = np.flatnonzero(np.append(odds[1:] != odds[:-1], True))  # of equal odds
    hits = np.cumsum(weight * is_class)[last]
    misses = np.cumsum(weight * ~is_class)[last]
    new_hits, new_misses = np.diff(hits, prepend=0), np.diff(misses, prepend=0)
    average_precision = new_hits @ (hits / (hits + misses)) / hits[-1]
    roc_auc = new_misses @ (hits - new_hits / 2) / (hits[-1] * misses[-1])
    return average_precision, roc_auc
