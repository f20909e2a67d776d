"""Checks of the fields of a `HeadRecipe`, by themselves and against a head."""

import inspect

import keras
import numpy as np

from tf_pseudofeat.core.validation import check_is_object
from tf_pseudofeat.gaussians.class_conditional_gaussian import (
    ClassConditionalGaussian,
    check_gaussian,
)
from tf_pseudofeat.head.bias_shift import check_logit_bias
from tf_pseudofeat.head.priors import by_class, positive_shares
from tf_pseudofeat.splitting.graph import layers_inside

__all__ = [
    "check_blend",
    "check_fresh",
    "check_optimizer",
    "check_source",
    "check_task_logit_bias",
    "resolve_prior",
    "resolve_target_prior",
]

_PRIORS = ("uniform", "training")


def check_fresh(head):
    """Raises if `fresh_head` cannot reinitialize the kernel of a layer."""
    kept = [
        layer.name
        for layer in layers_inside(head)
        if getattr(layer, "quantization_mode", None) is not None
    ]
    if kept:
        raise ValueError(
            f"fresh_head=True reinitializes trainable weights, but layer {kept[0]!r} "
            f"is quantized, so its kernel would not change. Start from the trained "
            f"head, fresh_head=False, or retrain before `quantize`."
        )


def check_task_logit_bias(task, option):
    """Raises if `option` cannot shift the logits of the task's head."""
    if task.reading.meaning == "numbers":
        raise ValueError(
            f"{option} shifts log-odds, but the outputs of {task.head.name!r} are not "
            f"log-odds: {task.reading.reason}. Leave it out, or train with a "
            f"cross-entropy."
        )
    check_logit_bias(task.head, option)


def check_source(recipe):
    """Raises if `gaussian` or `sampler` is of another kind, or if both are given."""
    gaussian, sampler = recipe.gaussian, recipe.sampler
    if gaussian is not None and sampler is not None:
        raise ValueError("Pass `gaussian` or `sampler`, not both.")
    if isinstance(gaussian, dict):
        ClassConditionalGaussian(**{**gaussian, "num_classes": 1})  # raises if wrong
    elif gaussian is not None:
        check_gaussian(gaussian)
    if sampler is None:
        return
    check_is_object("sampler", sampler)
    if not hasattr(sampler, "fit_resample"):
        raise ValueError(
            f"`sampler` must have imbalanced-learn's `fit_resample(X, y)`; received "
            f"{type(sampler).__name__}."
        )
    if recipe.sampling_strategy != "auto":
        raise ValueError(
            f"`sampling_strategy` is for the Gaussians, but there is a `sampler`. Set "
            f"it there, {type(sampler).__name__}(sampling_strategy=...)."
        )


def check_optimizer(optimizer):
    """Raises if `optimizer` is neither an optimizer, a name nor a function."""
    if optimizer is None or isinstance(optimizer, keras.optimizers.Optimizer):
        return
    made = getattr(optimizer, "func", optimizer)  # for a functools.partial
    if inspect.isclass(made) and issubclass(made, keras.optimizers.Optimizer):
        # It is callable, but would take the number of steps as its learning rate.
        check_is_object("optimizer", made)
    if isinstance(optimizer, str | dict):
        keras.optimizers.get(optimizer)  # raises for an unknown name
    elif isinstance(optimizer, keras.optimizers.schedules.LearningRateSchedule):
        raise TypeError(
            f"`optimizer` must be a Keras optimizer; received the learning rate "
            f"{type(optimizer).__name__}. Pass an optimizer with it, such as "
            f"keras.optimizers.Adam(schedule)."
        )
    elif not callable(optimizer):
        raise TypeError(
            f"`optimizer` must be a Keras optimizer, its name, or a function from the "
            f"number of steps to one; received {optimizer!r}."
        )


def check_blend(blend, fresh_head):
    """Raises if `blend` is not in [0, 1], or not 0 with a fresh head."""
    try:
        fits = 0 <= blend <= 1
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(f"`blend` must be in [0, 1]; received {blend!r}.")
    if blend and fresh_head:
        raise ValueError(
            f"blend={blend} averages the old head with the one trained from it, but a "
            f"fresh head is not trained from it. Choose one of the two."
        )


def resolve_target_prior(target, tau):
    """Checks `target_prior`; converts numbers to a tuple by class id."""
    if target is not None and tau:
        raise ValueError(
            f"tau={tau} and `target_prior` both adjust the logits. Choose one of the "
            f"two."
        )
    return resolve_prior(target, "target_prior")


def resolve_prior(prior, name):
    """Checks class shares; converts numbers, or those of a report, to a tuple."""
    prior = getattr(prior, "prior", prior)
    if prior is None or (isinstance(prior, str) and prior in _PRIORS):
        return prior
    if isinstance(prior, str) or np.ndim(prior) > 1 or not hasattr(prior, "__len__"):
        raise ValueError(
            f"`{name}` must be one of {_PRIORS}, or a positive share for each class; "
            f"received {prior!r}."
        )
    shares = by_class(prior, len(prior), name)
    positive_shares(shares, name)
    return tuple(shares.tolist())
