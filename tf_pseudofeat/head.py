"""Step 5 of Konno and Iwazume (2018): train the head on real and pseudo-features.

The head shares its layers with the model it was cut from, so training it is putting it
back. Whatever goes wrong on the way, the weights return to what they were.
"""

import contextlib
import dataclasses
import functools
import inspect
import random

import keras
import numpy as np

from tf_pseudofeat.adjust import check_tau, shift_bias
from tf_pseudofeat.arguments import check_finite, whole_number
from tf_pseudofeat.blend import blend_weights, check_blend, weights_of
from tf_pseudofeat.budget import class_counts
from tf_pseudofeat.graph import check_is_keras_3, functional, layers_inside
from tf_pseudofeat.interleave import interleave
from tf_pseudofeat.labelled import LabelledFeatures
from tf_pseudofeat.labels import class_ids
from tf_pseudofeat.losses import check_loss_name
from tf_pseudofeat.scores import check_monitor, classification_scores
from tf_pseudofeat.seeds import noise_from, numbers_for, seed_layers
from tf_pseudofeat.stored import StoredArray
from tf_pseudofeat.strategies import check_one_worker, undistributed

__all__ = [
    "HeadFit",
    "borrowed",
    "check_can_be_fresh",
    "fit_head",
    "head_optimizer",
    "head_outputs",
    "predicted_classes",
    "restored_unless_kept",
    "score_head",
]

_SCORING_BATCH = 1024
# Enough for a warm head on 5,000 features and not too much for one on 50,000.
_STEPS = 1000
# Epochs shorter than this are run several at a time.
_ROUND_STEPS = 200


@dataclasses.dataclass(frozen=True)
class HeadFit:
    """What came of training a head.

    Attributes:
        kept: whether the new weights stayed; False after a rollback.
        reason: why they were rolled back, or "".
        before: scores before training, see `classification_scores`.
        after: scores of the newly trained head, whether or not it was kept.
        loss: mean training loss of each epoch; where epochs have few steps, of each
            stretch of several.
        epochs: how many epochs that was.
        optimizer: name of the optimizer's class.
        learning_rate: at the first step.
    """

    kept: bool
    reason: str
    before: dict
    after: dict
    loss: list[float]
    epochs: int
    optimizer: str
    learning_rate: float


