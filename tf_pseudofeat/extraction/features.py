"""Step 2 of Konno and Iwazume (2018): features of the training data in one pass.

Features and labels come from the same pass: reading a shuffled dataset twice, once for
each, would pair them at random.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import keras

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.stateless_seed import stateless_seed
from tf_pseudofeat.core.tracing import without_retracing_warnings
from tf_pseudofeat.data.checks import check_data
from tf_pseudofeat.data.conversion import for_keras
from tf_pseudofeat.extraction.augmentation import augmenter, not_augmented
from tf_pseudofeat.extraction.chosen import ClassTotals
from tf_pseudofeat.extraction.data_pass import NO_EXAMPLE, DataPass
from tf_pseudofeat.extraction.feature_sinks import FeatureSinks
from tf_pseudofeat.extraction.lengths import check_length, check_lengths
from tf_pseudofeat.extraction.options import Extraction, resolve_extraction
from tf_pseudofeat.extraction.trunk_outputs import features_of
from tf_pseudofeat.extraction.views import ViewSource, choose_views
from tf_pseudofeat.splitting.graph import check_is_keras_3, check_stateless
from tf_pseudofeat.splitting.model_inputs import data_as_declared

__all__ = [
    "Extracted",
    "about_validation_data",
    "extract_features",
    "read_features",
    "validation_features",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Extracted:
    """The result of one extraction.

    Attributes:
        views: list of `LabeledFeatures`, one for each view; a single one without views.
        totals: `ClassTotals` of all the data, including examples that were not chosen.
        source: `ViewSource`: how the views were made.
    """

    views: list[LabeledFeatures]
    totals: ClassTotals
    source: ViewSource

    @functools.cached_property
    def together(self):
        """`LabeledFeatures` of all views, concatenated."""
        return LabeledFeatures.concatenate(self.views)


def extract_features(
    trunk: keras.Model,
    data: object,
    extraction: Extraction | None = None,
    *,
    seed: Sequence[int] = (1, 2),
    verbose: int | str = "auto",
    **options: Any,
) -> LabeledFeatures:
    """Runs the trunk over the data in inference mode.

    Args:
        trunk: the Keras model from inputs to features, as `split_at` returns it. It
            does not preprocess: for a KerasHub task pass preprocessed data,
            `train_ds.map(task.preprocessor)`.
        data: a `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)` batches, a
            `keras.utils.PyDataset` (read by as many threads as it has workers), torch
            DataLoader or other iterable of such batches; or a tuple of arrays, data
            frames or sparse matrices, which are made dense one batch at a time.
        extraction: `Extraction`; "auto" here means every example, without views. With
            `augment`, views replace the examples. To train on `per_class` examples,
            pass the class counts of all the data as `totals` to `prepare_material`.
        seed: two integers, for the choice of examples and the augmentation, with
            independent streams for each view and batch. It does not control a function
            without `seed`.
        verbose: 0 for no output; otherwise a progress bar.
        **options: fields of `Extraction`, which override those of `extraction`.

    Returns:
        extracted: `LabeledFeatures` of all views, without examples of weight 0;
        `features, labels = extract_features(...)`. With `cache_dir` the features are a
        `StoredArray`; labels and weights are in memory.

    Raises:
        ValueError: If `data` has another structure, is empty, not batched, or infinite
            without `steps`; a layer has stateful=True; features differ in shape;
            lengths in a batch differ, or features are NaN or infinite; or `cache_dir`
            already holds features.
        TypeError: If `trunk` is not a model, `data` is not supported, or an option is
            unknown.
        OSError: If `cache_dir` cannot be written to, or the disk is full.

    Examples:
        >>> augment = keras.layers.RandomTranslation(0.1, 0.1)
        >>> data = extract_features(trunk, train_ds, augment=augment, views=3)
        >>> features, labels = data
    """
    extraction = resolve_extraction(extraction, options).literal()
    check_data(data, extraction.steps)
    stateless_seed(seed)
    check_is_keras_3(trunk, "trunk")
    check_stateless(trunk)
    data = data_as_declared(trunk, data)
    check_lengths(trunk, data)
    with FeatureSinks(extraction.cache_dir, None) as sinks:
        _read(trunk, data, extraction, sinks, seed=seed, verbose=verbose)
    return sinks.all_views()


def read_features(trunk, data, extraction, *, seed, verbose):
    """Extracts the features to train on, in one pass; returns `Extracted`.

    With `cache_dir` they are written to its folder "training", or to "view-0" and so
    on.

    Args:
        trunk: Keras model.
        data: checked data.
        extraction: `Extraction` without "auto".
        seed: two integers.
        verbose: 0 for no output; otherwise a progress bar.
    """
    with FeatureSinks(extraction.cache_dir, ("training", "view-{}")) as sinks:
        totals, source = _read(
            trunk, data, extraction, sinks, seed=seed, verbose=verbose
        )
    return Extracted(sinks.views(), totals, source)


def validation_features(trunk, data, extraction, *, verbose):
    """Extracts features to score on; with `cache_dir` to its folder "validation"."""
    whole = dataclasses.replace(
        extraction, augment=None, views=None, per_class=None, steps=None
    )
    sinks = FeatureSinks(extraction.cache_dir, ("validation", ""))
    with sinks, about_validation_data():
        _read(trunk, data, whole, sinks, seed=(0, 0), verbose=verbose)
    return sinks.all_views()


@contextlib.contextmanager
def about_validation_data():
    """Context manager that adds `validation_data` to the message of data errors."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if "validation_data" in str(error):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        message = str(error).replace("`data`", "`validation_data`")
        if "validation_data" not in message:
            message = f"`validation_data`: {message}"
        about = kind(message)
        for note in getattr(error, "__notes__", ()):
            about.add_note(note)
        raise about from error


def _read(trunk, data, extraction, sinks, *, seed, verbose):
    """Fills the sinks; returns `(ClassTotals, ViewSource)`."""
    reading = DataPass(data, extraction, seed, verbose)
    with contextlib.closing(reading), without_retracing_warnings():
        source = _fill(trunk, reading, extraction, sinks, seed)
    return reading.totals, source


def _fill(trunk, reading, extraction, sinks, seed):
    """Fills the sinks with features; returns the `ViewSource`."""
    source = choose_views(extraction, reading.first[0])
    num_views = extraction.num_views if source.is_view else 0
    sinks.open(num_views)
    augmenters = [augmenter(source.augment, seed, view) for view in range(num_views)]
    counted, shape = 0, None
    for number, chunk in enumerate(reading.chunks()):
        for view, augment in enumerate(augmenters or [not_augmented]):
            inputs = for_keras(augment(chunk.x, number))
            features = features_of(trunk, inputs)
            shape = features.shape[1:] if shape is None else shape
            check_length(chunk.name, features, shape)
            weight = chunk.sample_weight
            try:
                part = LabeledFeatures.of_batch(features, chunk.labels, weight, inputs)
            except ValueError as error:
                raise ValueError(f"{chunk.name}: {error}") from error
            if part is not None:
                counted += 1
                sinks.add(view, part)
    if not counted:
        raise ValueError(NO_EXAMPLE)
    return source
