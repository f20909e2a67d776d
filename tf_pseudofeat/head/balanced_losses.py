"""Losses for training on imbalanced data from the start.

Rivals of a retraining where the whole network can still be trained. A model that was
trained with one of them has its classes balanced already.
"""

from typing import Any

import keras
import numpy as np

from tf_pseudofeat.head.priors import by_class, positive_shares

__all__ = ["BalancedLoss", "BalancedSoftmax", "ClassBalancedCrossentropy"]

_TINY = 1e-30  # of a probability, in float32


class BalancedLoss(keras.losses.Loss):
    """What the two have in common.

    Args:
        counts: training examples of each class `[C]`, a list, an array, or a dict
            {class id: number}; see `class_counts`.
        from_logits: whether outputs are logits, and not probabilities.
        **settings: `name`, `reduction` and `dtype`, as of every Keras loss.
    """

    def __init__(self, counts: Any, from_logits: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        numbers = by_class(counts, len(counts) if np.iterable(counts) else 1, "counts")
        self._shares = positive_shares(numbers, "counts")
        if numbers.size < 2:
            raise ValueError(f"`counts` is of two classes or more; received {counts}.")
        self.counts = tuple(numbers.tolist())
        self.from_logits = bool(from_logits)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras saves them."""
        own = {"counts": list(self.counts), "from_logits": self.from_logits}
        return super().get_config() | own

    def _one_hot_and_logits(self, y_true, y_pred):
        """Both `[B, C]`, of outputs `[B, C]`, or `[B, 1]` for two classes."""
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
    """Cross-entropy of logits that have the prior put on, in training only.

        loss = -log softmax(logits + log(counts))[label]

    So the logits themselves follow balanced classes: nothing is added when the model is
    used. Logit adjustment does the same to a trained model, see `adjust_logits`.

    Args:
        counts: see `BalancedLoss`, as for the rest.

    Raises:
        ValueError: A class has no example, or there are fewer than two; in a call,
            outputs of another number of classes.

    Example:

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
        """Loss `[B]` of labels, ids or one-hot, and outputs."""
        one_hot, logits = self._one_hot_and_logits(y_true, y_pred)
        logits = logits + keras.ops.cast(np.log(self._shares), logits.dtype)
        return keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True)


@keras.saving.register_keras_serializable(package="tf_pseudofeat")
class ClassBalancedCrossentropy(BalancedLoss):
    """Cross-entropy weighted by the effective number of examples of each class.

        weight_c = (1 - beta) / (1 - beta^counts_c), scaled to the mean 1 over classes
        loss     = -weight_label log softmax(logits)[label]

    Args:
        counts: see `BalancedLoss`, as for the rest.
        beta: from 0, all classes weigh the same, to below 1, towards which the weights
            are those of inverse counts.

    Raises:
        ValueError: As `BalancedSoftmax`, or `beta` is not in [0, 1).

    Example:

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
            raise ValueError(f"`beta` is in [0, 1); received {beta!r}.")
        self.beta = float(beta)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras saves them."""
        return super().get_config() | {"beta": self.beta}

    def class_weights(self) -> np.ndarray:
        """The weight of each class, float64 `[C]`, of mean 1."""
        # 1 - beta^n without the loss of digits where beta is near 1.
        effective = -np.expm1(np.array(self.counts) * np.log1p(self.beta - 1))
        return len(self.counts) / effective / (1 / effective).sum()

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss `[B]` of labels, ids or one-hot, and outputs."""
        one_hot, logits = self._one_hot_and_logits(y_true, y_pred)
        weight = keras.ops.cast(self.class_weights(), logits.dtype)
        loss = keras.losses.categorical_crossentropy(one_hot, logits, from_logits=True)
        return loss * keras.ops.sum(one_hot * weight, axis=-1)