def fit_head(
    head,
    training,
    scoring,
    *,
    loss,
    num_classes,
    minority,
    gaussian=None,
    counts=None,
    optimizer=None,
    epochs=None,
    batch_size=256,
    fresh_head=False,
    blend=0.0,
    tau=0.0,
    prior=None,
    freeze_batch_norm=True,
    fresh_each_epoch=True,
    threshold=0.5,
    monitor=None,
    seed=(1, 2),
    verbose="auto",
    strategy=None,
):
    """Trains a head on features, and undoes it where it did harm.

    The weights of the head are restored, to the bit, on any exception or interrupt, on
    a loss that is not finite, and where `monitor` got worse.

    Args:
        head: Keras model, features `[B, ...]` -> outputs `[B, C]` or `[B, 1]`.
        training: `LabelledFeatures` to train on.
        scoring: `LabelledFeatures` to score on, before and after.
        loss: what `compile` takes.
        num_classes: C.
        minority: list of class ids, for the score of the paper.
        gaussian: fitted `ClassConditionalGaussian`, source of the pseudo-features.
        counts: {class: pseudo-features}, see `pseudo_counts`; none by default.
        optimizer: an optimizer that no other model uses, or a function that makes one
            from the number of steps, see `head_optimizer`. By default Adam, whose
            learning rate falls to zero in the last quarter.
        epochs: passes over real and pseudo-features; by default as many as make
            about 1,000 steps, from 5 to 100.
        batch_size: B.
        fresh_head: start from new initial weights, not from the trained ones.
        blend: share of the weights from before in the result, 0 to 1: the mean of two
            heads of which one was trained from the other is often better than either
            (Wortsman et al. 2022, arXiv 2109.01903).
        tau: after training, take `tau * log(prior)` off the logits, see `shift_bias`.
        prior: examples per class `[C]` for `tau`; by default those of `training`.
        freeze_batch_norm: keep BatchNormalization layers as they are.
        fresh_each_epoch: see `interleave`.
        threshold: of outputs `[B, 1]`, see `predicted_classes`.
        monitor: name of the score on `scoring` that must not get worse, or None.
        seed: two whole numbers: of the stream, of fresh weights, and of layers that
            draw, such as Dropout, each with a stream of its own.
        verbose: 0 for silence; otherwise a progress bar over the epochs.
        strategy: a `tf.distribute` strategy, or None.

    Returns:
        result: `HeadFit`.

    Raises:
        ValueError: `epochs` is no whole number from 1; `blend` is not within 0 and 1,
            or goes with a fresh head; the head has nothing to train, or not one output
            for each class; `tau` or `prior` does not fit it; `monitor` cannot be
            scored; see `interleave`, too.
        TypeError: `training` or `scoring` is no `LabelledFeatures`, `optimizer` neither
            an optimizer nor a function.
    """
    num_classes = whole_number("num_classes", num_classes)
    epochs = None if epochs is None else whole_number("epochs", epochs)
    check_is_keras_3(head)
    check_one_worker(head)
    _check_labelled(head, training, scoring, num_classes)
    check_blend(blend, fresh_head)
    check_tau(tau, head)
    check_monitor(monitor)
    _check_optimizer(optimizer)
    check_loss_name(loss)
    if fresh_head:
        check_can_be_fresh(head)
    stream = interleave(
        training.features,
        training.labels,
        gaussian,
        counts,
        batch_size,
        seed,
        sample_weight=training.sample_weight,
        fresh_each_epoch=fresh_each_epoch,
    )

    if tau:
        prior = class_counts(training.labels, num_classes) if prior is None else prior
        _check_prior(prior, tau, num_classes)

    def score():
        return score_head(head, scoring, num_classes, minority, threshold)

    before = score()
    if monitor is not None and np.isnan(before[monitor]):
        raise ValueError(
            f"`monitor` {monitor!r} cannot be scored: the data to score on have no "
            f"example of the minority classes {minority}. Give them some, or monitor "
            f"another score."
        )
    old = weights_of(head) if blend else None
    with (
        restored_unless_kept(head) as keep,
        borrowed(head, freeze_batch_norm),
        undistributed(),
    ):
        if fresh_head:
            _initialise(head, seed)
        numbers = numbers_for("noise of the head", seed)
        seed_layers(head, numbers)
        epochs = epochs or min(max(5, -(-_STEPS // len(stream))), 100)
        passes = _passes(epochs, len(stream))
        steps = passes * len(stream)
        with _scope(strategy):
            if optimizer is None:
                optimizer = functools.partial(_fresh, keras.optimizers.Adam())
            if not isinstance(optimizer, keras.optimizers.Optimizer):
                optimizer = optimizer(epochs * len(stream))
            rate = keras.ops.convert_to_numpy(optimizer.learning_rate)
            rate = float(f"{rate:.6g}")
            trainee = _trainee(
                head, training.features, loss, optimizer, strategy, steps
            )
        with noise_from(numbers):
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
        if blend:
            blend_weights(head, old, weights_of(head), blend)
        if tau:
            shift_bias(head, prior, tau)
        losses = [float(value) for value in history.history["loss"]]
        after = score() if _finite(head) else None
        reason = _harm(losses, before, after, monitor)
        if not reason:
            keep()
    name = type(optimizer).__name__
    return HeadFit(
        not reason, reason, before, after or before, losses, epochs, name, rate
    )


def _check_labelled(head, training, scoring, num_classes):
    """Refuses features and labels that the head cannot be trained or scored on."""
    graph = functional(head)
    for name, data in (("training", training), ("scoring", scoring)):
        if not isinstance(data, LabelledFeatures):
            raise TypeError(
                f"`{name}` is a LabelledFeatures, as from extract_features; received "
                f"{type(data).__name__}. LabelledFeatures(features, labels) makes one."
            )
        ids, shape = class_ids(data.labels, num_classes), np.shape(data.features)
        if shape[:1] != ids.shape or not ids.size:
            raise ValueError(
                f"`{name}` needs a label for each of its features, one at least; "
                f"received features of shape {list(shape)} and {ids.size} labels."
            )
        if graph is not None and not _fits(graph.inputs[0].shape, shape):
            raise ValueError(
                f"{head.name!r} takes features of shape {list(graph.inputs[0].shape)}; "
                f"those of `{name}` have {list(shape)}. Extract them at its layer."
            )
    if not isinstance(scoring.features, StoredArray):  # checked when it was written
        check_finite(np.asarray(scoring.features), "The features of `scoring`")


def _fits(expected, shape):
    return len(expected) == len(shape) and all(
        size in (None, received)
        for size, received in zip(expected[1:], shape[1:], strict=True)
    )


def _check_optimizer(optimizer):
    fits = isinstance(optimizer, keras.optimizers.Optimizer) or callable(optimizer)
    if optimizer is not None and not fits:
        raise TypeError(
            f"`optimizer` is a Keras optimizer, or a function that makes one from the "
            f"number of steps; received {optimizer!r}. keras.optimizers.get makes one "
            f"from a name."
        )


def _check_prior(prior, tau, num_classes):
    if np.shape(prior) != (num_classes,):
        raise ValueError(
            f"`prior` is a number of examples for each of {num_classes} classes; "
            f"received shape {list(np.shape(prior))}."
        )
    empty = np.flatnonzero(np.asarray(prior) == 0).tolist()
    if empty:
        raise ValueError(
            f"tau={tau} takes off the log of each class's share of the data, and "
            f"classes {empty} have no example. Give them some, or leave `tau` at 0."
        )


def score_head(head, scoring, num_classes, minority, threshold=0.5):
    """`classification_scores` of a head on `LabelledFeatures`."""
    predicted = []
    for outputs in head_outputs(head, scoring.features):
        _check_outputs(head, outputs, num_classes)
        predicted.append(predicted_classes(outputs, threshold))
    predicted = np.concatenate(predicted)
    return classification_scores(scoring.labels, predicted, num_classes, minority)


def head_outputs(head, features):
    """Yields what the head gives for features, `[M, C]` or `[M, 1]`, in their order.

    Of an array all at once, of a `StoredArray` for some 64 MiB of features at a time.
    """
    chunks = [features]
    if isinstance(features, StoredArray):
        chunks = features.chunks(multiple_of=_SCORING_BATCH)
    for chunk in chunks:
        with undistributed():
            outputs = head.predict(chunk, batch_size=_SCORING_BATCH, verbose=0)
        yield keras.tree.flatten(outputs)[0]


def _check_outputs(head, outputs, num_classes):
    fits = outputs.ndim == 2 and outputs.shape[1] in (
        (1, 2) if num_classes == 2 else (num_classes,)
    )
    if not fits:
        raise ValueError(
            f"A head of {num_classes} classes gives outputs [B, {num_classes}], or "
            f"[B, 1] for two; {head.name!r} gives {list(outputs.shape)}. Pass its "
            f"number of classes as `num_classes`, or another head."
        )


def predicted_classes(outputs, threshold=0.5):
    """The class that outputs `[B, C]` or `[B, 1]` name.

    Args:
        outputs: probabilities or logits; `[B, 1]` for two classes.
        threshold: class 1 is above it: 0.5 for probabilities, 0.0 for logits.

    Returns:
        ids: int64 `[B]`.
    """
    outputs = np.asarray(outputs)
    if outputs.shape[-1] > 1:
        return outputs.argmax(axis=-1)
    return (outputs.astype(np.float32).reshape(-1) > threshold).astype(np.int64)


def head_optimizer(model, steps, optimizer=None, strategy=None):
    """The optimizer to train a head with.

    By default a new one of the kind that the model was compiled with: same class and
    settings, but the learning rate begins at the class's default, because the model's
    own has usually been decayed to where it no longer moves anything. In the last
    quarter of the steps it falls to zero along a cosine, so that where the head ends
    does not hang on its last batches. For a model that was not compiled: Adam.

    Args:
        model: the user's model.
        steps: batches to train on.
        optimizer: what to use instead, as it is: an optimizer, or its name.
        strategy: a `tf.distribute` strategy, or None.

    Returns:
        optimizer: a Keras optimizer that is not the model's.
    """
    with _scope(strategy):
        if optimizer is None:
            return _like_optimizer_of(model, steps)
        optimizer = keras.optimizers.get(optimizer)
        if strategy:  # which an optimizer remembers from where it was made
            optimizer = type(optimizer).from_config(optimizer.get_config())
        return optimizer


def _like_optimizer_of(model, steps):
    optimizer = getattr(model, "optimizer", None) or keras.optimizers.Adam()
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = _fresh(optimizer.inner_optimizer, steps)
        return keras.optimizers.LossScaleOptimizer(inner)
    return _fresh(optimizer, steps)


def _fresh(optimizer, steps):
    kinds = map(inspect.signature, type(optimizer).__mro__[:-1])
    rates = [
        kind.parameters["learning_rate"].default
        for kind in kinds
        if "learning_rate" in kind.parameters
    ]
    rates = [rate for rate in rates if isinstance(rate, float)]
    rate = rates[0] if rates else 0.001
    falling = max(1, steps // 4)
    decay = keras.optimizers.schedules.CosineDecay(
        rate, falling, warmup_target=rate, warmup_steps=steps - falling
    )
    config = optimizer.get_config()
    config.update(
        learning_rate=keras.saving.serialize_keras_object(decay),
        use_ema=False,
        # For the memory of a large network. It would count, and end, fewer steps.
        gradient_accumulation_steps=None,
    )
    return type(optimizer).from_config(config)


def _scope(strategy):
    return strategy.scope() if strategy else contextlib.nullcontext()


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
        self.bar = keras.utils.Progbar(
            epochs,
            verbose=int(bool(verbose)),
            unit_name="epoch",
            stateful_metrics=["loss"],
        )

    def on_epoch_end(self, epoch, logs=None):
        loss = (logs or {}).get("loss", float("nan"))
        self.bar.update((epoch + 1) * self.passes, [("loss", loss)])


def _trainee(head, features, loss, optimizer, strategy, steps):
    """A compiled model around the head: the head's own compile state is not touched."""
    graph = functional(head)
    if graph is not None:  # To call it would leave a node on it each time.
        inputs, outputs = graph.inputs, graph.outputs[0]
    else:
        inputs = keras.Input(features.shape[1:], dtype=features.dtype.name)
        outputs = keras.tree.flatten(head(inputs))[0]
    trainee = keras.Model(inputs, outputs, name="trainee")
    on_tensorflow = keras.backend.backend() == "tensorflow"
    trainee.compile(
        optimizer,
        loss,
        # XLA is slower for a head on a CPU, and neither works under a strategy
        # (keras#19246). A run of many small steps is mostly the overhead of each.
        jit_compile=False if on_tensorflow else "auto",
        steps_per_execution=min(32, steps) if on_tensorflow and not strategy else 1,
    )
    return trainee


def _harm(losses, before, after, monitor):
    """Why the new weights must not stay, or ""."""
    if not np.isfinite(losses).all() or after is None:
        return f"the loss or the weights became infinite or NaN (losses: {losses})"
    if monitor is not None and not after[monitor] >= before[monitor]:
        return (
            f"{monitor} on the validation data fell from {before[monitor]:.4f} to "
            f"{after[monitor]:.4f}"
        )
    return ""


def _finite(head):
    weights = map(keras.ops.convert_to_numpy, head.trainable_variables)
    return all(np.isfinite(weight.astype(np.float32)).all() for weight in weights)


@contextlib.contextmanager
def restored_unless_kept(head):
    """Puts back every variable of the head unless the yielded function was called."""
    saved = weights_of(head)
    kept = []
    try:
        yield lambda: kept.append(True)
    finally:
        if not kept:
            for variable, value in zip(head.variables, saved, strict=True):
                variable.assign(value)


@contextlib.contextmanager
def borrowed(head, freeze_batch_norm=True):
    """Freezes BatchNormalization for a while; refuses where nothing is left.

    Args:
        head: Keras model.
        freeze_batch_norm: whether to.

    Raises:
        ValueError: No weight of the head is left to train.
    """
    frozen = []
    try:
        for layer in layers_inside(head) if freeze_batch_norm else ():
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
                layer.trainable = False
                frozen.append(layer)
        if not head.trainable_variables:
            names = [layer.name for layer in layers_inside(head)]
            raise ValueError(
                f"The head has no weight that can be trained (layers: {names}; "
                f"{len(frozen)} BatchNormalization frozen). Split at an earlier layer, "
                f"set `trainable` on its layers, or pass freeze_batch_norm=False."
            )
        yield
    finally:
        for layer in frozen:
            layer.trainable = True


def check_can_be_fresh(head):
    """Refuses a head that no new one can be made from."""
    if functional(head) is None:
        raise ValueError(
            f"fresh_head=True needs a head with a graph of layers, to make a new one "
            f"from; {head.name!r} is a {type(head).__name__}. Build it as a functional "
            f"or Sequential model, or start from its trained weights."
        )


def _initialise(head, seed):
    """New initial weights for the head, from its own initialisers.

    Initialisers without a seed take theirs from Python's `random`, which is set for
    the moment, so that the new weights follow from `seed`.
    """
    state = random.getstate()
    try:
        random.seed(repr(tuple(int(number) for number in seed)))
        fresh = keras.models.clone_model(head)
    finally:
        random.setstate(state)
    for variable, new in zip(
        head.trainable_variables, fresh.trainable_variables, strict=True
    ):
        variable.assign(new)
