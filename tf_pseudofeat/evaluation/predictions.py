"""Predictions of a classifier for labeled examples: probabilities and decisions."""

import dataclasses
import functools
from typing import Self

import keras
import numpy as np
import numpy.typing as npt
from scipy import special

from tf_pseudofeat.core.finite import check_any_weight, check_weights
from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.splitting.activation import logits_behind

__all__ = ["Predictions", "output_kind", "prior_offsets"]

_SUM_TOLERANCE = 1e-2  # of probabilities in half precision


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """Labels and outputs of a classifier for the same N examples.

    Args:
        labels: `[N]`, `[N, 1]` or one-hot `[N, C]`, as `fit` takes them.
        outputs: `[N, C]`, or `[N, 1]` for two classes.
        kind: "softmax" or "sigmoid" for probabilities, "linear" for logits, None if
            unknown, see `output_kind`.
        sample_weight: weights of the examples `[N]`, or None.
        threshold: a single output above it means class 1; by default 0 for logits, else
            0.5.

    Raises:
        ValueError: If an output of known kind is NaN; lengths differ; or weights are
            negative, not finite, or all 0.
    """

    labels: np.ndarray
    outputs: np.ndarray
    kind: str | None
    sample_weight: np.ndarray | None = None
    threshold: float | None = None

    def __post_init__(self):
        outputs = np.asarray(self.outputs)
        if outputs.dtype.name in ("float16", "bfloat16"):
            outputs = outputs.astype(np.float32)
        wrong = np.flatnonzero(np.isnan(outputs).any(axis=-1))
        if wrong.size and self.kind is not None:
            raise ValueError(
                f"`outputs` of the classifier are NaN for {wrong.size:,} of "
                f"{len(outputs):,} examples, first for example {wrong[0]:,}. Look for "
                f"NaN in its inputs and weights."
            )
        object.__setattr__(self, "outputs", outputs)
        if self.threshold is None:
            threshold = 0.0 if self.kind == "linear" else 0.5
            object.__setattr__(self, "threshold", threshold)
        if self.labels is not None and len(self.labels) != len(outputs):
            raise ValueError(
                f"Each example must have a label and an output; received "
                f"{len(self.labels):,} labels and {len(outputs):,} outputs."
            )
        if self.sample_weight is not None:
            weight = np.asarray(self.sample_weight)
            check_weights(weight, len(outputs))
            check_any_weight(weight)
            object.__setattr__(self, "sample_weight", weight)

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def num_classes(self) -> int:
        """C; 2 for one output."""
        return max(2, self.outputs.shape[1])

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """Class ids of the labels, int64 `[N]`."""
        return class_ids(self.labels, self.num_classes)

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """Float64 `[N, C]` or `[N, 1]`; outputs of unknown kind unchanged."""
        activation = self.kind or "linear"
        logits = logits_behind(self.outputs.astype(np.float64), activation)
        return keras.ops.convert_to_numpy(logits)

    @functools.cached_property
    def class_logits(self) -> np.ndarray:
        """`logits` with one column per class, `[N, C]`; 0 for class 0 of one output."""
        if self.logits.shape[1] > 1:
            return self.logits
        return np.concatenate([np.zeros_like(self.logits), self.logits], axis=1)

    @functools.cached_property
    def probabilities(self) -> np.ndarray | None:
        """Float64 `[N, C]`, rows that sum to 1; None if unknown."""
        if self.kind is None:
            return None
        if self.outputs.shape[1] == 1:
            positive = 1 / (1 + np.exp(-np.clip(self.logits, -700, 700)))
            return np.concatenate([1 - positive, positive], axis=1)
        powers = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    @functools.cached_property
    def log_probabilities(self) -> np.ndarray | None:
        """Logs of the probabilities, float64 `[N, C]`; None if unknown.

        Computed from the logits, so a probability that rounds to 0 has a finite log.
        """
        if self.kind is None:
            return None
        return special.log_softmax(self.class_logits, axis=1)

    @functools.cached_property
    def log_odds(self) -> np.ndarray | None:
        """Log-odds of each class against the rest, float64 `[N, C]`; None if unknown.

        They give the same ranking as the probabilities, which round to 0 and 1 sooner.
        """
        if self.kind is None:
            return None
        logits, rows = self.class_logits, np.arange(len(self))
        top = logits.argmax(axis=1)
        highest = logits[rows, top, np.newaxis]  # [N, 1]
        powers = np.exp(logits - highest)
        with np.errstate(
            divide="ignore"
        ):  # for the top class, which is corrected below
            rest = highest + np.log(powers.sum(axis=1, keepdims=True) - powers)
        others = logits.copy()
        others[rows, top] = -np.inf
        rest[rows, top] = special.logsumexp(others, axis=1)
        return logits - rest

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """The predicted class ids, int64 `[N]`."""
        if self.outputs.shape[1] > 1:
            return self.outputs.argmax(axis=1)
        return (self.outputs[:, 0] > self.threshold).astype(np.int64)

    def select(self, rows: npt.ArrayLike | slice) -> Self:
        """Selects examples by a mask `[N]` or row numbers `[M]`."""
        weight = self.sample_weight
        return dataclasses.replace(
            self,
            labels=np.asarray(self.labels)[rows],
            outputs=self.outputs[rows],
            sample_weight=None if weight is None else weight[rows],
        )

    def shifted(self, offsets: npt.ArrayLike, temperature: float = 1.0) -> Self:
        """Returns the predictions of `(logits - offsets) / temperature`.

        Args:
            offsets: offset of each class `[C]`.
            temperature: positive.
        """
        offsets = np.asarray(offsets, float)
        if self.outputs.shape[1] == 1:
            offsets = offsets[1:] - offsets[:1]
        logits = (self.logits - offsets) / temperature
        moved = Predictions(self.labels, logits, "linear", self.sample_weight)
        if self.kind == "softmax":
            outputs = moved.probabilities
        elif self.kind == "sigmoid":
            outputs = moved.probabilities[:, 1:]
        else:
            outputs = logits
        return dataclasses.replace(self, outputs=outputs)


def prior_offsets(old, new):
    """Log of class shares `[C]` minus that of others, for `Predictions.shifted`.

    Args:
        old: counts or shares `[C]` that outputs should assume.
        new: those that they assume.

    Returns:
        offsets: `[C]`; all 0 if a share is not positive.
    """
    old, new = np.asarray(old, float), np.asarray(new, float)
    if not ((old > 0) & (new > 0)).all():
        return np.zeros(new.size)
    return np.log(new / new.sum()) - np.log(old / old.sum())


def output_kind(reading, outputs):
    """Returns whether outputs are probabilities or logits, see `Predictions`.

    Args:
        reading: `Reading` of the classifier.
        outputs: a sample of outputs, `[N, C]` or `[N, 1]`.

    Returns:
        kind: "softmax", "sigmoid", "linear" or None.
    """
    if reading.meaning != "probabilities":
        is_known = reading.meaning == "logits" and not np.isnan(outputs).any()
        return "linear" if is_known else None
    inside = bool(((outputs >= 0) & (outputs <= 1)).all())
    if outputs.shape[1] == 1:
        return "sigmoid" if inside else None
    sums = outputs.astype(np.float64).sum(axis=1)
    whole = inside and bool((np.abs(sums - 1) < _SUM_TOLERANCE).all())
    return "softmax" if whole else None
