"""Logit adjustment: takes the class prior off the outputs of a trained classifier."""

import math
import warnings

import keras
import numpy as np

from tf_pseudofeat.core.strategies import scope_of
from tf_pseudofeat.data.preprocessing import preprocesses
from tf_pseudofeat.head.priors import by_class, positive_shares
from tf_pseudofeat.splitting.activation import (
    activation_name,
    logits_behind,
    maker,
    output_activation,
)
from tf_pseudofeat.splitting.graph import Graph, check_is_keras_3, functional
from tf_pseudofeat.splitting.readings import reading_of

__all__ = [
    "LogitAdjustment",
    "adjust_logits",
    "check_movable",
    "check_tau",
    "final_dense",
    "shift_bias",
]

_ACTIVATIONS = ("softmax", "log_softmax", "linear", "sigmoid")


def adjust_logits(
    model: keras.Model,
    class_counts: object = None,
    tau: float = 1.0,
    *,
    target_prior: object = None,
) -> keras.Model:
    """A copy of the classifier, sharing its layers, that assumes other class shares.

    Use it where the head was trained on a mix that is not balanced, and every class is
    to count alike; or where a retrained head is to be right on the class shares of its
    deployment. It costs no training. `model` stays as it is. With prior = counts / sum
    of counts, the new outputs are

        logits       z - tau * log(prior) + log(target)
        softmax      softmax(log(p) - tau * log(prior) + log(target))
        log_softmax  log_softmax(log(p) - tau * log(prior) + log(target))

    and of one output `[B, 1]`, which stands for class 1 of two, the same of
    prior[1] / prior[0] and target[1] / target[0].

    Args:
        model: Keras model with a graph of layers and one output `[B, C]` or `[B, 1]`.
        class_counts: examples per class that the head was trained on, `[C]` in the
            order of the class ids or {id: number}, a dict or pandas Series; or the
            `RetrainingReport` of its retraining, whose `prior` its outputs follow. Of
            a model that this function made, None for the prior that its outputs
            assume.
        tau: how much of the prior to take off: 0 nothing, 1 all of it.
        target_prior: the class shares that the new outputs assume: "uniform", which is
            no term; "training", those of the training data, where they are known from
            `class_counts`; or numbers, as `class_counts`.

    Returns:
        adjusted: functional Keras model, not compiled, with the inputs and the output
            structure and dtype of `model`, ending in a `LogitAdjustment`.

    Raises:
        ValueError: The model has no graph, outputs of another kind or a KerasHub
            preprocessor, which the copy would not have; a class has no example;
            `tau` other than 1 beside `target_prior`.

    Warns:
        UserWarning: The prior seems to have been taken off already.

    Example:

    >>> adjusted = adjust_logits(model, class_counts(labels))
    >>> adjusted.predict(images).argmax(axis=-1)
    >>> deployed = adjust_logits(retrained, report, target_prior="training")
    >>> balanced = adjust_logits(deployed, target_prior="uniform")

    References:
        Menon et al., "Long-tail learning via logit adjustment", arXiv 2007.07314, ICLR
        2021; the post-hoc adjustment. There the counts are those of the training data;
        here those of the mix that trained the head, whose prior the logits follow.
    """
    width, tau = _output_width(model), check_tau(tau)
    _check_no_preprocessor(model)
    if target_prior is not None and tau != 1:
        raise ValueError(
            f"tau={tau:g} leaves a prior of its own, and `target_prior` says which one "
            f"there is to be. Choose one of the two."
        )
    network, classes = functional(model), max(2, width)
    prior = _assumed(model, class_counts, classes)
    target = _target(target_prior, class_counts, classes)
    offsets = _offsets(prior, tau, width)
    if target is None:
        target = prior ** (1 - tau)
        target /= target.sum()
    else:
        offsets = offsets - _offsets(target, 1.0, width)
    if offsets.any() and class_counts is not None:
        _warn_if_adjusted(model, prior)
    with scope_of(model):
        layer = LogitAdjustment(
            offsets,
            output_activation(model),
            prior=target,
            dtype=network.outputs[0].dtype,
        )
        outputs = keras.tree.map_structure(layer, network.output)
        return keras.Model(network.input, outputs, name=f"{model.name}_adjusted")


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class LogitAdjustment(keras.layers.Layer):
    """Subtracts offsets from the logits behind a classifier's outputs.

    The outputs are of the kind of the inputs: logits, probabilities or their logs.

    Args:
        offsets: what to subtract, `[C]`, or `[1]` for one output.
        activation: what made the inputs: "softmax", "log_softmax", "linear" or, for
            one output, "sigmoid".
        prior: the class shares that the outputs assume, `[C]`, or None.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, offsets, activation, prior=None, **kwargs):
        super().__init__(**kwargs)
        self.prior = None if prior is None else [float(share) for share in prior]
        self.offsets = [float(offset) for offset in offsets]
        self.activation = keras.activations.get(activation)

    def call(self, inputs):
        """Adjusts outputs `[B, C]`."""
        dtype = keras.backend.result_type(inputs.dtype, "float32")  # no half precision
        logits = logits_behind(keras.ops.cast(inputs, dtype), activation_name(self))
        offsets = keras.ops.convert_to_tensor(list(self.offsets), dtype=dtype)
        return keras.ops.cast(self.activation(logits - offsets), self.compute_dtype)

    def get_config(self):
        """The arguments that make this layer again."""
        return {
            **super().get_config(),
            "offsets": list(self.offsets),
            "activation": activation_name(self),
            "prior": None if self.prior is None else list(self.prior),
        }


def shift_bias(model, class_counts, tau=1.0):
    """Takes the prior off the bias of the last Dense layer, in place.

        bias - tau * log(prior)                   [C]
        bias - tau * log(prior[1] / prior[0])     [1]

    `model` then gives what `adjust_logits` would, exactly also where its probabilities
    round to 0 or 1, and so does every model that shares the layer.

    Raises:
        ValueError: `final_dense` finds no such layer; otherwise as in `adjust_logits`.
    """
    width = _output_width(model)
    dense = final_dense(model)
    if dense is None:
        raise ValueError(
            f"The logits of {model.name!r} do not come from the bias of a Dense layer "
            f"of their own, with nothing but an activation behind it, so there is "
            f"nothing to shift. adjust_logits(model, class_counts) adds a layer."
        )
    offsets = _offsets(class_counts, tau, width)
    with scope_of(model):
        dense.bias.assign(keras.ops.convert_to_numpy(dense.bias) - offsets)


def final_dense(model):
    """The Dense layer whose bias moves the logits of `model`, or None.

    It has a bias, can be trained and is called once. Nested models, casts and an
    activation of its own are looked through.
    """
    check_is_keras_3(model)
    if _refusal(model):
        return None
    network = functional(model)
    node = maker(network.outputs[0])
    if _only_activates(node.operation):
        node = maker(node.arguments.keras_tensors[0])
        if activation_name(node.operation) != "linear":
            return None
    dense = node.operation
    plain = getattr(type(dense), "call", None) is keras.layers.Dense.call
    movable = plain and dense.bias is not None and dense.trainable
    return dense if movable and _calls(network, dense) == 1 else None


def check_tau(tau):
    """`tau` as a float; raises ValueError where it is no finite number."""
    try:
        if math.isfinite(tau):
            return float(tau)
    except TypeError:
        pass
    raise ValueError(f"`tau` is a finite number, by custom 1; received {tau!r}.")


def check_movable(head, option):
    """Raises where `shift_bias` could not do what `option`, such as tau=1, asks for."""
    if final_dense(head) is None:
        raise ValueError(
            f"{option} shifts the bias of the Dense layer that makes the logits, and "
            f"{head.name!r} does not end in one of its own that can be trained. Leave "
            f"it out and put "
            f"adjust_logits(model, report) behind the retraining."
        )


# Priors.


def _assumed(model, class_counts, classes):
    """The class shares `[C]` that the model's outputs assume."""
    if class_counts is None:
        layer = _adjustment_of(model)
        if layer is None or layer.prior is None:
            raise ValueError(
                f"{model.name!r} does not say which class shares its outputs assume. "
                f"Pass `class_counts`, the examples per class that its head was "
                f"trained on, or the report of its retraining."
            )
        return np.array(layer.prior)
    return _shares(class_counts, classes)


