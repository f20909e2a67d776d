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
# Shorter epochs are run several at a time.
_ROUND_STEPS = 200
# So few take less time one by one than the tracing of a loop of steps.
_FEW_STEPS = 100


def train_head(task, stream, material, recipe, seed, verbose):
    """Runs `fit`; returns fields `loss` to `learning_rate` of `HeadFit` as a dict."""
    print_status(f"Training the head on {_total(material):,} features", verbose)
    head, rng = task.head, rng_for("noise of the head", seed)
    seed_layers(head, rng)
    epochs = recipe.epochs or min(max(5, -(-_STEPS // len(stream))), 100)
    passes = _passes(epochs, len(stream))
    steps = epochs * len(stream)
    strategy = task.strategy
    with strategy.scope() if strategy else contextlib.nullcontext():
        optimizer = head_optimizer(steps, recipe.optimizer, task.optimizer, strategy)
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        at_once = 1 if steps < _FEW_STEPS else min(32, passes * len(stream))
        trainee = _trainee(task, material.features.features, optimizer, at_once)
        if not trainee.optimizer.built:  # else TensorFlow traces the first step twice
            trainee.optimizer.build(trainee.trainable_variables)
    with seeded_backend_rng(rng), without_retracing_warnings():
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
    """The number of epochs to pass to `fit` as one: a divisor of `epochs`.

    Starting an epoch takes a tenth of a second, more than a few small steps.
    """
    most = max(1, _ROUND_STEPS // num_batches)
    return max(n for n in range(1, most + 1) if epochs % n == 0)


class _Progress(keras.callbacks.Callback):
    """One progress bar for all epochs; Keras would print a line for each."""

    def __init__(self, epochs, passes, verbose):
        super().__init__()
        self.passes = passes
        self.bar = progress_bar(epochs, "epoch", verbose, stateful_metrics=["loss"])

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", float("nan"))
        self.bar.update((epoch + 1) * self.passes, [("loss", loss)])


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
    several = on_tensorflow and not task.strategy
    trainee.compile(
        optimizer,
        task.loss,
        # XLA is slower for a head on a CPU, and fails under a strategy (keras#19246),
        # as does steps_per_execution. Small steps are mostly overhead.
        jit_compile=False if on_tensorflow else "auto",
        steps_per_execution=steps_at_once if several else 1,
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
