"""Runs `fit` on a head alone, with its own optimizer and one progress bar."""

import contextlib

import keras

from tf_pseudofeat.core.progress import progress_bar, say
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

# Enough for a warm head on 5,000 features and not too much for one on 50,000.
_STEPS = 1000
# Epochs shorter than this are run several at a time.
_ROUND_STEPS = 200


def train_head(task, stream, material, recipe, seed, verbose):
    """Runs `fit`; returns {field of `HeadFit`: value} of loss to learning_rate."""
    say(f"Training the head on {_total(material):,} features", verbose)
    head, rng = task.head, rng_for("noise of the head", seed)
    seed_layers(head, rng)
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


def initialize_head(head, seed):
    """New initial weights for the head, from its own initializers."""
    with initial_weights_from(repr(tuple(int(number) for number in seed))):
        fresh = keras.models.clone_model(head)
    for variable, new in zip(
        head.trainable_variables, fresh.trainable_variables, strict=True
    ):
        variable.assign(new)