def _shares(class_counts, classes):
    """Counts, or the prior of a report, checked, as shares `[C]` of their sum."""
    if hasattr(class_counts, "prior"):
        class_counts = class_counts.prior
    numbers = by_class(class_counts, classes, "class_counts")
    return positive_shares(numbers, "class_counts")


def _target(target, class_counts, classes):
    """`target_prior` as shares `[C]`; None where it is None."""
    if target is None:
        return None
    if not isinstance(target, str):
        return positive_shares(
            by_class(target, classes, "target_prior"), "target_prior"
        )
    if target == "uniform":
        return np.full(classes, 1 / classes)
    if target != "training" or class_counts is None:
        raise ValueError(
            f"`target_prior` is 'uniform', one share per class, or 'training' beside "
            f"the counts or the report of a training; received {target!r}."
        )
    is_report = hasattr(class_counts, "prior")
    return _shares(class_counts.real if is_report else class_counts, classes)


def _offsets(class_counts, tau, width):
    """What comes off the logits `[C]`, or `[1]`."""
    log_prior = np.log(_shares(class_counts, max(2, width)))
    if width == 1:
        log_prior = log_prior[1:] - log_prior[:1]
    return check_tau(tau) * log_prior


def _adjustment_of(model):
    """The `LogitAdjustment` that a model ends in, or None."""
    last = maker(functional(model).outputs[0]).operation
    return last if isinstance(last, LogitAdjustment) else None


