"""Trains a head with its own optimizer and a single progress bar."""

import contextlib

import keras

from tf_pseudofeat.core.progress import print_status, progress_bar
from tf_pseudofeat.core.seeds import (
    initial_weights_from,
    rng_for,
    seed_layers,
    seeded_backend_rng,
)
from tf_pseudofeat.core.tracing import without_retracing_warnings
from tf_pseudofeat.head.optimizers import head_optimizer
from tf_pseudofeat.splitting.graph import functional

__all__ = ["initialize_head", "train_head"]

# Enough for a trained head on 5,000 features, and not too many on 50,000.
_STEPS = 1000
# So few take less time one by one than the tracing of a loop of steps.
_FEW_STEPS = 100
# Enough for a curve of the loss.
_FEW_PARTS, _MANY_PARTS = 5, 20


def train_head(task, stream, material, recipe, seed, verbose):
    """Runs `fit`; returns fields `loss` to `learning_rate` of `HeadFit` as a dict."""
    print_status(f"Training the head on {_total(material):,} features", verbose)
    head, rng = task.head, rng_for("noise of the head", seed)
    seed_layers(head, rng)
    epochs = recipe.epochs or min(max(5, -(-_STEPS // len(stream))), 100)
    steps = epochs * len(stream)
    strategy = task.strategy
    with strategy.scope() if strategy else contextlib.nullcontext():
        optimizer = head_optimizer(steps, recipe.optimizer, task.optimizer, strategy)
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        # Small steps are mostly overhead, but fail together under a strategy.
        if keras.backend.backend() != "tensorflow" or strategy or steps < _FEW_STEPS:
            parts, part_steps, at_once = epochs, len(stream), 1
        else:
            parts, part_steps, at_once = _parts(steps)
        trainee = _trainee(task, material.features.features, optimizer, at_once)
        if not trainee.optimizer.built:  # else TensorFlow traces the first step twice
            trainee.optimizer.build(trainee.trainable_variables)
    # Keras starts a second iterator when the data end. Under a strategy they must end:
    # TensorFlow crashes if such an iterator is deleted while it reads ahead.
    endless = parts * part_steps == steps and not strategy
    with seeded_backend_rng(rng), without_retracing_warnings():
        history = trainee.fit(
            # One iterator reads all epochs, since starting one takes longer than some
            # epochs.
            stream.repeat(None if endless else epochs),
            epochs=parts,
            steps_per_epoch=part_steps,
            verbose=0,
            shuffle=False,  # the stream is shuffled
            callbacks=[
                keras.callbacks.TerminateOnNaN(),
                _Progress(steps, part_steps, verbose),
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


def _parts(steps):
    """Divides a training of at least 100 steps for `fit`.

    Args:
        steps: number of steps.

    Returns:
        parts: number of parts, each of which is an epoch for `fit`.
        part_steps: steps of a part; the last part may have a quarter less.
        steps_per_execution: see `keras.Model.compile`; divides `part_steps`.
    """
    ways = []
    for at_once in range(8, 33):
        executions = -(-steps // at_once)
        parts = max(n for n in range(1, _MANY_PARTS + 1) if executions % n == 0)
        part_steps = executions // parts * at_once
        missing = parts * part_steps - steps  # in the last part
        if parts >= _FEW_PARTS and 4 * missing <= part_steps:
            exact = missing == 0 and at_once >= 16  # spares Keras a second iterator
            ways.append((exact, at_once, parts, part_steps))
    _, at_once, parts, part_steps = max(ways)
    return parts, part_steps, at_once


class _Progress(keras.callbacks.Callback):
    """One progress bar for all parts; Keras would print a line for each."""

    def __init__(self, steps, part_steps, verbose):
        super().__init__()
        self.steps, self.part_steps = steps, part_steps
        self.bar = progress_bar(steps, "step", verbose, stateful_metrics=["loss"])

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", float("nan"))
        done = min(self.steps, (epoch + 1) * self.part_steps)
        self.bar.update(done, [("loss", loss)])


def _trainee(task, features, optimizer, steps_at_once):
    """Compiles a model around the head, so that the head's compile state is kept."""
    head, graph = task.head, functional(task.head)
    if graph is not None:  # calling the head would add a node to it each time
        inputs, outputs = graph.inputs, graph.outputs[0]
    else:
        inputs = keras.Input(features.shape[1:], dtype=features.dtype.name)
        outputs = keras.tree.flatten(head(inputs))[0]
    trainee = keras.Model(inputs, outputs, name="trainee")
    on_tensorflow = keras.backend.backend() == "tensorflow"
    trainee.compile(
        optimizer,
        task.loss,
        # XLA is slower for a head on a CPU, and fails under a strategy (keras#19246).
        jit_compile=False if on_tensorflow else "auto",
        steps_per_execution=steps_at_once,
    )
    return trainee


def initialize_head(head, seed):
    """Assigns new initial weights to the head, from its own initializers."""
    with initial_weights_from(repr(tuple(int(number) for number in seed))):
        fresh = keras.models.clone_model(head)
    for variable, new in zip(
        head.trainable_variables, fresh.trainable_variables, strict=True
    ):
        variable.assign(new)
