"""Step 2 of Konno and Iwazume (2018): the features of the training data, in one pass.

Features and labels come from the same pass. A shuffled dataset that is read twice, once
for each, pairs them at random.
"""

import contextlib
import dataclasses
import functools
import inspect
import itertools
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.core.arguments import check_weights, stateless_seed
from tf_pseudofeat.core.files import missing_folders, remove_empty
from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.core.progress import progress_bar
from tf_pseudofeat.core.seeds import noise_from, numbers_for, seed_layers
from tf_pseudofeat.core.strategies import batch_multiple, model_strategy, spans_workers
from tf_pseudofeat.core.tracing import without_retracing_warnings
from tf_pseudofeat.data.data_adapters import (
    NO_BATCH,
    arrays_of,
    as_array,
    batches_of,
    check_data,
    for_keras,
    num_batches,
)
from tf_pseudofeat.extraction.chosen import (
    ClassTotals,
    choose_rows,
    chosen_chunks,
    whole_chunks,
)
from tf_pseudofeat.extraction.extraction import Extraction, resolve_extraction
from tf_pseudofeat.extraction.lengths import check_length, check_lengths
from tf_pseudofeat.extraction.shards import (
    ShardWriter,
    check_free,
    load_features,
    new_set,
)
from tf_pseudofeat.extraction.views import ViewSource, choose_views
from tf_pseudofeat.splitting.graph import check_is_keras_3, check_stateless

__all__ = [
    "about_validation_data",
    "Extracted",
    "all_sets_or_none",
    "augment_once",
    "check_cache",
    "extract_features",
    "read_features",
    "validation_features",
]

_NO_EXAMPLE = "All sample weights are 0, or all batches empty: there is no example."


@dataclasses.dataclass(frozen=True, eq=False)
class Extracted:
    """What one extraction gives.

    Attributes:
        views: list of `LabeledFeatures`, one for each view; a single one of the
            examples as they are where the source is none.
        totals: `ClassTotals` of all the data, also of what was not looked at.
        source: `ViewSource`: what made the views.
    """

    views: list[LabeledFeatures]
    totals: ClassTotals
    source: ViewSource

    @functools.cached_property
    def together(self):
        """`LabeledFeatures` of all views, one after the other."""
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
        trunk: the Keras model from inputs to features, as `split_at` gives it. It has
            no preprocessor: where a KerasHub task was split, pass data that are
            preprocessed, `train_ds.map(task.preprocessor)`.
        data: a `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)` batches, a
            `keras.utils.PyDataset` (read by as many threads as it has workers), torch
            DataLoader or other iterable of the same, or such a tuple of arrays, data
            frames or sparse matrices, whose rows are dense a batch at a time.
        extraction: `Extraction`; "auto" in it means every example as it is here. With
            `augment`, its views take the place of the examples. Whoever trains on
            `per_class` of them passes the class counts of all the data as `totals` to
            `prepare_material`.
        seed: two whole numbers; of the choice of examples and of the augmentation.
            Views and batches have streams of their own. What a function without `seed`
            draws does not follow from it.
        verbose: 0 for silence; otherwise a progress bar.
        **options: fields of `Extraction`, which override those of `extraction`.

    Returns:
        extracted: `LabeledFeatures`, view after view, without examples of weight 0;
        `features, labels = extract_features(...)`. With `cache_dir` the features are a
        `StoredArray`; labels and weights are in memory.

    Raises:
        ValueError: `data` has another structure, is empty, is not batched, or is
            infinite with no `steps`; a layer has stateful=True; features are not all
            of one shape; the lengths in a batch differ, or its features
            are NaN or infinite; `cache_dir` holds features already.
        TypeError: `trunk` is no model, `data` no data; an option is unknown.
        OSError: `cache_dir` cannot be written to, or its disk is full.

    Example:

    >>> augment = keras.layers.RandomTranslation(0.1, 0.1)
    >>> features, labels = extract_features(trunk, train_ds, augment=augment, views=3)
    """
    extraction = resolve_extraction(extraction, options).literal()
    check_data(data, extraction.steps)
    stateless_seed(seed)
    check_is_keras_3(trunk)
    check_stateless(trunk)
    check_lengths(trunk, data)
    with _Sinks(extraction.cache_dir, None) as sinks:
        _read(trunk, data, extraction, sinks, seed=seed, verbose=verbose)
    return sinks.all_views()


def read_features(trunk, data, extraction, *, seed, verbose):
    """The features to train on, see `Extracted`; the data are read once.

    With `cache_dir` they are in its folder "training", or "view-0" and on.

    Args:
        trunk: Keras model.
        data: checked data.
        extraction: `Extraction` with a number as `per_class`, or None.
        seed: two whole numbers.
        verbose: 0 for silence; otherwise a progress bar.
    """
    with _Sinks(extraction.cache_dir, ("training", "view-{}")) as sinks:
        totals, source = _read(
            trunk, data, extraction, sinks, seed=seed, verbose=verbose
        )
    return Extracted(sinks.views(), totals, source)


def validation_features(trunk, data, extraction, *, verbose):
    """Features to score on; with `cache_dir` in its folder "validation"."""
    whole = dataclasses.replace(
        extraction, augment=None, views=None, per_class=None, steps=None
    )
    sinks = _Sinks(extraction.cache_dir, ("validation", ""))
    with sinks, about_validation_data():
        _read(trunk, data, whole, sinks, seed=(0, 0), verbose=verbose)
    return sinks.all_views()


@contextlib.contextmanager
def about_validation_data():
    """Says of an error of data that it is of the `validation_data`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if "validation_data" in str(error):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"`validation_data`: {error}") from error


