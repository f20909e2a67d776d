"""Step 5 of Konno and Iwazume (2018): train the head on real and pseudo-features.

The head shares its layers with the model it was cut from, so training it is putting it
back. Whatever goes wrong on the way, the weights return to what they were.
"""

import contextlib
import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.progress import progress_bar, say
from tf_pseudofeat.core.seeds import (
    initial_weights_from,
    noise_from,
    numbers_for,
    seed_layers,
)
from tf_pseudofeat.core.strategies import undistributed
from tf_pseudofeat.core.tracing import without_retracing_warnings
from tf_pseudofeat.evaluation.guard import Guard
from tf_pseudofeat.evaluation.judge import Judge
from tf_pseudofeat.head.adjust import shift_bias
from tf_pseudofeat.head.material import Material
from tf_pseudofeat.head.optimizers import head_optimizer
from tf_pseudofeat.head.recipe import HeadRecipe
from tf_pseudofeat.head.task import Task
from tf_pseudofeat.head.weights import (
    blend_weights,
    frozen_batch_norm,
    leave_prior,
    left_prior,
    restored_unless_kept,
    weights_of,
)
from tf_pseudofeat.splitting.graph import functional

__all__ = ["HeadFit", "fit_head"]

# Enough for a warm head on 5,000 features and not too much for one on 50,000.
_STEPS = 1000
# Epochs shorter than this are run several at a time.
_ROUND_STEPS = 200
# What `_train` would return where all of the old head is kept.
_UNTRAINED = {"loss": [], "epochs": 0, "optimizer": "none", "learning_rate": 0.0}


