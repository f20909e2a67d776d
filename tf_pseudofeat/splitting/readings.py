"""What a classifier's outputs mean: by what makes them, and by the loss they had."""

import dataclasses

import keras

__all__ = ["Reading", "reading_of"]

_SQUARES = ("mean_", "huber", "log_cosh", "logcosh")
_MARGIN = ("hinge", "squared_hinge", "categorical_hinge")


@dataclasses.dataclass(frozen=True)
class Reading:
    """How outputs are read.

    Attributes:
        meaning: "logits"; "numbers" that are trained to be near the labels, or beyond
            a margin, or as if they were probabilities, and are no log-odds;
            "probabilities", where they look like some.
        threshold: above it one output means class 1.
        reason: what the meaning follows from, in words.
    """

    meaning: str
    threshold: float
    reason: str


def reading_of(activation, loss=None):
    """The `Reading` of outputs.

    Args:
        activation: the name of what makes them; None where nobody knows.
        loss: what `compile` takes; None where there is none. A cross-entropy with
            `from_logits=True`, and a loss that nobody knows, make logits of a linear
            output.
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
    """The name of a loss as Keras's function has it, "" where there is none."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:  # "crossentropy", which Keras chooses by the labels
            return loss
    function = getattr(loss, "fn", loss)  # of a `keras.losses.Loss`
    return getattr(function, "__name__", "")
