"""A head with its loss and classes."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_pseudofeat.core.distribution import check_one_worker, undistributed
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.labels import check_class_names
from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.core.tracing import forward
from tf_pseudofeat.core.validation import whole_number
from tf_pseudofeat.evaluation.comparison import score_predictions
from tf_pseudofeat.evaluation.predictions import Predictions, output_kind
from tf_pseudofeat.head.bias_shift import final_dense
from tf_pseudofeat.head.losses import check_loss_name
from tf_pseudofeat.splitting.activation import output_activation
from tf_pseudofeat.splitting.graph import check_is_keras_3, functional
from tf_pseudofeat.splitting.readings import Reading, reading_of

__all__ = ["Task"]

_SCORING_BATCH = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A head with the loss and the classes of its model.

    Attributes:
        head: Keras model, features `[B, ...]` -> outputs `[B, C]` or `[B, 1]`.
        num_classes: C; 2 for one output.
        loss: what `compile` takes.
        threshold: a single output above it means class 1; by default 0.5 for a
            probability and 0.0 for a logit, see `Reading`.
        strategy: the model's `tf.distribute` strategy, or None.
        optimizer: the optimizer that the model was compiled with, see `head_optimizer`.
        class_names: names of the C classes in the order of their ids, or None.

    Raises:
        ValueError: If `num_classes` is not a whole number of at least 1, `loss` is an
            unknown name, or `class_names` are not C distinct names.
        TypeError: If `head` is not a Keras 3 model, or `class_names` is not a list.

    Examples:
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
        check_is_keras_3(self.head, "head")
        check_one_worker(self.head)
        check_loss_name(self.loss)
        if self.class_names is not None:
            names = check_class_names(self.class_names, count)
            object.__setattr__(self, "class_names", names)
        if self.threshold is None:
            object.__setattr__(self, "threshold", self.reading.threshold)

    @property
    def reading(self) -> Reading:
        """The `Reading` of the head's outputs."""
        return reading_of(output_activation(self.head), self.loss)

    @property
    def has_logit_bias(self) -> bool:
        """Whether the logits have a trainable bias in the head, see `final_dense`."""
        return self.reading.meaning != "numbers" and final_dense(self.head) is not None

    def check(self, features: LabeledFeatures, name: str) -> None:
        """Raises if the head cannot be trained or scored on `LabeledFeatures`."""
        if not isinstance(features, LabeledFeatures):
            raise TypeError(
                f"`{name}` must be a LabeledFeatures, as from extract_features; "
                f"received {type(features).__name__}. Create one with "
                f"LabeledFeatures(features, labels)."
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
        """Scores the head on `LabeledFeatures`, see `score_predictions`."""
        return score_predictions(self.predict(features), minority)

    def predict(self, features: LabeledFeatures) -> Predictions:
        """Computes the `Predictions` of the head for `LabeledFeatures`."""
        outputs = np.concatenate(list(self._outputs(features.features)))
        return self.read(features.labels, outputs, features.sample_weight)

    def read(
        self,
        labels: np.ndarray,
        outputs: np.ndarray,
        sample_weight: np.ndarray | None = None,
    ) -> Predictions:
        """Makes `Predictions` of outputs of the head, `[N, C]` or `[N, 1]`."""
        kind = output_kind(self.reading, outputs)
        return Predictions(labels, outputs, kind, sample_weight, self.threshold)

    def _outputs(self, features):
        """Yields outputs of the head, `[M, C]` or `[M, 1]`, in order.

        All at once for an array, in chunks of about 64 MiB for a `StoredArray`.
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
                f"A head for {self.num_classes} classes must have outputs [B, "
                f"{self.num_classes}], or [B, 1] for two classes; {self.head.name!r} "
                f"has {list(outputs.shape)}. Pass its number of classes as "
                f"`num_classes`, or another head."
            )


def _fits(expected, shape):
    return len(expected) == len(shape) and all(
        size in (None, received)
        for size, received in zip(expected[1:], shape[1:], strict=True)
    )