def check_cache(cache_dir):
    """Raises, before any pass, where not all sets can be written to `cache_dir`."""
    check_free(cache_dir)
    for folder in _sets_in(cache_dir):
        check_free(folder)


@contextlib.contextmanager
def all_sets_or_none(cache_dir):
    """Removes what was written to a checked `cache_dir` on an error or an interrupt."""
    if cache_dir is None:
        yield
        return
    missing = missing_folders(pathlib.Path(cache_dir))
    try:
        yield
    except BaseException:
        for folder in _sets_in(cache_dir):
            shutil.rmtree(folder)
        remove_empty(missing)
        raise


def _sets_in(cache_dir):
    patterns = "training", "validation", "view-*"
    return [path for name in patterns for path in pathlib.Path(cache_dir).glob(name)]


class _Sinks:
    """Where the features of each view go: to memory, or to folders of `cache_dir`.

    Args:
        cache_dir: folder, or None for memory.
        names: of the folder in it for plain features, and of those for views; None
            where all are one set.
    """

    def __init__(self, cache_dir, names):
        self._cache_dir, self._names = cache_dir, names
        self._parts, self._writers, self._folders = [], [], []
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        self._stack.__enter__()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def open(self, num_views):
        """Makes room for views; 0 is for the examples as they are."""
        self._parts = [[] for _ in range(num_views or 1)]
        if self._cache_dir is None:
            return
        if self._names is None:
            self._folders = [self._stack.enter_context(new_set(self._cache_dir))]
            prefixes = [f"view-{v:03d}" for v in range(num_views)]
            prefixes = prefixes if num_views > 1 else [""]
            folders = self._folders * len(prefixes)
        else:
            plain, view = self._names
            names = [view.format(v) for v in range(num_views)] or [plain]
            self._folders = folders = [
                self._stack.enter_context(new_set(pathlib.Path(self._cache_dir) / name))
                for name in names
            ]
            prefixes = [""] * len(folders)
        self._writers = [
            self._stack.enter_context(ShardWriter(folder, prefix=prefix))
            for folder, prefix in zip(folders, prefixes, strict=True)
        ]

    def add(self, view, part):
        """Adds `LabeledFeatures` to a view."""
        if self._writers:
            self._writers[view].write(part)
        else:
            self._parts[view].append(part)

    def views(self):
        """`LabeledFeatures` of each view."""
        if self._folders:
            # They were written just now: to read them all again would see no more.
            return [load_features(folder, verify=False) for folder in self._folders]
        return [LabeledFeatures.concatenate(parts) for parts in self._parts]

    def all_views(self):
        """`LabeledFeatures` of all views, one after the other."""
        return LabeledFeatures.concatenate(self.views())


def _read(trunk, data, extraction, sinks, *, seed, verbose):
    """Fills the sinks; returns `(ClassTotals, ViewSource)`."""
    reading = _Reading(data, extraction, seed, verbose)
    with contextlib.closing(reading), without_retracing_warnings():
        source = _fill(trunk, reading, extraction, sinks, seed)
    return reading.totals, source


