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

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.arguments import is_infinite, stateless_seed
from tf_pseudofeat.graph import check_is_keras_3
from tf_pseudofeat.labeled import LabeledFeatures
from tf_pseudofeat.options import resolve_extraction
from tf_pseudofeat.seeds import noise_from, numbers_for, seed_layers
from tf_pseudofeat.shards import ShardWriter, check_free, load_features, new_set
from tf_pseudofeat.strategies import batch_multiple, model_strategy, spans_workers

__all__ = [
    "all_sets_or_none",
    "augment_once",
    "check_cache",
    "check_data",
    "extract_features",
    "first_batch",
    "labels_at_hand",
    "plain_and_views",
    "validation_features",
]

_NO_BATCH = "The data has no batch; there are no features to extract."


def extract_features(
    trunk, data, extraction=None, *, seed=(1, 2), verbose="auto", **options
):
    """Runs the trunk over the data in inference mode.

    Args:
        trunk: the Keras model from inputs to features, as `split_at` gives it.
        data: a `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)` batches, a
            `keras.utils.PyDataset` of the same, or such a tuple of arrays.
        extraction: `Extraction`; with `augment` the data are read once for each view,
            and not as they are.
        seed: two whole numbers; of the augmentation. Views and batches have streams of
            their own. What a function without `seed` draws does not follow from it.
        verbose: 0 for silence; otherwise a progress bar.
        **options: fields of `Extraction`, which override those of `extraction`.

    Returns:
        extracted: `LabeledFeatures`, view after view, without examples of weight 0;
        `features, labels = extract_features(...)`. With `cache_dir` the features are a
        `StoredArray`; labels and weights are in memory.

    Raises:
        ValueError: `data` has another structure, is empty, is not batched, or is
            infinite with no `steps`; the lengths in a batch differ, or its features
            are NaN or infinite; `cache_dir` holds features already.
        TypeError: `trunk` is no model, `data` no data; an option is unknown.
        OSError: `cache_dir` cannot be written to, or its disk is full.

    Example:

    >>> augment = keras.layers.RandomTranslation(0.1, 0.1)
    >>> features, labels = extract_features(trunk, train_ds, augment=augment, views=3)
    """
    extraction = resolve_extraction(extraction, options)
    check_data(data, extraction.steps)
    stateless_seed(seed)
    check_is_keras_3(trunk)
    views = range(extraction.num_views) or [None]
    passes = [_one_pass(trunk, data, extraction, seed, v, verbose) for v in views]
    return _gathered(passes, extraction.cache_dir)


def plain_and_views(trunk, data, extraction, *, seed, verbose):
    """`LabeledFeatures` of the data as they are, and a list of those of their views.

    With `cache_dir` they are in its folders "training", "view-0" and on.
    """

    def read(view, name):
        parts = _one_pass(trunk, data, extraction, seed, view, verbose)
        return _gathered([parts], extraction.cache_dir, name)

    plain = read(None, "training")
    return plain, [read(v, f"view-{v}") for v in range(extraction.num_views)]


def validation_features(trunk, data, extraction, *, verbose):
    """Features to score on; with `cache_dir` in its folder "validation"."""
    whole = dataclasses.replace(extraction, augment=None, views=None, steps=None)
    parts = _one_pass(trunk, data, whole, None, None, verbose)
    return _gathered([parts], extraction.cache_dir, "validation")


def check_cache(cache_dir):
    """Raises, before any pass, where not all sets can be written to `cache_dir`."""
    check_free(cache_dir)
    for folder in _sets_in(cache_dir):
        check_free(folder)


@contextlib.contextmanager
def all_sets_or_none(cache_dir):
    """Removes what was written to a checked `cache_dir` on an error or an interrupt."""
    try:
        yield
    except BaseException:
        for folder in _sets_in(cache_dir) if cache_dir is not None else ():
            shutil.rmtree(folder)
        raise


def _sets_in(cache_dir):
    patterns = "training", "validation", "view-*"
    return [path for name in patterns for path in pathlib.Path(cache_dir).glob(name)]


def augment_once(augment, x):
    """One batch of inputs, augmented, to see whether it works."""
    return _augmenter(augment, (0, 0))(x, 0)


def _gathered(passes, cache_dir, name=None):
    """The features of passes, in memory or in `cache_dir`, there in a folder `name`."""
    if cache_dir is None:
        return LabeledFeatures.concatenate(
            [LabeledFeatures.concatenate(list(parts)) for parts in passes]
        )
    folder = cache_dir if name is None else pathlib.Path(cache_dir) / name
    with new_set(folder) as folder:
        for number, parts in enumerate(passes):
            prefix = f"view-{number:03d}" if len(passes) > 1 else ""
            with ShardWriter(folder, prefix=prefix) as writer:
                for part in parts:
                    writer.write(part)
    return load_features(folder)


def _one_pass(trunk, data, extraction, seed, view, verbose):
    """Yields each batch as `LabeledFeatures`; augmented unless `view` is None."""
    total = _num_batches(data, extraction)
    progress = keras.utils.Progbar(total, verbose=int(bool(verbose)), unit_name="batch")
    augment = None if view is None else extraction.augment
    augmented = _augmenter(augment, seed, view)
    read = counted = 0
    for x, y, weight in itertools.islice(_batches(data, extraction), total):
        inputs = _for_keras(augmented(x, read))
        features, labels = _features_of(trunk, inputs), _array(y)
        weight = None if weight is None else _array(weight)
        read += 1
        progress.update(read)
        try:
            part = LabeledFeatures.of_batch(features, labels, weight, inputs)
        except ValueError as error:
            raise ValueError(f"Batch {read - 1}, counted from 0: {error}") from error
        if part is not None:
            counted += 1
            yield part
    if not read:
        raise ValueError(_NO_BATCH)
    if not counted:
        raise ValueError(
            "All sample weights are 0, or all batches empty: there is no example."
        )
    if total is None:
        progress.update(read, finalize=True)


