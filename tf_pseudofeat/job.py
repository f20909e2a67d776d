"""Everything that a retraining needs, resolved and checked before it costs anything."""

import dataclasses
import warnings

import keras
import numpy as np

from tf_pseudofeat.activation import output_activation
from tf_pseudofeat.adjust import check_tau
from tf_pseudofeat.arguments import (
    check_weights,
    is_infinite,
    stateless_seed,
    whole_number,
)
from tf_pseudofeat.blend import check_blend
from tf_pseudofeat.budget import check_strategy
from tf_pseudofeat.features import (
    augment_once,
    check_augmentation,
    check_cache,
    check_data,
    first_batch,
    labels_at_hand,
)
from tf_pseudofeat.gaussian import check_gaussian
from tf_pseudofeat.graph import check_is_keras_3, functional
from tf_pseudofeat.head import borrowed, check_can_be_fresh
from tf_pseudofeat.labels import class_ids
from tf_pseudofeat.losses import check_loss
from tf_pseudofeat.outputs import Output, all_outputs, choose_output
from tf_pseudofeat.scores import check_monitor
from tf_pseudofeat.split import Split, split_at
from tf_pseudofeat.strategies import check_one_worker, model_strategy

__all__ = ["Job", "broken_weights", "check_job"]


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What a retraining works with.

    Attributes:
        output: which of the model's outputs is cured.
        data: training data, with the labels of the chosen output.
        validation_data: the same for scoring, or None.
        trunk: model from inputs to features.
        head: model from features to outputs, sharing its layers with the user's model.
        layer_name: where the two meet.
        loss: what `compile` takes.
        num_classes: C; 2 for a model with one output.
        threshold: above it a single output means class 1.
        strategy: the model's `tf.distribute` strategy, None where there is none.
    """

    output: Output
    data: object
    validation_data: object
    trunk: keras.Model
    head: keras.Model
    layer_name: str
    loss: object
    num_classes: int
    threshold: float
    strategy: object


def check_job(
    model,
    layer_name,
    data,
    *,
    validation_data=None,
    output=None,
    gaussian=None,
    sampler=None,
    epochs=None,
    batch_size=256,
    sampling_strategy="auto",
    optimizer=None,
    loss=None,
    monitor="balanced_accuracy",
    augment=None,
    views=None,
    tau=0.0,
    blend=0.0,
    fresh_head=False,
    freeze_batch_norm=True,
    settings=None,
    steps=None,
    cache_dir=None,
    trunk=None,
    head=None,
    seed=(1, 2),
    **other_settings,
):
    """Checks the arguments of `retrain_head` on one batch, without training anything.

    Args:
        model: see `retrain_head`, as for all arguments; `other_settings` are those
            that need no check here.

    Returns:
        job: `Job`.

    Raises:
        ValueError: Something does not fit.
        TypeError: `model` or `data` is something else.
    """
    del other_settings
    _check_settings(
        settings,
        gaussian=gaussian is not None,
        sampler=sampler is not None,
        sampling_strategy=sampling_strategy != "auto",
        fresh_head=fresh_head,
        blend=blend,
        tau=tau,
        optimizer=optimizer is not None,
    )
    if cache_dir is not None:
        _check_cache(cache_dir, sampler)
    check_is_keras_3(model)
    check_one_worker(model)
    _check_weights(model)
    chosen = choose_output(model, output)
    data = chosen.data(data)
    check_data(data, steps)
    if validation_data is not None:
        validation_data = chosen.data(validation_data)
        _check_validation(validation_data)
    check_augmentation(augment, views)
    check_blend(blend, fresh_head)
    stateless_seed(seed)
    whole_number("epochs", 1 if epochs is None else epochs)
    whole_number("batch_size", batch_size)
    _check_optimizer(model, optimizer)
    check_monitor(monitor)
    x, labels, weight = first_batch(data)
    split = _split(model, layer_name, trunk, head, chosen, x)
    split.check(model, x)
    _check_other_outputs(model, chosen, split)
    _check_augmented(augment, x)
    check_tau(tau, split.head)
    if fresh_head:
        check_can_be_fresh(split.head)
    with borrowed(split.head, freeze_batch_norm):
        pass  # there is something to train
    outputs = _outputs(model, chosen, x)
    num_classes = max(2, outputs.shape[-1])
    if len(labels) != len(outputs):
        raise ValueError(
            f"The first batch has {len(outputs)} inputs and {len(labels)} labels; each "
            f"example needs a label of its own."
        )
    at_hand = labels_at_hand(data, labels)
    class_ids(at_hand, num_classes)
    if weight is not None:
        weight = np.asarray(keras.ops.convert_to_numpy(weight))
        check_weights(weight, len(outputs))
    if validation_data is not None:
        first = first_batch(validation_data)[1]
        class_ids(labels_at_hand(validation_data, first), num_classes)
    check_strategy(sampling_strategy, num_classes)
    _check_source(gaussian, sampler, sampling_strategy, weight, num_classes)
    activation = output_activation(split.head)
    loss = _loss(model, chosen, loss, activation, outputs.shape[-1], at_hand)
    check_loss(loss, outputs, labels, weight)
    return Job(
        output=chosen,
        data=data,
        validation_data=validation_data,
        trunk=split.trunk,
        head=split.head,
        layer_name=split.layer_name,
        loss=loss,
        num_classes=num_classes,
        threshold=0.0 if _gives_logits(activation, loss) else 0.5,
        strategy=model_strategy(model),
    )


def broken_weights(model):
    """The paths of the weights that a training has broken: NaN, or without bound."""
    broken = []
    for variable in model.weights:
        values = keras.ops.convert_to_numpy(variable)
        if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
            continue
        # A weight that nobody trains may be a mask of minus infinity.
        fits = np.isfinite(values) if variable.trainable else ~np.isnan(values)
        if not fits.all():
            broken.append(variable.path)
    return broken


def _check_weights(model):
    broken = broken_weights(model)
    if broken:
        raise ValueError(
            f"{len(broken)} weights of {model.name!r} are NaN or infinite, the first "
            f"is {broken[0]!r}: its training has broken down, and a new head cannot "
            f"mend the trunk. Load a checkpoint from before."
        )


def _check_settings(settings, **given):
    if settings not in (None, "auto"):
        raise ValueError(
            f"`settings` is 'auto', or None for those that are given; received "
            f"{settings!r}."
        )
    given = [name for name, is_given in given.items() if is_given]
    if settings and given:
        raise ValueError(
            f"settings='auto' chooses for itself; leave out {given}, or `settings`."
        )


def _check_cache(cache_dir, sampler):
    if sampler is not None:
        raise ValueError(
            f"imbalanced-learn's {type(sampler).__name__} needs all features in "
            f"memory, and `cache_dir` is for those that do not fit. Leave one of them "
            f"out; the Gaussians take features from files."
        )
    check_cache(cache_dir)


def _check_augmented(augment, x):
    """One batch, so that a function that cannot work fails now."""
    if augment is None:
        return
    before, after = (
        [tuple(np.shape(leaf)) for leaf in keras.tree.flatten(batch)]
        for batch in (x, augment_once(augment, x))
    )
    if before != after:
        raise ValueError(
            f"`augment` gives inputs of shapes {after} for inputs of shapes {before}; "
            f"it must change what is in a batch and not its shape."
        )


def _check_validation(data):
    if is_infinite(data):
        raise ValueError(
            "`validation_data` is infinite (`repeat()`?), and `steps` are those of "
            "`data`. Pass it as it was before, or validation_data.take(n)."
        )
    check_data(data)


def _check_optimizer(model, optimizer):
    if optimizer is None:
        return
    keras.optimizers.get(optimizer)  # refuses an unknown name
    if optimizer is getattr(model, "optimizer", None):
        raise ValueError(
            f"`optimizer` is the one that {model.name!r} was compiled with, which a "
            f"retraining leaves alone. Pass a new one, its name, or None for a new one "
            f"of its kind."
        )


def _split(model, layer_name, trunk, head, chosen, x):
    if (trunk is None) != (head is None):
        raise ValueError("Pass `trunk` and `head` together, or neither.")
    if trunk is None:
        if layer_name is None:
            raise ValueError("Name the layer to split at, or pass `trunk` and `head`.")
        if isinstance(model, keras.Sequential) and not model.built:
            model(x, training=False)  # as the first training step would
        split = split_at(model, layer_name, output=next(iter(chosen.names), None))
    else:
        chosen = chosen if chosen.names else None
        split = Split(trunk, head, layer_name or trunk.name, chosen)
    trunk_weights = {id(variable) for variable in split.trunk.trainable_variables}
    shared = [v.path for v in split.head.trainable_variables if id(v) in trunk_weights]
    if shared:
        raise ValueError(
            f"The head after {split.layer_name!r} cannot be trained alone: {shared} "
            f"are weights of the trunk, too, so the features would change under it. "
            f"Split after the last use of the shared layer."
        )
    return split


def _check_other_outputs(model, chosen, split):
    """Warns of outputs that read what is trained here for another one."""
    if not chosen.names or functional(model) is None:
        return
    trained = {id(variable) for variable in split.head.trainable_variables}
    changed = [
        other.names[0]
        for other in all_outputs(model)
        if other != chosen and not trained.isdisjoint(map(id, other.weights(model)))
    ]
    if changed:
        warnings.warn(
            f"The head of {chosen} shares layers with the outputs {changed}, which "
            f"will change with it. Split after the layers that they share to keep them "
            f"as they are.",
            stacklevel=4,
        )


def _outputs(model, chosen, x):
    outputs = model(x, training=False)  # `predict_on_batch` gives them per device
    if chosen.names:
        outputs = chosen.of(outputs, "model(x)")
    outputs = keras.tree.flatten(outputs)
    if len(outputs) != 1 or np.ndim(outputs[0]) != 2:
        shapes = [list(np.shape(output)) for output in outputs]
        raise ValueError(
            f"A classifier with one output [B, C] is needed; {model.name!r} gives "
            f"outputs of shapes {shapes}. Of several in a dict, choose one with "
            f"output='name'."
        )
    return keras.ops.convert_to_numpy(outputs[0])


def _check_source(gaussian, sampler, sampling_strategy, weight, num_classes):
    if gaussian is not None and sampler is not None:
        raise ValueError(
            "Pass `gaussian` or `sampler`, not both: one makes the examples."
        )
    if gaussian is not None:
        check_gaussian(gaussian)
    if gaussian is not None and gaussian.num_classes != num_classes:
        raise ValueError(
            f"`gaussian` has {gaussian.num_classes} classes, the model {num_classes}. "
            f"Pass ClassConditionalGaussian({num_classes})."
        )
    if sampler is not None and not hasattr(sampler, "fit_resample"):
        raise ValueError(
            f"`sampler` needs imbalanced-learn's `fit_resample(X, y)`; received "
            f"{type(sampler).__name__}."
        )
    if sampler is not None and sampling_strategy != "auto":
        raise ValueError(
            f"`sampling_strategy` steers the Gaussians, and there is a `sampler`. Set "
            f"it there, {type(sampler).__name__}(sampling_strategy=...)."
        )
    if sampler is not None and weight is not None:
        raise ValueError(
            "The data have sample weights, and imbalanced-learn's samplers know none. "
            "Map them away, or use the Gaussians."
        )


def _loss(model, chosen, loss, activation, width, labels):
    """The given loss, the compiled one, or the cross-entropy of the last activation."""
    if loss is None:
        loss = getattr(model, "loss", None)
        if chosen.names:
            loss = chosen.of(loss, "model.loss", optional=True)
    losses = [one for one in keras.tree.flatten(loss) if one is not None]
    if losses:
        return losses[0]
    one_hot = labels.ndim == 2 and labels.shape[1] > 1
    if activation == "softmax":
        return ("" if one_hot else "sparse_") + "categorical_crossentropy"
    if activation == "sigmoid" and width == 1:
        return "binary_crossentropy"
    raise ValueError(
        f"{model.name!r} is not compiled and ends in activation {activation!r}, which "
        f"does not say how it was trained. Pass `loss`, for logits for example "
        f"keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
    )


def _gives_logits(activation, loss):
    if activation in ("sigmoid", "softmax"):
        return False
    return activation == "linear" or bool(getattr(loss, "from_logits", False))
