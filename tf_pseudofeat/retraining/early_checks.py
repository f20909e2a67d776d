"""Checks of counts, shapes and settings before features are extracted."""

import numbers
import warnings

import numpy as np
from imblearn.over_sampling import SMOTE
from imblearn.utils import check_sampling_strategy

from tf_pseudofeat.core.finite import check_any_weight, check_weights
from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.data.batches import arrays_of
from tf_pseudofeat.gaussians.covariance import check_examples, moment_kind
from tf_pseudofeat.gaussians.moments import check_memory
from tf_pseudofeat.sampling.counts import (
    STRATEGIES,
    check_several_classes,
    check_strategy_name,
    pseudo_counts,
)
from tf_pseudofeat.sampling.oversamplers import GaussianOverSampler

__all__ = ["check_before_extraction", "known_counts"]


def known_counts(data, extraction, num_classes):
    """Counts the examples of each class in arrays, without those of weight 0.

    Args:
        data: checked data.
        extraction: `Extraction`, for its `steps`.
        num_classes: C.

    Returns:
        counts: int64 `[C]`; None if data are not arrays.

    Raises:
        ValueError: If a label is not a class id, or weights are negative, not finite,
            or all 0.
    """
    arrays = arrays_of(data)
    if arrays is None:
        return None
    labels, weight = arrays
    if extraction.steps is not None:
        read = slice(extraction.steps * extraction.batch_size)
        labels, weight = labels[read], None if weight is None else weight[read]
    ids = class_ids(labels, num_classes)
    if weight is not None:
        check_weights(weight, ids.size)
        check_any_weight(weight)
        ids = ids[weight > 0]
    return np.bincount(ids, minlength=num_classes)


def check_before_extraction(recipe, num_classes, feature_shape, counts, most, views):
    """Raises the errors of `prepare_material` before features are extracted.

    Args:
        recipe: `HeadRecipe`.
        num_classes: C.
        feature_shape: shape of one feature.
        counts: examples of each class `[C]`, see `known_counts`, or None.
        most: maximum number of examples of each class, or None.
        views: number of views of each example.

    Raises:
        ValueError: If there is only one class, examples are too few for a covariance or
            for the neighbors of a sampler, the sampling strategy does not fit, or the
            covariances do not fit in memory.
    """
    if counts is not None:
        check_several_classes(counts, num_classes)
        rows = views * (counts if most is None else np.minimum(counts, most))
        ids = np.repeat(np.arange(num_classes), rows)
        recipe.check_prior(counts)
    if recipe.sampler is None:
        gaussian = recipe.gaussian_for(num_classes, () if counts is None else counts)
        gaussian.check_shape(feature_shape)
        if counts is not None:
            pseudo_counts(ids, recipe.sampling_strategy)
            check_examples(rows, gaussian.covariance_type)
    elif counts is not None:
        _check_sampler(recipe.sampler, ids, int(np.prod(feature_shape)))


def _check_sampler(sampler, ids, size):
    steps = getattr(sampler, "steps", None)
    if steps is not None:  # the first step of a pipeline gets these labels
        steps = [step for _, step in steps if step not in (None, "passthrough")]
        sampler = steps[0] if steps else None
    kind = getattr(sampler, "_sampling_type", None)
    strategy = getattr(sampler, "sampling_strategy", None)
    if kind is None or strategy is None:
        return  # not one of imbalanced-learn's
    check_strategy_name(strategy, (*STRATEGIES, "majority"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sampler will warn
        filled = check_sampling_strategy(strategy, ids, kind)
    if kind != "over-sampling":
        return
    if isinstance(sampler, GaussianOverSampler):
        counts, covariance_type = np.bincount(ids), sampler.covariance_type
        check_memory(counts.size, size, moment_kind(covariance_type), sampler.rank)
        check_examples(counts, covariance_type)
    elif hasattr(sampler, "smote"):  # a combination
        smote = sampler.smote or SMOTE(sampling_strategy=strategy)
        _check_sampler(smote, ids, size)
    else:
        _check_neighbors(sampler, ids, [c for c, extra in filled.items() if extra])


def _check_neighbors(sampler, ids, filled):
    name = "k_neighbors" if hasattr(sampler, "k_neighbors") else "n_neighbors"
    given = getattr(sampler, name, 0)
    # A neighbors object counts the example itself.
    is_number = isinstance(given, numbers.Integral)
    needed = given + 1 if is_number else getattr(given, "n_neighbors", 1)
    counts = {int(c): int((ids == c).sum()) for c in filled}
    few = [c for c, count in counts.items() if count < needed]
    if not few:
        return
    least = min(counts[c] for c in few)
    smaller = f"{name}={least - 1} or less, " if least > 1 else ""
    raise ValueError(
        f"{type(sampler).__name__} interpolates between an example and its "
        f"{needed - 1} nearest neighbors of the class, so it needs {needed}, but class "
        f"{few[0]} has {counts[few[0]]} (classes with fewer: {few}). Pass "
        f"{smaller}RandomOverSampler(), the Gaussians with covariance_type='tied', or "
        f"a sampling_strategy that leaves these classes as they are."
    )
