"""What a head is trained for, and how its outputs are read."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_pseudofeat.core.arguments import whole_number
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.labels import check_class_names
from tf_pseudofeat.core.stored import StoredArray
from tf_pseudofeat.core.strategies import check_one_worker, undistributed
from tf_pseudofeat.core.tracing import forward
from tf_pseudofeat.evaluation.comparison import score_predictions
from tf_pseudofeat.evaluation.predictions import Predictions, output_kind
from tf_pseudofeat.head.adjust import final_dense
from tf_pseudofeat.head.losses import check_loss_name
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.graph import check_is_keras_3, functional
from tf_pseudofeat.splitting.readings import Reading, reading_of

__all__ = ["Task"]

_SCORING_BATCH = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A head with what its model says of it.

    Attributes:
        head: Keras model, features `[B, ...]` -> outputs `[B, C]` or `[B, 1]`.
        num_classes: C; 2 for one output.
        loss: what `compile` takes.
        threshold: above it a single output means class 1; by default what its `Reading`
            says: 0.5 for a probability, 0.0 for a logit.
        strategy: the model's `tf.distribute` strategy, None where there is none.
        optimizer: the one that the model was compiled with, see `head_optimizer`.
        class_names: of the C classes, in the order of their ids, or None.

    Raises:
        ValueError: `num_classes` is no whole number from 1, `loss` an unknown name, or
            `class_names` are not C different ones.
        TypeError: `head` is not a Keras 3 model, or `class_names` no list.

    Example:

    >>> task = Task(head, 10, "sparse_categorical_crossentropy")
    >>> data = LabeledFeatures(features, labels)
    >>> fit_head(task, prepare_material(data, recipe, 10), recipe)
    """

    head: keras.Model
    num_classes: int
    loss: object
    threshold: float | None = None
    strategy: object = None
    optimizer: object = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self):
        count = whole_number("num_classes", self.num_classes)
        object.__setattr__(self, "num_classes", count)
        check_is_keras_3(self.head)
        check_one_worker(self.head)
        check_loss_name(self.loss)
        if self.class_names is not None:
            names = check_class_names(self.class_names, count)
            object.__setattr__(self, "class_names", names)
        if self.threshold is None:
            object.__setattr__(self, "threshold", self.reading.threshold)

    @property
    def reading(self) -> Reading:
        """`Reading`: what the head's outputs mean."""
        return reading_of(output_activation(self.head), self.loss)

    @property
    def movable(self) -> bool:
        """Whether a bias of the head's own moves its logits, see `final_dense`."""
        return self.reading.meaning != "numbers" and final_dense(self.head) is not None

    def check(self, features: LabeledFeatures, name: str) -> None:
        """Raises where the head cannot be trained or scored on `LabeledFeatures`."""
        if not isinstance(features, LabeledFeatures):
            raise TypeError(
                f"`{name}` is a LabeledFeatures, as from extract_features; received "
                f"{type(features).__name__}. LabeledFeatures(features, labels) makes "
                f"one."
            )
        features.class_counts(self.num_classes)
        graph, shape = functional(self.head), features.features.shape
        if graph is not None:
            self._check_outputs(graph.outputs[0])
        if graph is not None and not _fits(graph.inputs[0].shape, shape):
            raise ValueError(
                f"{self.head.name!r} takes features of shape "
                f"{list(graph.inputs[0].shape)}; those of `{name}` have {list(shape)}. "
                f"Extract them at its layer."
            )

    def score(
        self, features: LabeledFeatures, minority: Sequence[int]
    ) -> dict[str, Any]:
        """`score_predictions` of the head on `LabeledFeatures`."""
        return score_predictions(self.predict(features), minority)

    def predict(self, features: LabeledFeatures) -> Predictions:
        """`Predictions` of the head for `LabeledFeatures`."""
        outputs = np.concatenate(list(self._outputs(features.features)))
        return self.read(features.labels, outputs, features.sample_weight)

    def read(
        self,
        labels: np.ndarray,
        outputs: np.ndarray,
        sample_weight: np.ndarray | None = None,
    ) -> Predictions:
        """`Predictions` of what the head gave, `[N, C]` or `[N, 1]`."""
        kind = output_kind(self.reading, outputs)
        return Predictions(labels, outputs, kind, sample_weight, self.threshold)

    def _outputs(self, features):
        """Yields what the head gives for features, `[M, C]` or `[M, 1]`, in order.

        Of an array all at once, of a `StoredArray` for some 64 MiB of features a time.
        """
        chunks = [features]
        if isinstance(features, StoredArray):
            chunks = features.chunks(multiple_of=_SCORING_BATCH)
        for chunk in chunks:
            with undistributed():
                outputs = self._forward(chunk)
            self._check_outputs(outputs)
            yield outputs

    @functools.cached_property
    def _forward(self):
        return forward(self.head, _SCORING_BATCH)

    def _check_outputs(self, outputs):
        widths = (1, 2) if self.num_classes == 2 else (self.num_classes,)
        if outputs.ndim != 2 or outputs.shape[1] not in widths:
            raise ValueError(
                f"A head of {self.num_classes} classes gives outputs "
                f"[B, {self.num_classes}], or [B, 1] for two; {self.head.name!r} gives "
                f"{list(outputs.shape)}. Pass its number of classes as `num_classes`, "
                f"or another head."
            )


def _fits(expected, shape):
    return len(expected) == len(shape) and all(
        size in (None, received)
        for size, received in zip(expected[1:], shape[1:], strict=True)
    )
