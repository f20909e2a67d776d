"""Describes scores and predictions in sentences."""

import numpy as np

from tf_pseudofeat.evaluation.comparison import (
    LOWER_IS_BETTER,
    SCORE_NAMES,
    beyond_chance,
)
from tf_pseudofeat.evaluation.probability_scores import RANKING_SCORES

__all__ = [
    "class_label",
    "describe_classes",
    "describe_few",
    "describe_losses",
    "describe_prior",
    "describe_ranking",
    "format_score",
    "join_words",
    "losses",
    "score_label",
]

_LABELS = {
    "macro_f1": "macro F1",
    "f1": "F1 of the minority",
    "average_precision": "average precision of the minority",
    "roc_auc": "ROC-AUC",
    "brier_score": "Brier score",
}
_NOT_PERCENT = ("log_loss", "brier_score")
_MOST_CLASSES = 4  # named in one sentence
_FEWEST = 10  # validation examples for a reliable score of a class
# About two standard errors, since a sentence may name any of many scores.
_CONFIDENCE = 0.975


def score_label(name):
    """The name of a score in text: "balanced accuracy", "ROC-AUC", "log loss"."""
    return _LABELS.get(name, name.replace("_", " "))


def class_label(place, class_names):
    """The name of a class in text: its quoted name, or its id."""
    return f"class {place}" if class_names is None else repr(class_names[place])


def describe_classes(places, class_names=None):
    """Lists classes in text, at most four of them by name."""
    named = [class_label(place, class_names) for place in places[:_MOST_CLASSES]]
    more = len(places) - len(named)
    return join_words(named + ([f"{more} more"] if more else []))


def format_score(value, name="accuracy"):
    """Formats a score, in percent if it is a fraction; "-" if it is None or NaN.

    Custom scores are not converted to percent.
    """
    if value is None or value != value:
        return "-"
    if name in _NOT_PERCENT:
        return f"{value:.3f}"
    return f"{100 * value:.1f}" if name in SCORE_NAMES else f"{value:.4g}"


def join_words(items):
    """Joins items: "a", "a and b", "a, b and c"."""
    *most, last = items
    return f"{', '.join(most)} and {last}" if most else last


def describe_losses(before, after, error, class_names=None):
    """Describes what got significantly worse.

    Args:
        before: scores, see `score_predictions`.
        after: scores of the other classifier.
        error: standard error of each difference.
        class_names: of the C classes, or None.

    Returns:
        sentence: "" if the errors are unknown.
    """
    if not error:
        return ""
    worse = losses(before, after, error, class_names)
    if not worse:
        return "Nothing is worse by more than chance."
    return f"Worse by more than chance: {'; '.join(worse)}."


def losses(before, after, error, class_names=None):
    """A phrase for each score that got significantly worse, see `describe_losses`."""
    worse = [
        f"{score_label(name)} {format_score(before[name], name)} -> "
        f"{format_score(after[name], name)}"
        for name in SCORE_NAMES
        if _is_worse(name, before[name], after[name], error[name])
    ]
    for name in ("recall", "precision"):
        worse += _worse_classes(
            name, before[name], after[name], error[name], class_names
        )
    return worse


def _is_worse(name, old, new, error):
    if old is None or new is None:
        return False
    lost = new - old if name in LOWER_IS_BETTER else old - new
    return beyond_chance(lost, error, _CONFIDENCE)


def _worse_classes(name, old, new, error, class_names):
    """Describes the classes that lost most, and the number of others."""
    lost = [
        place
        for place, numbers in enumerate(zip(old, new, error, strict=True))
        if _is_worse(name, *numbers)
    ]
    lost.sort(key=lambda place: new[place] - old[place])
    phrases = [
        f"{name} of {class_label(place, class_names)} {format_score(old[place])} -> "
        f"{format_score(new[place])}"
        for place in lost[:_MOST_CLASSES]
    ]
    more = len(lost) - len(phrases)
    others = f"{name} of {more} other {'class' if more == 1 else 'classes'}"
    return [*phrases, others] if more else phrases


def describe_ranking(before, after, error, *, moved=False, decided=True):
    """Describes whether the ranking of classes changed, or only the decisions.

    Args:
        before: scores, see `probability_scores`.
        after: scores of the other classifier.
        error: standard error of each difference.
        moved: whether the scores of three classes or more are those at equal class
            shares, as other shares change the ranking of each class against the rest.
        decided: whether any decision changed.

    Returns:
        sentence: "" if a score is unknown.
    """
    gains = {}
    for name in RANKING_SCORES:
        if before[name] is not None and after[name] is not None:
            shown = format_score(before[name]) != format_score(after[name])
            gains[name] = after[name] - before[name] if shown else 0.0
    if not error or "average_precision" not in gains:
        return ""
    better = [n for n, g in gains.items() if beyond_chance(g, error[n], _CONFIDENCE)]
    worse = [n for n, g in gains.items() if beyond_chance(-g, error[n], _CONFIDENCE)]
    sure, unsure = better + worse, [n for n in gains if n not in better + worse]

    def numbers(names):
        return join_words(
            [
                f"{score_label(name)} {format_score(before[name])} -> "
                f"{format_score(after[name])}"
                for name in names
            ]
        )

    if better and worse:
        verdict = f"differently, better and worse: {numbers(gains)}."
    elif sure:
        chance = f" ({numbers(unsure)}, within chance)" if unsure else ""
        verdict = f"{'better' if better else 'worse'}: {numbers(sure)}{chance}."
    else:
        what = "class shares" if moved else "decision threshold"
        only = f": only the {what} changed" if decided else ""
        verdict = f"as before ({numbers(gains)}, within chance){only}."
    start = "At equal class shares, classes" if moved else "Classes"
    return f"{start} are ranked {verdict}"


def describe_prior(prior, counts, class_names=None):
    """Describes the class shares that the outputs assume.

    Args:
        prior: class shares `[C]`; NaN or 0 for a class without examples.
        counts: training examples of each class `[C]`.
        class_names: of the C classes, or None.
    """
    prior, counts = np.array(prior, float), np.array(counts, float)
    known = (prior > 0) & (counts > 0)
    if not known.any():
        return ""
    shares = prior[known] / prior[known].sum()
    data = counts[known] / counts[known].sum()
    if _same(shares, np.full(shares.size, 1 / shares.size)):
        return "The outputs assume that all classes are equally common."
    if _same(shares, data):
        return "The outputs assume the class shares of the training data."
    rare, *_, common = np.lexsort((shares, data))
    places = np.flatnonzero(known)
    named = [
        f"{class_label(places[i], class_names)} {format_score(shares[i])} percent, in "
        f"the training data {format_score(data[i])}"
        for i in (rare, common)
    ]
    return f"The outputs assume class shares of their own: {'; '.join(named)}."


def _same(shares, others):
    return bool(np.allclose(shares, others, rtol=0.02))


def describe_few(counts, class_names=None):
    """Describes classes with fewer than ten validation examples.

    Args:
        counts: validation examples of each class `[C]`.
        class_names: of the C classes, or None.

    Returns:
        sentence: "" if every class has ten.
    """
    few = np.flatnonzero(np.asarray(counts) < _FEWEST)
    if not few.size:
        return ""
    named = [
        f"{counts[place]} of {class_label(place, class_names)}"
        for place in few[:_MOST_CLASSES]
    ]
    named += [f"few of {few.size - len(named)} more"] if few.size > len(named) else []
    return (
        f"The validation data have {join_words(named)}: scores of a class with fewer "
        f"than {_FEWEST} examples are mostly chance."
    )
