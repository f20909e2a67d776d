"""A Keras model in two halves: a trunk, and a head that computes the rest."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tf_pseudofeat.core.finite import check_finite, check_floats, mask_overflow
from tf_pseudofeat.data.preprocessing import (
    overrides_predict,
    predict_batch,
    preprocess_batch,
)
from tf_pseudofeat.splitting.equivalence import (
    default_tolerance,
    largest_difference,
    outputs_of_all,
)
from tf_pseudofeat.splitting.graph import check_is_keras_3, check_stateless
from tf_pseudofeat.splitting.model_inputs import batch_as_declared
from tf_pseudofeat.splitting.outputs import Output

__all__ = ["Split"]


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """A model in two halves: `head(trunk(x))` is `model(x)`.

    It unpacks: `trunk, head = split_at(model, "features")`. For a model without a
    graph, pass its two halves, `Split(trunk, head)`.

    Attributes:
        trunk: the Keras model from the model's inputs, in their own structure, to the
            features.
        head: the Keras model from the features to the model's outputs, in their own
            structure. It shares its layers with the model, so training the head trains
            the model. A layer that is called on both sides of the split is shared with
            the trunk, too.
        layer_name: name of the layer that computes the features; by default the trunk's
            name.
        output: the model's output that the head computes, an `Output` or its name; None
            for all.
    """

    trunk: keras.Model
    head: keras.Model
    layer_name: str | None = None
    output: Output | str | None = None

    def __post_init__(self):
        check_is_keras_3(self.trunk, "trunk")
        check_is_keras_3(self.head, "head")
        if self.layer_name is None:
            object.__setattr__(self, "layer_name", self.trunk.name)

    def __iter__(self) -> Iterator[keras.Model]:
        return iter((self.trunk, self.head))

    def check(
        self,
        model: keras.Model,
        x: object,
        *,
        tolerance: float | None = None,
        trained: bool = True,
    ) -> float:
        """Compares `model(x)` to `head(trunk(x))` in inference mode.

        The difference between a, the model's output, and b is |a - b| / max(1, |a|). If
        the model's class overrides `predict`, or the model has a `preprocessor`,
        `model.predict(x)` is compared as well.

        Args:
            model: the Keras model that was split.
            x: one batch of inputs, as the model's `fit` and `predict` take it.
            tolerance: the largest difference that counts as rounding. By default 1e-4;
                1e-2 if any tensor of the model is float16, 5e-2 if bfloat16.
            trained: False for a model at the start of its training. NaN or infinity on
                both sides are then equal: in float16, a deep network may overflow
                before its first training step.

        Returns:
            largest_difference: a float.

        Raises:
            ValueError: If they differ, the features are not finite, or the trunk
                outputs a mask.

        Examples:
            >>> split_at(model, "features").check(model, images[:8])
            0.0
        """
        return self.compare(model, x, tolerance, trained)[0]

    def compare(
        self,
        model: keras.Model,
        x: object,
        tolerance: float | None = None,
        trained: bool = True,
    ) -> tuple[float, Any, Any]:
        """Returns `(largest_difference, features, model outputs)`; see `check`."""
        check_stateless(model)
        inputs = batch_as_declared(self.trunk, preprocess_batch(model, x), "x")
        features, expected, received = outputs_of_all(self, model, inputs)
        check_floats(features, self.layer_name)
        if not trained:
            features = mask_overflow(features, inputs)
        check_finite(features, f"The features at '{self.layer_name}'", inputs)
        if tolerance is None:
            tolerance = max(default_tolerance(half) for half in self)
        if len(expected) != len(received):
            raise ValueError(
                f"head(trunk(x)) has {len(received)} outputs, the model "
                f"{len(expected)}: a head for one of several outputs needs output="
            )
        known = itertools.repeat(trained)
        largest = max(map(largest_difference, expected, received, known))
        if not largest <= tolerance:  # also true for NaN
            raise ValueError(
                f"head(trunk(x)) is not model(x) for the split at '{self.layer_name}': "
                f"largest difference {largest:.3g}, tolerance {tolerance:g}. Look for "
                "an empty batch, a NaN in the model's own output (the features are "
                "finite), a layer that draws random numbers in inference, or a model "
                "with a `call` of its own; for the last, make a Split(trunk, head) of "
                "its two halves."
            )
        # For other models `predict` is model(x), and tracing it takes 0.3 s.
        if overrides_predict(model):
            self._compare_predict(model, x, received, tolerance, trained)
        return largest, features, expected

    def _compare_predict(self, model, x, received, tolerance, trained):
        predicted = predict_batch(model, x)
        if self.output is not None:
            predicted = self.output.of(predicted, "model.predict(x)")
        predicted = keras.tree.flatten(predicted)
        largest = float("nan")  # if the numbers of outputs differ
        if len(predicted) == len(received):
            known = itertools.repeat(trained)
            largest = max(map(largest_difference, predicted, received, known))
        if not largest <= tolerance:
            shapes = [list(np.shape(output)) for output in predicted]
            raise ValueError(
                f"head(trunk(x)) is not model.predict(x) for the split at "
                f"'{self.layer_name}': largest difference {largest:.3g}, tolerance "
                f"{tolerance:g}; `predict` returns shapes {shapes}. "
                f"{type(model).__name__} {model.name!r} overrides `predict` or has a "
                f"`preprocessor`, which its layers do not include. Move that into "
                f"layers of the model, or apply it to the data and pass "
                f"keras.Model(model.inputs, model.outputs)."
            )