def _fill(trunk, reading, extraction, sinks, seed):
    """Fills the sinks with what is read; returns the `ViewSource`."""
    source = choose_views(extraction, reading.first[0])
    num_views = extraction.num_views if source.is_view else 0
    sinks.open(num_views)
    augmenters = [_augmenter(source.augment, seed, view) for view in range(num_views)]
    counted, shape = 0, None
    for number, chunk in enumerate(reading.chunks()):
        for view, augment in enumerate(augmenters or [_as_it_is]):
            inputs = for_keras(augment(chunk.x, number))
            features = _features_of(trunk, inputs)
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
        raise ValueError(_NO_EXAMPLE)
    return source


class _Reading:
    """One reading of the data.

    Args:
        data: checked data.
        extraction: `Extraction`.
        seed: two whole numbers; chooses examples of arrays.
        verbose: whether there is a progress bar.

    Attributes:
        totals: `ClassTotals`, filled while chunks are read.
        first: the first batch `(inputs, labels, sample_weight)`.
    """

    def __init__(self, data, extraction, seed, verbose):
        self.totals, self._extraction, rows = ClassTotals(), extraction, None
        arrays = arrays_of(data)
        if arrays is not None and extraction.per_class is not None:
            rows = self._choose(*arrays, seed)
        self._is_chosen = rows is not None
        total = num_batches(data, extraction, rows)
        self._bar = progress_bar(total, "batch", verbose)
        self._batches = batches_of(data, extraction, rows)
        self.first = next(self._batches, None)
        if self.first is None:
            raise ValueError(NO_BATCH if rows is None else _NO_EXAMPLE)

    def close(self):
        """Ends the reading, and the threads that read ahead."""
        self._batches.close()

    def _choose(self, labels, weight, seed):
        extraction = self._extraction
        if extraction.steps is not None:
            seen = slice(0, extraction.steps * extraction.batch_size)
            labels, weight = labels[seen], None if weight is None else weight[seen]
        ids = class_ids(labels)
        there = np.arange(ids.size)
        if weight is not None:
            check_weights(weight, ids.size)
            there = np.flatnonzero(weight)
        self.totals.add(ids, weight)
        rng = numbers_for("chosen examples", seed)
        return there[choose_rows(ids[there], extraction.per_class, rng)]

    def chunks(self):
        """Yields what the trunk is to look at, as `Chunk`."""
        per_class = self._extraction.per_class
        if self._is_chosen:
            yield from whole_chunks(self._shown(), ClassTotals())
        elif per_class is None:
            yield from whole_chunks(self._shown(), self.totals)
        else:
            yield from chosen_chunks(self._shown(), self.totals, per_class)

    def _shown(self):
        read = 0
        for batch in itertools.chain([self.first], self._batches):
            yield batch
            read += 1
            self._bar.update(read)
        if self._bar.target is None:
            self._bar.update(read, finalize=True)


def augment_once(augment, x):
    """One batch of inputs, augmented, to see whether it works."""
    return _augmenter(augment, (0, 0), 0)(x, 0)


def _augmenter(augment, seed, view):
    """A function of a batch and its number; the same seed gives the same views."""
    numbers = numbers_for("views", seed, view)
    if isinstance(augment, keras.layers.Layer):
        return functools.partial(_augmented_by_layer, augment, numbers)
    try:
        seeded = "seed" in inspect.signature(augment).parameters
    except ValueError:  # written in C
        seeded = False
    if not seeded:
        return lambda x, step: augment(_copied(x))
    first = int(numbers.integers(2**31))
    return lambda x, step: augment(
        _copied(x), seed=tf.constant([first, step], tf.int32)
    )


def _copied(x):
    """A batch that a function may write into."""
    return keras.tree.map_structure(
        lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, x
    )


def _as_it_is(x, step):
    del step
    return x


def _augmented_by_layer(layer, numbers, x, step):
    del step
    seed_layers(layer, numbers)
    with noise_from(numbers):
        return layer(x, training=True)


def _features_of(trunk, x):
    if spans_workers(trunk):
        # `predict` would wait for the other workers and take turns with their batches.
        return as_array(trunk(x, training=False))
    strategy = model_strategy(trunk)
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        # `predict_on_batch` hands the whole batch to every replica.
        return np.asarray(trunk.predict(x, verbose=0))
    return _on_even_batch(trunk.predict_on_batch, x)


def _on_even_batch(predict, x):
    """Features of a batch that grows, for the moment, to what devices can share."""
    multiple = batch_multiple()
    if multiple == 1:
        return np.asarray(predict(x))
    rows = len(keras.tree.flatten(x)[0])
    row = np.minimum(np.arange(-(-rows // multiple) * multiple), rows - 1)
    even = keras.tree.map_structure(lambda array: np.asarray(array)[row], x)
    return np.asarray(predict(even))[:rows]
