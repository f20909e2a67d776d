"""Step 5 of Konno and Iwazume (2018): train the head on real and pseudo-features.

The head shares its layers with the model, so training the head trains the model. On any
failure the weights are restored.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tf_pseudofeat.core.distribution import undistributed
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.judge import Judge
from tf_pseudofeat.head.bias_shift import shift_bias
from tf_pseudofeat.head.material import Material
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.task import Task
from tf_pseudofeat.head.training import initialize_head, train_head
from tf_pseudofeat.head.weights import (
    blend_weights,
    frozen_batch_norm,
    record_prior,
    rollback_unless_committed,
    weights_of,
)

__all__ = ["HeadFit", "fit_head"]


# The result of `train_head` if nothing is trained.
_UNTRAINED = {"loss": [], "epochs": 0, "optimizer": "none", "learning_rate": 0.0}


@dataclasses.dataclass(frozen=True)
class HeadFit:
    """The result of training a head.

    Attributes:
        kept: whether the new weights were kept; False after a rollback.
        reason: why they were rolled back, or "".
        before: scores before training, see `classification_scores` and
            `probability_scores`; {} without data to score on.
        after: scores of the trained head, whether or not it was kept.
        standard_error: standard error of each score's difference, by the same names,
            with lists of C for scores of classes; {} if not estimated.
        notes: remarks, for instance why nothing changed.
        loss: mean training loss of each of several parts of the training, about equal
            in steps.
        epochs: number of epochs; 0 if nothing was trained.
        optimizer: name of the optimizer's class.
        learning_rate: learning rate of the first step.
        prior: the class shares that the final head's outputs assume, `[C]`.
    """

    kept: bool
    reason: str
    before: dict
    after: dict
    standard_error: dict
    notes: list[str]
    loss: list[float]
    epochs: int
    optimizer: str
    learning_rate: float
    prior: list[float]


def fit_head(
    task: Task,
    material: Material,
    recipe: HeadRecipe | None = None,
    *,
    scoring: LabeledFeatures | None = None,
    monitor: object = None,
    errors: bool | None = None,
    seed: Sequence[int] = (1, 2),
    verbose: int | str = "auto",
) -> HeadFit:
    """Retrains a head on real and pseudo-features, with a rollback if it did not help.

    The weights of the head are restored, bit for bit, on any exception or interrupt, on
    a loss that is not finite, and if `monitor` did not improve significantly.

    Args:
        task: `Task`: the head, its loss and its classes.
        material: `Material` to train on, see `prepare_material`.
        recipe: `HeadRecipe`; None for the defaults. Its `gaussian`, `sampler` and
            `sampling_strategy` are ignored in favor of `material`, and its `loss` in
            favor of `task`.
        scoring: `LabeledFeatures` to score on before and after; None for no scores.
        monitor: the score that must improve, or a `Guard`; None to keep any head.
        errors: whether to estimate standard errors of the differences; by default if
            there is a `monitor`.
        seed: two integers, with independent streams for the data, new initial weights,
            and random layers such as Dropout.
        verbose: 0 for no output; otherwise a progress bar over the steps.

    Returns:
        result: `HeadFit`.

    Raises:
        ValueError: If features or recipe do not fit the head, the head has no trainable
            weights or not one output per class, or `monitor` is undefined.
        TypeError: If `material.features` or `scoring` is not a `LabeledFeatures`, or
            `monitor` is not a score.

    Examples:
        >>> data = LabeledFeatures(features, labels)
        >>> material = prepare_material(data, HeadRecipe(), 10)
        >>> fit_head(Task(head, 10, "sparse_categorical_crossentropy"), material).kept
        True
    """
    recipe = HeadRecipe() if recipe is None else recipe
    kinds = (("task", task, Task), ("material", material, Material))
    for name, value, kind in (*kinds, ("recipe", recipe, HeadRecipe)):
        if not isinstance(value, kind):
            raise TypeError(
                f"`{name}` must be a {kind.__name__}; received {type(value).__name__}."
            )
    head = task.head
    task.check(material.features, "material.features")
    recipe.check(task)
    recipe = recipe.resolve(task, material)
    recipe.check_prior(material.population)
    guard = Guard.of(monitor)
    stream = material.stream(recipe, seed) if recipe.blend < 1 else None
    errors = guard.monitor is not None if errors is None else errors
    is_mean = 0 < recipe.blend < 1
    old_prior = recipe.prior_of(head, material)
    with rollback_unless_committed(head) as commit:
        judge = Judge(task, material, recipe, scoring, guard, errors)
        old = weights_of(head) if is_mean else None
        with frozen_batch_norm(head, recipe.freeze_batch_norm), undistributed():
            if recipe.fresh_head:
                initialize_head(head, seed)
            if recipe.blend == 1:
                trained = dict(_UNTRAINED)
            else:
                trained = train_head(task, stream, material, recipe, seed, verbose)
            if is_mean:
                blend_weights(head, old, weights_of(head), recipe.blend)
            if recipe.tau:
                shift_bias(head, material.population, recipe.tau)
            prior = _prior(recipe, material, old_prior)
            target = recipe.target_shares(material.population)
            if target is not None:
                shift_bias(head, prior / target)
                prior = target
            verdict = judge(trained["loss"], prior)
        is_better = not verdict["reason"]
        if is_better:
            record_prior(head, prior)
        elif old_prior is not None:
            prior = np.asarray(old_prior)
        else:
            prior = material.population / material.population.sum()
        trained["prior"] = prior.tolist()
        result = HeadFit(kept=is_better, **verdict, **trained)
        if is_better:
            commit()  # last, since any earlier failure restores the old head
    return result


def _prior(recipe, material, old):
    """The class shares `[C]` that the logits of a trained head assume.

    Without a `target_prior`, logits are a mean of those of the old head, which assume
    its training data, and of those of the new one, which assume the mix:

        log(prior) = blend * log(old) + (1 - blend) * log(mix) - tau * log(data) - c

    Args:
        recipe: `HeadRecipe`.
        material: `Material`; `data` are the total weights of all the data, `mix` those
            of the training set.
        old: the shares that the old head assumed, None for those of the data.

    Returns:
        prior: `[C]`, sums to 1; 0 for classes without examples.
    """
    data, mix = material.population, material.mix
    known = (mix > 0) & (data > 0)
    old = data if old is None else np.asarray(old)
    logs = recipe.blend * _log_where(known & (old > 0), old)
    logs += (1 - recipe.blend) * _log_where(known, mix)
    logs -= recipe.tau * _log_where(known, data)
    prior = np.where(known, np.exp(logs - logs.max()), 0.0)
    return prior / prior.sum()


def _log_where(known, numbers):
    """Logarithms where known, and 0 elsewhere."""
    return np.log(numbers, where=known, out=np.zeros(known.size))
