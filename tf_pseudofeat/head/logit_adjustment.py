"""Logit adjustment: takes the class prior off the outputs of a trained classifier."""

import warnings

import keras
import numpy as np

from tf_pseudofeat.core.distribution import scope_of
from tf_pseudofeat.data.preprocessing import preprocesses
from tf_pseudofeat.head.adjustable import output_width
from tf_pseudofeat.head.assumed_prior import (
    check_tau,
    logit_offsets,
    prior_shares,
    target_shares,
)
from tf_pseudofeat.splitting.activation import (
    activation_name,
    logits_behind,
    output_activation,
    output_node,
)
from tf_pseudofeat.splitting.graph import functional

__all__ = ["LogitAdjustment", "adjust_logits"]


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

    Examples:
        >>> adjusted = adjust_logits(model, class_counts(labels))
        >>> adjusted.predict(images).argmax(axis=-1)
        >>> deployed = adjust_logits(retrained, report, target_prior="training")
        >>> balanced = adjust_logits(deployed, target_prior="uniform")

    References:
        Menon et al., "Long-tail learning via logit adjustment", arXiv 2007.07314, ICLR
        2021; the post-hoc adjustment. There the counts are those of the training data;
        here those of the mix that trained the head, whose prior the logits follow.
    """
    width, tau = output_width(model), check_tau(tau)
    _check_no_preprocessor(model)
    if target_prior is not None and tau != 1:
        raise ValueError(
            f"tau={tau:g} leaves a prior of its own, and `target_prior` says which one "
            f"there is to be. Choose one of the two."
        )
    network, classes = functional(model), max(2, width)
    prior = _assumed(model, class_counts, classes)
    target = target_shares(target_prior, class_counts, classes)
    offsets = logit_offsets(prior, tau, width)
    if target is None:
        target = prior ** (1 - tau)
        target /= target.sum()
    else:
        offsets = offsets - logit_offsets(target, 1.0, width)
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
    return prior_shares(class_counts, classes)


def _adjustment_of(model):
    """The `LogitAdjustment` that a model ends in, or None."""
    last = output_node(functional(model).outputs[0]).operation
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


def _check_no_preprocessor(model):
    if preprocesses(model):
        raise ValueError(
            f"`predict` of {model.name!r} preprocesses, and that of an adjusted model, "
            f"a plain keras.Model, would not. Adjust it in place, retrain_head(..., "
            f"blend=1, tau=1); or adjust keras.Model(model.inputs, model.outputs), and "
            f"pass it what `model.preprocessor(x)` gives."
        )
