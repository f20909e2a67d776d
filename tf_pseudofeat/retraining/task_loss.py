"""The loss of the head's training."""

import keras

from tf_pseudofeat.head.balanced_losses import BalancedLoss

__all__ = ["resolve_loss"]


def _check_unbalanced(loss, given):
    if isinstance(loss, BalancedLoss):
        whose = "`loss` is" if given else "The model was compiled with"
        raise ValueError(
            f"{whose} a {type(loss).__name__}, which balances the classes, as "
            f"pseudo-features do: together they correct twice. Pass the plain "
            f"cross-entropy as `loss`, and tau=0."
        )


def resolve_loss(model, chosen, loss, activation, width, labels):
    """The given loss, the compiled one, or the cross-entropy of the last activation."""
    given = loss is not None
    if loss is None:
        loss = getattr(model, "loss", None)
        if chosen.names:
            loss = chosen.of(loss, "model.loss", optional=True)
    losses = [one for one in keras.tree.flatten(loss) if one is not None]
    if losses:
        _check_unbalanced(losses[0], given)
        return losses[0]
    one_hot = labels.ndim == 2 and labels.shape[1] > 1
    if activation == "softmax":
        return ("" if one_hot else "sparse_") + "categorical_crossentropy"
    if activation == "sigmoid" and width == 1:
        return "binary_crossentropy"
    raise ValueError(
        f"{model.name!r} is not compiled and ends in activation {activation!r}, so its "
        f"loss is unknown. Pass `loss`, for logits for example "
        f"keras.losses.SparseCategoricalCrossentropy(from_logits=True)."
    )