def _augmenter(augment, seed, view=0):
    """A function of a batch and its number; the same seed gives the same views."""
    if augment is None:
        return lambda x, step: x
    numbers = numbers_for("views", seed, view)
    if isinstance(augment, keras.layers.Layer):
        seed_layers(augment, numbers)
        return functools.partial(_augmented_by_layer, augment, numbers)
    try:
        seeded = "seed" in inspect.signature(augment).parameters
    except ValueError:  # written in C
        seeded = False
    if not seeded:
        return lambda x, step: augment(x)
    first = int(numbers.integers(2**31))
    return lambda x, step: augment(x, seed=tf.constant([first, step], tf.int32))


def _augmented_by_layer(layer, numbers, x, step):
    with noise_from(numbers):
        return layer(x, training=True)


def first_batch(data, extraction):
    """One batch `(x, y, sample_weight or None)` of data that passed `check_data`."""
    for batch in _batches(data, extraction):
        return batch
    raise ValueError(_NO_BATCH)


def labels_at_hand(data, batch):
    """All labels where `data` are arrays, else those of the first batch."""
    if isinstance(data, tuple | list):
        batch = keras.tree.flatten(data[1])[0]
    return _array(batch)


def check_data(data, steps=None):
    """Raises, before anything is read, for data that cannot be extracted from."""
    if isinstance(data, tf.data.Dataset):
        _check_structure(data.element_spec)
        if is_infinite(data) and steps is None:
            raise ValueError(
                "The dataset is infinite (`repeat()`?); pass `steps`, the number of "
                "batches to read, or the dataset as it was before `repeat()`."
            )
        if data.cardinality() == 0:
            raise ValueError("The dataset is empty; there are no features to extract.")
    elif isinstance(data, tuple | list):
        data = _without_none(data)
        _check_structure(data)
        lengths = {len(leaf) for leaf in _leaves(data)}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError(
                f"The arrays of `data` must have one common length above 0; received "
                f"lengths {sorted(lengths)}."
            )
    elif not isinstance(data, keras.utils.PyDataset):
        raise TypeError(
            f"`data` must be a tf.data.Dataset or keras.utils.PyDataset of (x, y) "
            f"batches, or a tuple of arrays (x, y); received {type(data).__name__}."
        )


def _leaves(arrays):
    leaves = keras.tree.flatten(list(arrays))
    for leaf in leaves:
        if np.ndim(leaf) == 0:
            raise ValueError(
                f"`data` holds the single value {leaf!r} where an array of N rows is "
                f"needed. Pass lists as arrays, np.asarray(x)."
            )
    return leaves


def _check_structure(elements):
    if not isinstance(elements, tuple | list) or len(elements) not in (2, 3):
        raise ValueError(
            f"`data` must give (x, y) or (x, y, sample_weight); received "
            f"{elements if isinstance(elements, dict) else type(elements).__name__}"
            f"{f' of {len(elements)}' if hasattr(elements, '__len__') else ''}."
        )
    if isinstance(elements[1], list):
        raise ValueError(
            f"`y` is a list of {len(elements[1])}; pass an array, np.asarray(y)."
        )
    labels = keras.tree.flatten(elements[1])
    if len(labels) != 1:
        raise ValueError(
            f"One set of labels is needed; `y` holds {len(labels)}. Split the "
            f"model for the output that they are for, split_at(model, layer, output=), "
            f"or map the data to its labels."
        )
    rank = getattr(getattr(labels[0], "shape", None), "rank", None)
    if isinstance(labels[0], tf.TensorSpec) and rank == 0:
        raise ValueError(
            "The dataset gives single examples, not batches (its labels have shape "
            "[]). Add `.batch(256)`."
        )


def _num_batches(data, extraction):
    if isinstance(data, tf.data.Dataset):
        known = int(data.cardinality())
        known = None if known < 0 else known
    elif isinstance(data, tuple | list):
        known = -(-len(keras.tree.flatten(data[1])[0]) // extraction.batch_size)
    else:
        known = len(data)
    bounds = [int(bound) for bound in (known, extraction.steps) if bound is not None]
    return min(bounds, default=None)


def _batches(data, extraction):
    """Yields `(x, y, sample_weight or None)`."""
    if isinstance(data, tuple | list):
        data = _array_batches(_without_none(data), extraction.batch_size)
    elif isinstance(data, keras.utils.PyDataset):
        data = map(_checked_item, itertools.repeat(data), range(len(data)))
    for x, y, *weight in data:
        yield _for_keras(x), keras.tree.flatten(y)[0], weight[0] if weight else None


def _checked_item(data, index):
    batch = data[index]
    _check_structure(batch)
    return batch


def _without_none(arrays):
    """`(x, y, None)`, as people write it, is `(x, y)`."""
    return tuple(array for array in arrays if array is not None)


def _array_batches(arrays, batch_size):
    arrays = keras.tree.map_structure(np.asarray, arrays)
    for start in range(0, len(keras.tree.flatten(arrays[1])[0]), batch_size):
        rows = slice(start, start + batch_size)
        yield keras.tree.map_structure(lambda array, rows=rows: array[rows], arrays)


def _features_of(trunk, x):
    if spans_workers(trunk):
        # `predict` would wait for the other workers and take turns with their batches.
        return _array(trunk(x, training=False))
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


def _for_keras(x):
    """A batch as models of any backend take it: jax and torch know no TensorFlow."""
    if keras.backend.backend() == "tensorflow":
        return x
    return keras.tree.map_structure(_array, x)


def _array(values):
    return np.asarray(keras.ops.convert_to_numpy(values))
