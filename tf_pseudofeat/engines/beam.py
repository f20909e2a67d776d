"""Steps 2 and 3 on a cluster: features and their moments as Apache Beam transforms.

Workers run the trunk over their share of the images, and what they send each other are
sums: the moments of every class, which merge exactly, in any order. The head is then
retrained on one machine.

    batches = images | ExtractFeatures("served/1")            # (features, labels)
    batches | WriteFeatureShards("features")
    batches | beam.CombineGlobally(CombineClassMoments(10)) | WriteMoments("m.npz")

Not part of `import tf_pseudofeat`; `pip install 'tf-pseudofeat[beam]'` brings Beam.
"""

import dataclasses
import io
import uuid

import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.arguments import check_rank, whole_number
from tf_pseudofeat.core.files import local_path
from tf_pseudofeat.extraction.shards import (
    ShardWriter,
    check_free,
    indexed_shards,
    write_index,
)
from tf_pseudofeat.gaussians.moments import ClassMoments, merge, moments_of, no_moments
from tf_pseudofeat.gaussians.moments_file import read_moments, save_moments

try:
    import apache_beam as beam
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.ml.inference import base as inference
    from apache_beam.transforms.window import GlobalWindow
    from apache_beam.utils.windowed_value import WindowedValue
except ImportError as error:
    raise ImportError(
        "tf_pseudofeat.engines.beam needs the package apache-beam: "
        "pip install 'tf-pseudofeat[beam]'."
    ) from error

__all__ = [
    "BatchRows",
    "ClassMomentsCoder",
    "CombineClassMoments",
    "ExtractFeatures",
    "FeaturesModelHandler",
    "WriteFeatureShards",
    "WriteMoments",
]

# Bytes of rows that wait for the statistics, at least: one product of few rows is all
# memory traffic. Beyond it they may take as much memory again as the statistics do, so
# that adding to those costs no more than reading the rows.
_WAITING_BYTES = 2**22


# Moments.


class ClassMomentsCoder(beam.coders.Coder):
    """`ClassMoments` as the bytes of `save_moments`: the same for the same, no pickle.

    Importing this module registers it, so Beam takes it by itself.
    """

    def encode(self, value):
        """Bytes."""
        file = io.BytesIO()
        save_moments(value, file)
        return file.getvalue()

    def decode(self, encoded):
        """`ClassMoments`."""
        return read_moments(io.BytesIO(encoded))

    def is_deterministic(self):
        """True."""
        return True

    def to_type_hint(self):
        """`ClassMoments`."""
        return ClassMoments


beam.coders.registry.register_coder(ClassMoments, ClassMomentsCoder)


@dataclasses.dataclass
class _Gathered:
    """What a worker holds: moments, and batches that have not entered them yet."""

    moments: ClassMoments | None = None
    waiting: list = dataclasses.field(default_factory=list)
    waiting_bytes: int = 0


@beam.typehints.with_input_types(tuple[beam.typehints.Any, beam.typehints.Any])
@beam.typehints.with_output_types(ClassMoments)
class CombineClassMoments(beam.CombineFn):
    """Batches `(features, labels)` -> the `ClassMoments` of all of them.

    Use it with `beam.CombineGlobally`, `beam.CombinePerKey`, and either fanout. The
    result is that of `moments_of_batches` on one machine, up to rounding: in float64,
    where sums of some thousand rows are merged, and before that in the precision of the
    features. What goes over the network is one accumulator for each bundle and key, of

        full  8 (C + C D + C D D) bytes        tied  8 (C + C D + D D)
        diag  8 (C + 2 C D)                    low_rank  8 (C + 2 C D + C rank D)

    so that 1,000 classes of 2,048 features are 31 GiB, 47 MiB, 31 MiB, and 281 MiB with
    16 directions each.

    Args:
        num_classes: C.
        kind: "full", "tied", "diag" or "low_rank", see `ClassMoments`.
        rank: of "low_rank", see `moments_of`.

    Raises:
        ValueError: `num_classes`, `kind` or `rank` does not fit, at once. In a worker,
            as `moments_of`, or where no batch came at all.

    Example:

    >>> moments = batches | beam.CombineGlobally(CombineClassMoments(10, "tied"))
    """

    def __init__(self, num_classes, kind="full", rank=None):
        self._num_classes = whole_number("num_classes", num_classes)
        check_rank(kind, rank)
        self._kind, self._rank = no_moments(1, 1, kind).kind, rank

    def create_accumulator(self):
        """The moments of nothing."""
        return _Gathered()

    def add_input(self, accumulator, batch):
        """Adds a batch `(features [B, ...], labels [B])`."""
        gathered = self._opened(accumulator)
        features, labels = _arrays(batch)
        if gathered.waiting and gathered.waiting[0][0].shape[1:] != features.shape[1:]:
            raise ValueError(
                f"Features have one shape; received batches of "
                f"{list(gathered.waiting[0][0].shape)} and {list(features.shape)}."
            )
        gathered.waiting.append((features, labels))
        gathered.waiting_bytes += features.nbytes
        if gathered.waiting_bytes >= max(_WAITING_BYTES, _num_bytes(gathered.moments)):
            self._settle(gathered)
        return gathered

    def merge_accumulators(self, accumulators):
        """One accumulator of several; they come one at a time."""
        total = _Gathered()
        for accumulator in accumulators:
            moments = self._settle(self._opened(accumulator))
            total.moments = _sum(total.moments, moments)
        return total

    def compact(self, accumulator):
        """Bytes, to be sent; a `Coder` for anything else would fall back to pickle."""
        moments = self._settle(self._opened(accumulator))
        return b"" if moments is None else ClassMomentsCoder().encode(moments)

    def extract_output(self, accumulator):
        """`ClassMoments`."""
        moments = self._settle(self._opened(accumulator))
        if moments is None:
            raise ValueError(
                "There is no batch of features; nothing can be estimated. Where that "
                "may be, use beam.CombineGlobally(...).without_defaults()."
            )
        return moments

    def get_accumulator_coder(self):
        """Of bytes, whatever state an accumulator is in."""
        return _AccumulatorCoder(self)

    def _opened(self, accumulator):
        if not isinstance(accumulator, bytes):
            return accumulator
        return _Gathered(
            ClassMomentsCoder().decode(accumulator) if accumulator else None
        )

    def _settle(self, gathered):
        """Adds what waits to the moments, and returns those, None for nothing."""
        if gathered.waiting:
            features, labels = map(np.concatenate, zip(*gathered.waiting, strict=True))
            how = self._num_classes, self._kind, self._rank
            part = moments_of(features, labels, *how)
            gathered.moments = _sum(gathered.moments, part)
            gathered.waiting, gathered.waiting_bytes = [], 0
        return gathered.moments


