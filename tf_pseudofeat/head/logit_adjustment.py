"""Logit adjustment: removes the class prior from the outputs of a classifier."""

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
    """Returns a model with the layers of a classifier that assumes other class shares.

    Use it if the head was trained on unbalanced data and all classes are equally
    important, or to adapt a retrained head to the class shares of its deployment. It
    needs no training, and `model` does not change. With prior = counts / sum of counts,
    the new outputs are

        logits       z - tau * log(prior) + log(target)
        softmax      softmax(log(p) - tau * log(prior) + log(target))
        log_softmax  log_softmax(log(p) - tau * log(prior) + log(target))

    and for one output `[B, 1]`, the logit or probability of class 1 of two, the same
    with prior[1] / prior[0] and target[1] / target[0].

    Args:
        model: Keras model with a graph of layers and one output `[B, C]` or `[B, 1]`.
        class_counts: examples per class that the head was trained on, `[C]` in the
            order of the class ids or {id: number}, a dict or pandas Series; or the
            `RetrainingReport` of its retraining. None for a model that this function
            returned, to use the prior that its outputs assume.
        tau: strength of the adjustment: 0 for none, 1 to remove the whole prior.
        target_prior: the class shares that the new outputs assume: "uniform", for which
            the term is 0; "training", those of the training data in `class_counts`; or
            numbers, like `class_counts`.

    Returns:
        adjusted: functional Keras model, not compiled, with the inputs and the output
            structure and dtype of `model`, ending in a `LogitAdjustment`.

    Raises:
        ValueError: If the model has no graph, other outputs, or a KerasHub
            preprocessor, which the result would not have; if a class has no example; or
            if `tau` is not 1 with `target_prior`.

    Warns:
        UserWarning: If the prior seems to have been removed already.

    Examples:
        >>> adjusted = adjust_logits(model, class_counts(labels))
        >>> adjusted.predict(images).argmax(axis=-1)
        >>> deployed = adjust_logits(retrained, report, target_prior="training")
        >>> balanced = adjust_logits(deployed, target_prior="uniform")

    References:
        Menon et al., "Long-tail learning via logit adjustment", arXiv 2007.07314, ICLR
        2021; the post-hoc adjustment. There the counts are those of the training data;
        here those of the mix that the head was trained on.
    """
    width, tau = output_width(model), check_tau(tau)
    _check_no_preprocessor(model)
    if target_prior is not None and tau != 1:
        raise ValueError(
            f"tau={tau:g} and `target_prior` both determine the prior of the outputs. "
            f"Choose one of the two."
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

    The outputs have the kind of the inputs: logits, probabilities or log-probabilities.

    Args:
        offsets: offsets to subtract, `[C]`, or `[1]` for one output.
        activation: activation of the inputs: "softmax", "log_softmax", "linear" or, for
            one output, "sigmoid".
        prior: the class shares that the outputs assume, `[C]`, or None.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, offsets, activation, prior=None, **kwargs):
        super().__init__(**kwargs)
        self.prior = None if prior is None else [float(share) for share in prior]
        self.offsets = [float(offset) for offset in offsets]
        self.activation = keras.activations.get(activation)

    def call(self, inputs):
        """Adjusts outputs `[B, C]`."""
        dtype = keras.backend.result_type(inputs.dtype, "float32")  # at least float32
        logits = logits_behind(keras.ops.cast(inputs, dtype), activation_name(self))
        offsets = keras.ops.convert_to_tensor(list(self.offsets), dtype=dtype)
        return keras.ops.cast(self.activation(logits - offsets), self.compute_dtype)

    def get_config(self):
        """The constructor's arguments, as Keras saves them."""
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
                f"{model.name!r} has no record of the class shares that its outputs "
                f"assume. Pass `class_counts`, the examples per class that its head "
                f"was trained on, or the report of its retraining."
            )
        return np.array(layer.prior)
    return prior_shares(class_counts, classes)


def _adjustment_of(model):
    """The `LogitAdjustment` at the end of a model, or None."""
    last = output_node(functional(model).outputs[0]).operation
    return last if isinstance(last, LogitAdjustment) else None


def _warn_if_adjusted(model, prior):
    last = _adjustment_of(model)
    if last is None or not any(last.offsets):
        return
    if last.prior is not None and np.allclose(last.prior, prior, rtol=1e-3):
        return  # the prior that its outputs assume
    warnings.warn(
        f"This looks like a double correction of {model.name!r}: it ends in "
        f"{last.name!r}, which subtracts {np.round(last.offsets, 2).tolist()} from "
        f"the logits. Adjust the original model, or leave `class_counts` out.",
        stacklevel=3,
    )


def _check_no_preprocessor(model):
    if preprocesses(model):
        raise ValueError(
            f"`predict` of {model.name!r} preprocesses its inputs, but that of an "
            f"adjusted model, a plain keras.Model, does not. Adjust it in place, "
            f"retrain_head(..., blend=1, tau=1); or adjust keras.Model(model.inputs, "
            f"model.outputs), and pass it what `model.preprocessor(x)` returns."
        )