def _warn_if_adjusted(model, prior):
    last = _adjustment_of(model)
    if last is None or not any(last.offsets):
        return
    if last.prior is not None and np.allclose(last.prior, prior, rtol=1e-3):
        return  # which is what its outputs assume
    warnings.warn(
        f"This looks like a double correction of {model.name!r}: it ends in "
        f"{last.name!r}, which subtracts {np.round(last.offsets, 2).tolist()} from "
        f"the logits. Adjust the model that it was made from, or leave "
        f"`class_counts` out.",
        stacklevel=3,
    )


# Outputs.


def _output_width(model):
    """C, or 1, of outputs that can be adjusted."""
    check_is_keras_3(model)
    reason = _refusal(model)
    if reason:
        raise ValueError(f"Cannot adjust the logits of {model.name!r}: {reason}")
    return functional(model).outputs[0].shape[-1]


def _check_no_preprocessor(model):
    if preprocesses(model):
        raise ValueError(
            f"`predict` of {model.name!r} preprocesses, and that of an adjusted model, "
            f"a plain keras.Model, would not. Adjust it in place, retrain_head(..., "
            f"blend=1, tau=1); or adjust keras.Model(model.inputs, model.outputs), and "
            f"pass it what `model.preprocessor(x)` gives."
        )


def _refusal(model):
    """Says why the outputs cannot be adjusted, "" if they can."""
    network = functional(model)
    if network is None:
        return (
            f"a {type(model).__name__} without a graph of layers does not tell what "
            f"its outputs are. Build it if it is Sequential; or wrap its head in a "
            f"functional model."
        )
    shapes = [list(tensor.shape) for tensor in network.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2 or not shapes[0][1]:
        return f"its outputs have shapes {shapes}, expected one output [B, C]."
    activation, width = output_activation(model), shapes[0][1]
    if activation not in _ACTIVATIONS:
        return (
            f"it ends in activation {activation!r}, expected one of {_ACTIVATIONS}. "
            f"Use a model that ends in the layer that makes the logits."
        )
    reading = reading_of(activation, getattr(model, "loss", None))
    if reading.meaning == "numbers":
        return f"its outputs are no log-odds, as {reading.reason}."
    if activation != "linear" and (activation == "sigmoid") != (width == 1):
        return (
            f"it has {width} output(s) with {activation}, expected sigmoid for one "
            f"output, of two classes, and softmax for more."
        )
    return ""


def _only_activates(operation):
    kinds = keras.layers.Activation | keras.layers.Softmax
    return isinstance(operation, kinds) or not isinstance(operation, keras.layers.Layer)


def _calls(network, layer):
    """How often the graph calls `layer`, at any depth."""
    calls = 0
    for node in Graph(network).nodes:
        calls += node.operation is layer
        if functional(node.operation) is not None:
            calls += _calls(node.operation, layer)
    return calls