class _AccumulatorCoder(beam.coders.Coder):
    """Accumulators of a `CombineClassMoments`, which are sent as bytes."""

    def __init__(self, combine):
        self._combine = combine

    def encode(self, value):
        return value if isinstance(value, bytes) else self._combine.compact(value)

    def decode(self, encoded):
        return encoded

    def is_deterministic(self):
        return True


def _arrays(batch):
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(
            f"Moments are combined of batches (features [B, D], labels [B]); received "
            f"a {type(batch).__name__}. BatchRows() makes them of rows."
        )
    features, labels = map(np.asarray, batch)
    if features.ndim < 2 or labels.ndim < 1 or len(features) != len(labels):
        raise ValueError(
            f"Moments are combined of batches (features [B, D], labels [B]); received "
            f"shapes {features.shape} and {labels.shape}. BatchRows() makes them of "
            f"rows."
        )
    return features, labels


def _num_bytes(moments):
    if moments is None:
        return 0
    return sum(getattr(value, "nbytes", 0) for value in vars(moments).values())


def _sum(first, second):
    """`merge`, of what may be None."""
    if first is None or second is None:
        return second if first is None else first
    return merge(first, second)


class WriteMoments(beam.PTransform):
    """Writes the one `ClassMoments` of a PCollection, for `load_moments`.

    A retry writes the same file again, and it is there whole or not at all.

    Args:
        path: of the `.npz` file, in any of Beam's file systems.
    """

    def __init__(self, path):
        super().__init__()
        elsewhere = isinstance(path, str) and "://" in path
        self._path = path if elsewhere else str(local_path(path))

    def expand(self, moments):
        """A PCollection of the path, once it is written."""
        return moments | "Write" >> beam.Map(_write_moments, self._path)


def _write_moments(moments, path):
    aside = f"{path}.unfinished-{uuid.uuid4().hex}"
    with FileSystems.create(aside) as file:
        file.write(ClassMomentsCoder().encode(moments))
    FileSystems.rename([aside], [path])
    return path


# Features.


class FeaturesModelHandler(inference.ModelHandler):
    """The trunk for Beam's `RunInference`: inputs -> features.

    It loads the endpoint `features` of a SavedModel, once in each process, and not a
    `.keras` file: a worker then needs no code of the model's own layers and loads no
    more than TensorFlow, `tf.saved_model.load` reads from `gs://` as well, and a newer
    version of the model is a new folder, which `RunInference` can change to while it
    runs (`model_metadata_pcoll`). `export_classifier(model, path, layer_name=...)`
    writes it.

    Args:
        path: folder of the SavedModel, `served/1`.
        **batching: `min_batch_size`, `max_batch_size` and the other arguments of
            `apache_beam.ml.inference.base.ModelHandler`.

    Raises:
        OSError: In a worker: there is no SavedModel at `path`.
        ValueError: In a worker: it has no endpoint `features`.

    Example:

    >>> images | RunInference(FeaturesModelHandler("served/1", max_batch_size=256))
    """

    def __init__(self, path, **batching):
        super().__init__(**batching)
        self._path = path

    def load_model(self):
        """The SavedModel."""
        model = tf.saved_model.load(self._path)
        if "features" not in model.signatures:
            raise ValueError(
                f"{self._path} has endpoints {sorted(model.signatures)}, and none "
                f"'features'. Export it with export_classifier(model, path, "
                f"layer_name=...)."
            )
        return model

    def run_inference(self, batch, model, inference_args=None):
        """Features of a list of inputs.

        Args:
            batch: list of arrays `[...]`; of dicts of them by name where the model has
                several inputs.
            model: what `load_model` gave.
            inference_args: not looked at.

        Returns:
            results: a `PredictionResult` for each, `inference` its feature `[D]`.
        """
        endpoint = model.signatures["features"]
        _, specs = endpoint.structured_input_signature
        features = endpoint(
            **{
                name: tf.constant(
                    np.stack([x[name] if isinstance(x, dict) else x for x in batch]),
                    spec.dtype,
                )
                for name, spec in specs.items()
            }
        )["features"].numpy()
        return [
            inference.PredictionResult(x, feature, self._path)
            for x, feature in zip(batch, features, strict=True)
        ]

    def update_model_path(self, model_path=None):
        """Where `RunInference` was told of a newer model."""
        self._path = model_path or self._path

    def get_num_bytes(self, batch):
        """Bytes of inputs, for `RunInference`'s metrics."""
        return sum(array.nbytes for array in tf.nest.flatten(list(batch)))

    def get_metrics_namespace(self):
        """Where `RunInference` counts inferences, batches and seconds."""
        return "tf_pseudofeat"


