"""Losses for training on imbalanced data from the start.

Baselines for retraining if the whole network can still be trained. Their models are
already balanced.
"""

from typing import Any

import keras
import numpy as np

from tf_pseudofeat.head.priors import by_class, positive_shares

__all__ = ["BalancedLoss", "BalancedSoftmax", "ClassBalancedCrossentropy"]

_TINY = 1e-30  # of a probability, in float32


class BalancedLoss(keras.losses.Loss):
    """Base class of the balanced losses.

    Args:
        counts: training examples of each class `[C]`, a list, an array, or a dict
            {class id: number}; see `class_counts`.
        from_logits: whether outputs are logits rather than probabilities.
        **settings: `name`, `reduction` and `dtype`, as for every Keras loss.
    """

    def __init__(self, counts: Any, from_logits: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        numbers = by_class(counts, len(counts) if np.iterable(counts) else 1, "counts")
        self._shares = positive_shares(numbers, "counts")
        if numbers.size < 2:
            raise ValueError(
                f"`counts` must have two classes or more; received {counts}."
            )
        self.counts = tuple(numbers.tolist())
        self.from_logits = bool(from_logits)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras saves them."""
        own = {"counts": list(self.counts), "from_logits": self.from_logits}
        return super().get_config() | own

    def _one_hot_and_logits(self, y_true, y_pred):
        """One-hot labels and logits, `[B, C]`, from outputs `[B, C]` or `[B, 1]`."""
        ops, num_classes = keras.ops, len(self.counts)
        y_pred = ops.convert_to_tensor(y_pred)
        width = y_pred.shape[-1]
        if width != num_classes and (width, num_classes) != (1, 2):
            raise ValueError(
                f"`counts` has {num_classes} classes; received outputs "
                f"{list(y_pred.shape)}. Pass one count for each class."
            )
        if width == 1 and self.from_logits:
            y_pred = ops.concatenate([ops.zeros_like(y_pred), y_pred], axis=-1)
        elif width == 1:
            y_pred = ops.concatenate([1 - y_pred, y_pred], axis=-1)
        if not self.from_logits:
            y_pred = ops.log(ops.maximum(y_pred, _TINY))
        y_true = ops.convert_to_tensor(y_true)
        if len(y_true.shape) < 2 or y_true.shape[-1] == 1:
            ids = ops.cast(ops.reshape(y_true, (-1,)), "int32")
            y_true = ops.one_hot(ids, num_classes)
        return ops.cast(y_true, y_pred.dtype), y_pred


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class BalancedSoftmax(BalancedLoss):
    """Cross-entropy of logits plus the log prior, in training only.

        loss = -log softmax(logits + log(counts))[label]

    So the logits assume balanced classes, and inference adds nothing. Logit adjustment
    does the same to a trained model, see `adjust_logits`.

    Args:
        counts: see `BalancedLoss`, also for the other arguments.

    Raises:
        ValueError: If a class has no example, or there are fewer than two; in a call,
            if outputs have another number of classes.

    Examples:
        >>> loss = BalancedSoftmax(class_counts(labels), from_logits=True)
        >>> model.compile("adam", loss)

    References:
        Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", arXiv
        2007.10740, 2020. Menon et al., "Long-tail learning via logit adjustment",
        arXiv 2007.07314, 2021.
    """

    def __init__(
        self,
        counts: Any,
        from_logits: bool = False,
        name: str = "balanced_softmax",
        **settings: Any,
    ) -> None:
        super().__init__(counts, from_logits, name=name, **settings)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss `[B]` of labels, ids or one-hot, and outputs."""
        one_hot, logits = self._one_hot_and_logits(y_true, y_pred)
        logits = logits + keras.ops.cast(np.log(self._shares), logits.dtype)
        return keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True)


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class ClassBalancedCrossentropy(BalancedLoss):
    """Cross-entropy weighted by the effective number of examples of each class.

        weight_c = (1 - beta) / (1 - beta^counts_c), scaled to mean 1 over classes
        loss     = -weight_label log softmax(logits)[label]

    Args:
        counts: see `BalancedLoss`, also for the other arguments.
        beta: in [0, 1). 0 gives equal weights; in the limit of 1 the weights are
            inverse counts.

    Raises:
        ValueError: As in `BalancedSoftmax`, or if `beta` is not in [0, 1).

    Examples:
        >>> model.compile("adam", ClassBalancedCrossentropy(class_counts(labels)))

    References:
        Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", arXiv
        1901.05555, 2019.
    """

    def __init__(
        self,
        counts: Any,
        beta: float = 0.9999,
        from_logits: bool = False,
        name: str = "class_balanced_crossentropy",
        **settings: Any,
    ) -> None:
        super().__init__(counts, from_logits, name=name, **settings)
        if not 0 <= beta < 1:
            raise ValueError(f"`beta` must be in [0, 1); received {beta!r}.")
        self.beta = float(beta)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras saves them."""
        return super().get_config() | {"beta": self.beta}

    def class_weights(self) -> np.ndarray:
        """The class weights, float64 `[C]`, with mean 1."""
        # 1 - beta^n, accurate for beta close to 1.
        effective = -np.expm1(np.array(self.counts) * np.log1p(self.beta - 1))
        return len(self.counts) / effective / (1 / effective).sum()

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss `[B]` of labels, ids or one-hot, and outputs."""
        one_hot, logits = self._one_hot_and_logits(y_true, y_pred)
        weight = keras.ops.cast(self.class_weights(), logits.dtype)
        loss = keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True)
        return loss * keras.ops.sum(one_hot * weight, axis=-1)