@dataclasses.dataclass(frozen=True)
class HeadFit:
    """What came of training a head.

    Attributes:
        kept: whether the new weights stayed; False after a rollback.
        reason: why they were rolled back, or "".
        before: scores before training, see `classification_scores` and
            `probability_scores`; {} where there was nothing to score on.
        after: scores of the newly trained head, whether or not it was kept.
        standard_error: of each score's difference, by the same names, and lists of C
            for those of each class; {} where it was not estimated.
        notes: sentences of what to know: where nothing changed, and why.
        loss: mean training loss of each epoch; where epochs have few steps, of each
            stretch of several.
        epochs: how many epochs that was; 0 where all of the old head is kept.
        optimizer: name of the optimizer's class.
        learning_rate: at the first step.
        prior: the class shares that the head's outputs assume as it was left, `[C]`.
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
    """Trains a head on features, and undoes it where it did no good.

    The weights of the head are restored, to the bit, on any exception or interrupt, on
    a loss that is not finite, and where `monitor` has not gained more than chance.

    Args:
        task: `Task`: the head, its loss and its classes.
        material: `Material` to train on, see `prepare_material`.
        recipe: `HeadRecipe`; the defaults where it is None. Its `gaussian`, `sampler`
            and `sampling_strategy` are not looked at here: they are in the material.
            So is its `loss`, which is in the task.
        scoring: `LabeledFeatures` to score on, before and after; None for no scores.
        monitor: the score that must rise, or a `Guard`; None for any head to stay.
        errors: whether to estimate the standard errors of what changed; by default
            where there is a `monitor`.
        seed: two whole numbers: of the stream, of fresh weights, and of layers that
            draw, such as Dropout, each with a stream of its own.
        verbose: 0 for silence; otherwise a progress bar over the epochs.

    Returns:
        result: `HeadFit`.

    Raises:
        ValueError: Features or recipe do not fit the head, the head has nothing to
            train, or not one output for each class; `monitor` cannot be scored.
        TypeError: `material.features` or `scoring` is no `LabeledFeatures`, `monitor`
            no score.

    Example:

    >>> material = prepare_material(LabeledFeatures(features, labels), HeadRecipe(), 10)
    >>> fit_head(Task(head, 10, "sparse_categorical_crossentropy"), material).kept
    True
    """
    recipe = HeadRecipe() if recipe is None else recipe
    kinds = (("task", task, Task), ("material", material, Material))
    for name, value, kind in (*kinds, ("recipe", recipe, HeadRecipe)):
        if not isinstance(value, kind):
            raise TypeError(
                f"`{name}` is a {kind.__name__}; received {type(value).__name__}."
            )
    head = task.head
    task.check(material.features, "material.features")
    recipe.check(task)
    recipe = recipe.resolve(task, material)
    recipe.check_prior(material.population)
    guard = Guard.of(monitor)
    stream = material.stream(recipe, seed)
    errors = guard.monitor is not None if errors is None else errors
    is_mean = 0 < recipe.blend < 1
    with restored_unless_kept(head) as keep:
        judge = Judge(task, material, recipe, scoring, guard, errors)
        old, old_prior = weights_of(head) if is_mean else None, left_prior(head)
        with frozen_batch_norm(head, recipe.freeze_batch_norm), undistributed():
            if recipe.fresh_head:
                _initialize(head, seed)
            if recipe.blend == 1:
                trained = dict(_UNTRAINED)
            else:
                trained = _train(task, stream, material, recipe, seed, verbose)
            if is_mean:
                blend_weights(head, old, weights_of(head), recipe.blend)
            if recipe.tau:
                shift_bias(head, material.population, recipe.tau)
            prior = _prior(recipe, material, old_prior)
            target = recipe.target_shares(material.population)
            if target is not None:
                shift_bias(head, prior / target)
                prior = target
            verdict = judge(trained["loss"])
        is_better = not verdict["reason"]
        if is_better:
            leave_prior(head, prior)
        elif old_prior is not None:
            prior = np.asarray(old_prior)
        else:
            prior = material.population / material.population.sum()
        trained["prior"] = prior.tolist()
        result = HeadFit(kept=is_better, **verdict, **trained)
        if is_better:
            keep()  # last of all, as whatever fails before it puts the old head back
    return result


def _prior(recipe, material, old):
    """The class shares `[C]` that a trained head's logits follow, before any target.

    Its logits are a mean of the old head's, if that was trained on the real examples as
    they are, and of the new one's, which follow the mix:

        log(prior) = blend * log(old) + (1 - blend) * log(mix) - tau * log(data) - c

    Args:
        recipe: `HeadRecipe`.
        material: `Material`; a class counts for what its examples weigh, in `data`
            those of all the data, in `mix` those trained on.
        old: the shares that the old head followed, None for those of the data.

    Returns:
        prior: `[C]`, adds up to 1; 0 for a class without examples.
    """
    data, counts = material.population, np.maximum(material.real, 1)
    mix = material.mass * (material.real + material.pseudo) / counts
    known = (mix > 0) & (data > 0)
    old = data if old is None else np.asarray(old)
    logs = recipe.blend * _log_where(known & (old > 0), old)
    logs += (1 - recipe.blend) * _log_where(known, mix)
    logs -= recipe.tau * _log_where(known, data)
    prior = np.where(known, np.exp(logs - logs.max()), 0.0)
    return prior / prior.sum()


def _log_where(known, numbers):
    """Their logarithms, and 0 elsewhere."""
    return np.log(numbers, where=known, out=np.zeros(known.size))


def _train(task, stream, material, recipe, seed, verbose):
    """Runs `fit`; returns {field of `HeadFit`: value} of loss to learning_rate."""
    say(f"Training the head on {_total(material):,} features", verbose)
    head, numbers = task.head, numbers_for("noise of the head", seed)
    seed_layers(head, numbers)
    epochs = recipe.epochs or min(max(5, -(-_STEPS // len(stream))), 100)
    passes = _passes(epochs, len(stream))
    steps = epochs * len(stream)
    strategy = task.strategy
    with strategy.scope() if strategy else contextlib.nullcontext():
        optimizer = head_optimizer(steps, recipe.optimizer, task.optimizer, strategy)
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        trainee = _trainee(
            task, material.features.features, optimizer, passes * len(stream)
        )
        if not trainee.optimizer.built:  # else TensorFlow traces the first step twice
            trainee.optimizer.build(trainee.trainable_variables)
    with noise_from(numbers), without_retracing_warnings():
        history = trainee.fit(
            stream.repeat(passes),
            epochs=epochs // passes,
            verbose=0,
            shuffle=False,  # the stream is shuffled
            callbacks=[
                keras.callbacks.TerminateOnNaN(),
                _Progress(epochs, passes, verbose),
            ],
        )
    return {
        "loss": [float(value) for value in history.history["loss"]],
        "epochs": epochs,
        "optimizer": type(optimizer).__name__,
        "learning_rate": float(f"{rate:.6g}"),
    }


def _total(material):
    return int((material.real + material.pseudo).sum())


def _passes(epochs, num_batches):
    """How many epochs to hand to `fit` as one: a divisor of `epochs`.

    To begin an epoch costs a tenth of a second, more than a few small steps take.
    """
    most = max(1, _ROUND_STEPS // num_batches)
    return max(n for n in range(1, most + 1) if epochs % n == 0)


class _Progress(keras.callbacks.Callback):
    """One bar for all epochs: Keras's own would print a line for each."""

    def __init__(self, epochs, passes, verbose):
        super().__init__()
        self.passes = passes
        self.bar = progress_bar(epochs, "epoch", verbose, stateful_metrics=["loss"])

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", float("nan"))
        self.bar.update((epoch + 1) * self.passes, [("loss", loss)])


def _trainee(task, features, optimizer, steps):
    """A compiled model around the head: the head's own compile state is not touched."""
    head, graph = task.head, functional(task.head)
    if graph is not None:  # To call it would leave a node on it each time.
        inputs, outputs = graph.inputs, graph.outputs[0]
    else:
        inputs = keras.Input(features.shape[1:], dtype=features.dtype.name)
        outputs = keras.tree.flatten(head(inputs))[0]
    trainee = keras.Model(inputs, outputs, name="trainee")
    on_tensorflow = keras.backend.backend() == "tensorflow"
    several = on_tensorflow and not task.strategy
    trainee.compile(
        optimizer,
        task.loss,
        # XLA is slower for a head on a CPU, and neither works under a strategy
        # (keras#19246). A run of many small steps is mostly the overhead of each.
        jit_compile=False if on_tensorflow else "auto",
        steps_per_execution=min(32, steps) if several else 1,
    )
    return trainee


def _initialize(head, seed):
    """New initial weights for the head, from its own initializers."""
    with initial_weights_from(repr(tuple(int(number) for number in seed))):
        fresh = keras.models.clone_model(head)
    for variable, new in zip(
        head.trainable_variables, fresh.trainable_variables, strict=True
    ):
        variable.assign(new)
