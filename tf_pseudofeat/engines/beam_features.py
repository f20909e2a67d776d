"""Step 2 on Apache Beam: the trunk in `RunInference`, and batches of its features."""

import os
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.ml.inference import base as inference

from tf_pseudofeat.core.validation import whole_number
from tf_pseudofeat.engines.beam_batches import BatchRows
from tf_pseudofeat.engines.beam_runners import check_runner
from tf_pseudofeat.engines.served_features import (
    endpoint_specs,
    features_of_inputs,
    load_model,
)

__all__ = ["ExtractFeatures", "FeaturesModelHandler"]


class FeaturesModelHandler(inference.ModelHandler):
    """Runs the trunk in Beam's `RunInference`: inputs -> features.

    It loads the endpoint `features` of a SavedModel, once per process, rather than a
    `.keras` file: workers need no code of custom layers and only TensorFlow,
    `tf.saved_model.load` also reads from `gs://`, and a new version of the model is a
    new folder, to which `RunInference` can switch while it runs
    (`model_metadata_pcoll`). `export_classifier(model, path, layer_name=...)` writes
    it.

    Args:
        path: folder of the SavedModel, such as `served/1`.
        **batching: `min_batch_size`, `max_batch_size` and the other arguments of
            `apache_beam.ml.inference.base.ModelHandler`.

    Raises:
        OSError: In a worker, if there is no SavedModel at `path`.
        ValueError: In a worker, if it has no endpoint `features`.

    Examples:
        >>> images | RunInference(FeaturesModelHandler("served/1", max_batch_size=256))
    """

    def __init__(self, path: str | os.PathLike, **batching: Any) -> None:
        super().__init__(**batching)
        self._path = path

    def load_model(self):
        """Loads the SavedModel."""
        return load_model(self._path)

    def run_inference(
        self,
        batch: Sequence[Any],
        model: Any,
        inference_args: dict[str, Any] | None = None,
    ) -> list[np.ndarray]:
        """Computes the features of a list of inputs.

        Args:
            batch: list of arrays `[...]`, or of dicts of arrays by name if the model
                has several inputs.
            model: the loaded model.
            inference_args: ignored.

        Returns:
            results: a `PredictionResult` for each, whose `inference` is its feature
                `[D]`.
        """
        inputs = {
            name: np.stack([x[name] if isinstance(x, dict) else x for x in batch])
            for name in endpoint_specs(model)
        }
        features = features_of_inputs(model, inputs)
        return [
            inference.PredictionResult(x, feature, self._path)
            for x, feature in zip(batch, features, strict=True)
        ]

    def update_model_path(self, model_path=None):
        """Switches to a newer model, for `RunInference`."""
        self._path = model_path or self._path

    def get_num_bytes(self, batch):
        """Returns the size of the inputs, for metrics of `RunInference`."""
        return sum(array.nbytes for array in tf.nest.flatten(list(batch)))

    def get_metrics_namespace(self):
        """Returns the namespace of metrics of `RunInference`."""
        return "tf_pseudofeat"


class ExtractFeatures(beam.PTransform):
    """Rows `(input, label)` -> batches `(features [B, D], labels [B])`.

    The trunk runs in `RunInference`, with the label as the key of its input.

    Args:
        path: folder of a SavedModel with the endpoint `features`.
        batch_size: batch size of the trunk.
        **run_inference: further arguments of `RunInference`, such as
            `model_metadata_pcoll`.

    Examples:
        >>> batches = images | ExtractFeatures("served/1")
    """

    def __init__(
        self, path: str | os.PathLike, batch_size: int = 256, **run_inference: Any
    ) -> None:
        super().__init__()
        size = whole_number("batch_size", batch_size)
        self._handler = FeaturesModelHandler(
            path, min_batch_size=size, max_batch_size=size
        )
        self._run_inference = run_inference

    def expand(self, rows):
        """Returns a PCollection of batches."""
        check_runner(rows.pipeline)
        run = inference.RunInference(
            inference.KeyedModelHandler(self._handler), **self._run_inference
        )
        return (
            rows
            | "LabelAsKey" >> beam.MapTuple(lambda x, label: (label, x))
            | "RunTrunk" >> run
            | "Feature" >> beam.MapTuple(lambda label, y: (y.inference, label))
            | BatchRows()
        )
