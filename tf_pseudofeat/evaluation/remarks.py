"""Remarks on a retraining: what its data, its scores and its rivals say of it."""

import numpy as np

from tf_pseudofeat.evaluation.findings import (
    class_label,
    format_score,
    join_words,
    losses,
    score_label,
)
from tf_pseudofeat.evaluation.probability_scores import ranking_scores

__all__ = [
    "describe_adjustment",
    "describe_as_good",
    "describe_data",
    "describe_decisions",
    "describe_memorized",
    "describe_next_step",
    "describe_own_prior",
    "describe_training_losses",
]

_MEMORIZED, _MISSED = 0.95, 0.5  # recalls on training and validation data
_BALANCED = 2.0  # largest class over smallest
_CHANCE = 0.55  # ROC-AUC up to which classes are not distinguished
_FAR_ABOVE = 2.0  # predicted odds of the minority over those in the data
_MOST_CLASSES = 4  # named in one sentence


def describe_data(material, recipe, class_names):
    """Yields remarks on training data for which retraining can do little.

    Args:
        material: `Material`.
        recipe: `HeadRecipe` with numbers for `blend` and `tau`.
        class_names: of the C classes, or None.
    """
    counts = material.examples[material.examples > 0]
    features = material.features.features
    if counts.max() < _BALANCED * counts.min():
        yield (
            f"The classes are about equally common, {counts.min():,} to "
            f"{counts.max():,} examples: there is little to balance."
        )
    elif not np.any(material.pseudo > 0) and recipe.blend < 1:
        yield (
            "No pseudo-features were drawn: every class has the same number of "
            "chosen examples."
        )
    if counts.size < material.examples.size:
        names = _names(np.flatnonzero(material.examples == 0), class_names)
        yield (
            f"Of {names} there is no example in the training data: nothing can be "
            f"drawn, and the prior has no logarithm, so tau is {recipe.tau:g}."
        )
    single = np.flatnonzero(material.examples == 1)
    if single.size and material.gaussian is not None and recipe.gaussian is None:
        yield (
            f"Of {_names(single, class_names)} there is one example, which has no "
            f"covariance: all classes share one."
        )
    if isinstance(features, np.ndarray) and (features == features[:1]).all():
        yield (
            "All features are the same, so no head can distinguish classes. Split "
            "at another layer."
        )


def describe_decisions(scores, before, after):
    """Describes outputs of unknown kind, and decisions that are the same or chance."""
    parts = []
    if before.kind is None:
        parts.append(
            "The outputs are neither probabilities nor logits of the loss, so that "
            "only decisions are scored. Of logits, from_logits=True tells the loss."
        )
    if np.array_equal(before.predicted, after.predicted):
        parts.append("No decision changed.")
    if _is_chance(scores):
        parts.append(
            f"The original classifier was hardly better than chance (ROC-AUC "
            f"{format_score(scores['roc_auc'])}): check its training and the layer."
        )
    return " ".join(parts)


def describe_own_prior(predictions, material, class_names):
    """Describes outputs that do not assume the class shares of the training data.

    The probabilities of a classifier that was trained on them have those means; one
    that is no better than chance says nothing by them.

    Args:
        predictions: `Predictions` of the original head on the training data, weighted
            to their class shares.
        material: `Material`.
        class_names: of the C classes, or None.
    """
    rare, p = material.minority, predictions.probabilities
    if p is None or not rare:
        return ""
    said = np.average(p, axis=0, weights=predictions.sample_weight)[rare].sum()
    share = material.population[rare].sum() / material.population.sum()
    if said * (1 - share) < _FAR_ABOVE * share * (1 - said):
        return ""
    if _is_chance(ranking_scores(predictions, rare)):
        return ""
    return (
        f"The original classifier gives {_names(rare, class_names)} "
        f"{format_score(said)} percent in all where the training data have "
        f"{format_score(share)}, as after class weights, balanced batches, label "
        f"smoothing or a focal loss. If weights or batches balanced its classes, pass "
        f"tau=0 and prior='uniform': the prior was subtracted twice."
    )


def describe_training_losses(before, after, error, class_names):
    """Describes what got worse on training data, which flatter a head."""
    worse = losses(before, after, error, class_names)
    if not worse:
        return ""
    return f"Worse on the training data, which flatter a head: {'; '.join(worse)}."


def describe_memorized(known, recalls, minority, class_names):
    """Describes rare classes that are right in training and wrong in validation.

    Args:
        known: recalls on the training data, a list of C.
        recalls: the same on the validation data.
        minority: list of class ids.
        class_names: of the C classes, or None.
    """
    places = [
        place
        for place in minority
        if (known[place] or 0) >= _MEMORIZED
        and (1.0 if recalls[place] is None else recalls[place]) <= _MISSED
    ]
    if not places:
        return ""
    return (
        f"The classifier has memorized its training examples of "
        f"{_names(places, class_names)} and misses others: augmented views "
        f"of images (`augment`), or a larger `tau`, help more than further training."
    )


def describe_as_good(monitor, rival, score):
    """Names logit adjustment, which is as good as the retraining."""
    return (
        f"Logit adjustment alone, which needs no training, has "
        f"{score_label(monitor)} {format_score(rival, monitor)} and the retraining "
        f"{format_score(score, monitor)}: adjust_logits(model, counts) of the original "
        f"model is enough."
    )


def describe_adjustment(monitor, score, rival):
    """Names logit adjustment, which the guard of a rolled-back head would keep."""
    return (
        f"Logit adjustment alone, which needs no training, changes "
        f"{score_label(monitor)} from {format_score(score, monitor)} to "
        f"{format_score(rival, monitor)} and passes the guard: "
        f"adjust_logits(model, counts)."
    )


def describe_next_step():
    """Says what to do after a rollback where logit adjustment does no better."""
    return (
        'recipe="auto" chooses among heads that pass the guard; `diagnose` compares '
        "them with thresholds and with the model as it is."
    )


def _is_chance(scores):
    area = scores.get("roc_auc")
    return area is not None and area < _CHANCE


def _names(places, class_names):
    names = [class_label(place, class_names) for place in places[:_MOST_CLASSES]]
    more = len(places) - len(names)
    return join_words([*names, f"{more} more"] if more else names)