class BatchRows(beam.PTransform):
    """Rows `(feature [D], label)` -> batches `(features [B, D], labels [B])`.

    Args:
        batch_size: B; the last of a bundle is smaller.
    """

    def __init__(self, batch_size=1024):
        super().__init__()
        self._batch_size = whole_number("batch_size", batch_size)

    def expand(self, rows):
        """A PCollection of batches."""
        size = self._batch_size
        return (
            rows
            | "Collect" >> beam.BatchElements(min_batch_size=size, max_batch_size=size)
            | "Stack" >> beam.Map(_stacked)
        )


def _stacked(rows):
    features, labels = zip(*rows, strict=True)
    return np.stack(features), np.stack(labels)


class ExtractFeatures(beam.PTransform):
    """Rows `(input, label)` -> batches `(features [B, D], labels [B])`.

    The trunk runs by `RunInference`, and the label goes beside its input, as the key.

    Args:
        path: folder of a SavedModel with the endpoint `features`.
        batch_size: inputs that the trunk sees at a time.
        **run_inference: further arguments of `RunInference`, such as
            `model_metadata_pcoll`.

    Example:

    >>> batches = images | ExtractFeatures("served/1")
    """

    def __init__(self, path, batch_size=256, **run_inference):
        super().__init__()
        size = whole_number("batch_size", batch_size)
        self._handler = FeaturesModelHandler(
            path, min_batch_size=size, max_batch_size=size
        )
        self._run_inference = run_inference

    def expand(self, rows):
        """A PCollection of batches."""
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


class WriteFeatureShards(beam.PTransform):
    """Writes batches as shards, for `load_features`; gives the folder in the end.

    Each bundle has shards of its own, under a name that nobody else has, and tells
    their names when they are whole. The index lists the names that arrived. So a bundle
    that was tried twice counts once; what the other try left lies there unread.

    Args:
        folder: that all workers see: of this machine, or a network file system. A
            bucket must be mounted, as `load_features` maps the files into memory.
        rows_per_shard: see `ShardWriter`. A bundle writes one shard at least.

    Raises:
        TypeError, ValueError, OSError: At once: `folder` is no path, holds a set
            already, or cannot be written to. In a worker: see `ShardWriter`.
    """

    def __init__(self, folder, rows_per_shard=None):
        super().__init__()
        if "://" in str(folder):
            raise ValueError(
                f"Shards are files that are mapped into memory; {folder} is no folder "
                f"for that. Mount the bucket, or write to a network file system."
            )
        check_free(folder)
        self._folder = str(local_path(folder, "folder"))  # of home here, not there
        self._rows = rows_per_shard

    def expand(self, batches):
        """A PCollection of the folder, once its index is written."""
        return (
            batches
            | "WriteShards" >> beam.ParDo(_WriteShards(self._folder, self._rows))
            | "Names" >> beam.combiners.ToList()
            | "WriteIndex" >> beam.Map(_write_index, self._folder)
        )


class _WriteShards(beam.DoFn):
    """Batches -> names of the shards that hold them."""

    def __init__(self, folder, rows_per_shard):
        self._folder = folder
        self._rows = rows_per_shard
        self._writer = None

    def start_bundle(self):
        self._writer = None

    def process(self, batch):
        if self._writer is None:
            self._writer = ShardWriter(self._folder, self._rows, uuid.uuid4().hex)
        self._writer.add(*_arrays(batch))

    def finish_bundle(self):
        if self._writer is None:
            return
        self._writer.close()
        window = GlobalWindow()
        for name in self._writer.shards:
            yield WindowedValue(name, window.max_timestamp(), [window])
        self._writer = None

    def teardown(self):
        if self._writer is not None:  # the bundle failed
            self._writer.discard()


def _write_index(names, folder):
    # There is one already where a first try could not say any more that it was done.
    if not names or sorted(indexed_shards(folder)) != sorted(names):
        write_index(folder, names)
    return folder
