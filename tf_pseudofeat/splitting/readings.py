"""The meaning of a classifier's outputs, from its final activation and its loss."""

import dataclasses

import keras

__all__ = ["Reading", "reading_of"]

_SQUARES = ("mean_", "huber", "log_cosh", "logcosh")
_MARGIN = ("hinge", "squared_hinge", "categorical_hinge")


@dataclasses.dataclass(frozen=True)
class Reading:
    """The meaning of outputs.

    Attributes:
        meaning: "logits"; "probabilities", if the values look like some; or "numbers"
            that are not log-odds, because they are trained by a squared error, by a
            margin, or as if they were probabilities.
        threshold: a single output above it means class 1.
        reason: what the meaning follows from.
    """

    meaning: str
    threshold: float
    reason: str


def reading_of(activation, loss=None):
    """Returns the `Reading` of outputs.

    Args:
        activation: name of the final activation; None if unknown.
        loss: what `compile` takes, or None. With a cross-entropy with
            `from_logits=True`, or an unknown loss, a linear output gives logits.
    """
    ends = f"it ends in activation {activation!r}"
    if activation in ("softmax", "sigmoid"):
        return Reading("probabilities", 0.5, ends)
    name = _name(loss)
    trained = f"{ends} and is trained with the loss {name!r}"
    if name in _MARGIN:
        return Reading("numbers", 0.0, trained)
    if name.startswith(_SQUARES):
        return Reading("numbers", 0.5, trained)
    from_logits = getattr(loss, "from_logits", False)
    if activation == "linear" and name.endswith("crossentropy") and not from_logits:
        reason = f"{trained}, which takes probabilities: from_logits is not True"
        return Reading("numbers", 0.5, reason)
    if activation in ("linear", "log_softmax"):
        return Reading("logits", 0.0, ends)
    if from_logits:
        return Reading("logits", 0.0, trained)
    return Reading("probabilities", 0.5, ends)


def _name(loss):
    """The name of the Keras function of a loss, "" if there is none."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:  # "crossentropy": Keras chooses one by the labels
            return loss
    function = getattr(loss, "fn", loss)  # of a `keras.losses.Loss`
    return getattr(function, "__name__", "")
