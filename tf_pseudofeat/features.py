"""Step 2 of Konno and Iwazume (2018): the features of the training data, in one pass.

Features and labels come from the same pass. A shuffled dataset that is read twice, once
for each, pairs them at random.
"""

import functools
import inspect
import itertools
import pathlib

import keras
import numpy as np
import tensorflow as tf

from tf_pseudofeat.arguments import (
    check_finite,
    is_infinite,
    stateless_seed,
    whole_number,
)
from tf_pseudofeat.graph import check_is_keras_3
from tf_pseudofeat.labelled import LabelledFeatures
from tf_pseudofeat.seeds import noise_from, numbers_for, seed_layers
from tf_pseudofeat.shards import ShardWriter, check_free, load_features, new_set
from tf_pseudofeat.stored import StoredArray
from tf_pseudofeat.strategies import batch_multiple, model_strategy, spans_workers

__all__ = [
    "augment_once",
    "check_augmentation",
    "check_cache",
    "check_data",
    "concatenate",
    "extract_features",
    "extract_views",
    "first_batch",
    "labels_at_hand",
    "plain_and_views",
    "validation_features",
]

_ARRAY_BATCH = 256
_NO_BATCH = "The data has no batch; there are no features to extract."


def extract_features(
    trunk,
    data,
    *,
    augment=None,
    views=None,
    steps=None,
    seed=(1, 2),
    cache_dir=None,
    verbose="auto",
):
    """Runs the trunk over the data in inference mode.

    With `augment`, the data are read once for each view, and every time other
    augmented inputs are seen. A trunk that has memorised its training images shows
    their rare classes far too narrow; under views that it was not trained on they
    spread as new images do.

    Args:
        trunk: the Keras model from inputs to features, as `split_at` gives it.
        data: a `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)` batches, a
            `keras.utils.PyDataset` of the same, or such a tuple of arrays.
        augment: a Keras preprocessing layer or model, called with `training=True`, or
            a function from a batch of inputs to such a batch; a function with an
            argument `seed` gets another one, int32 `[2]`, for each batch.
        views: how often to read the data, 3 by default; needs `augment`.
        steps: batches to read; needed for an infinite dataset.
        seed: two whole numbers; of the augmentation. Views and batches have streams of
            their own. What a function without `seed` draws does not follow from it.
        cache_dir: a folder to write the features to, for a set that does not fit in
            memory, or to use it again with `load_features`. One shard of 64 MiB is in
            memory at a time. On an error or an interrupt nothing stays.
        verbose: 0 for silence; otherwise a progress bar.

    Returns:
        extracted: `LabelledFeatures`, view after view;
        `features, labels = extract_features(...)`. With `cache_dir` the features are a
        `StoredArray`; labels and weights are in memory.

    Raises:
        ValueError: `data` has another structure, is empty, is not batched, or is
            infinite with no `steps`; the lengths in a batch differ, or its features
            are NaN or infinite; `views` without `augment`; `cache_dir` holds features
            already.
        TypeError: `trunk` is no model, `data` no data; `augment` cannot be called.
        OSError: `cache_dir` cannot be written to, or its disk is full.

    Example:

    >>> augment = keras.layers.RandomTranslation(0.1, 0.1)
    >>> features, labels = extract_features(trunk, train_ds, augment=augment, views=3)
    """
    passes = _passes(trunk, data, augment, views, steps, seed, verbose)
    if cache_dir is not None:
        return _stored(passes, cache_dir)
    return concatenate([_in_memory(parts) for parts in passes])


def extract_views(
    trunk,
    data,
    *,
    augment=None,
    views=None,
    steps=None,
    seed=(1, 2),
    cache_dir=None,
    verbose="auto",
):
    """The same as `extract_features`, view by view.

    Returns:
        views: a list of `LabelledFeatures`; one without `augment`. With `cache_dir`
        each has a folder in it.
    """
    passes = _passes(trunk, data, augment, views, steps, seed, verbose)
    if cache_dir is None:
        return [_in_memory(parts) for parts in passes]
    return [
        _stored([parts], _cache_folder(cache_dir, f"view-{number}"))
        for number, parts in enumerate(passes)
    ]


def plain_and_views(trunk, data, *, augment, steps, verbose, cache_dir=None, **views):
    """Features of the data as they are, and of views of them where they are augmented.

    Returns:
        plain: `LabelledFeatures`; with `cache_dir` in its folder "training".
        views: a list of them; none without `augment`.
    """
    reading = {"steps": steps, "verbose": verbose}
    folder = _cache_folder(cache_dir, "training")
    plain = extract_features(trunk, data, cache_dir=folder, **reading)
    if augment is None:
        return plain, []
    reading["cache_dir"] = cache_dir
    return plain, extract_views(trunk, data, augment=augment, **reading, **views)


def validation_features(trunk, data, *, cache_dir=None, verbose="auto"):
    """Features to score on; with `cache_dir` in its folder "validation"."""
    folder = _cache_folder(cache_dir, "validation")
    return extract_features(trunk, data, cache_dir=folder, verbose=verbose)


def _cache_folder(cache_dir, name):
    """The folder of one of several sets; None where there is no `cache_dir`."""
    return None if cache_dir is None else pathlib.Path(cache_dir) / name


def check_cache(cache_dir):
    """Refuses, before any pass, a `cache_dir` that not all sets can be written to.

    Raises:
        TypeError: It is no path.
        ValueError: A set, or what is left of one, is there.
        OSError: It cannot be written to.
    """
    check_free(cache_dir)
    for pattern in ("training", "validation", "view-*"):
        for folder in pathlib.Path(cache_dir).glob(pattern):
            check_free(folder)


def concatenate(parts):
    """Several `LabelledFeatures`, one after the other, as one.

    Those that lie on disk stay there.
    """
    if len(parts) == 1:
        return parts[0]
    weighted = parts[0].sample_weight is not None
    stored = all(isinstance(part.features, StoredArray) for part in parts)
    join = StoredArray.concatenate if stored else np.concatenate
    return LabelledFeatures(
        features=join([part.features for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        sample_weight=(
            np.concatenate([part.sample_weight for part in parts]) if weighted else None
        ),
    )


def check_augmentation(augment, views=None):
    """How many views are meant; refuses what cannot be.

    Returns:
        views: 1 without `augment`, else `views` or 3.
    """
    views = None if views is None else whole_number("views", views)
    if augment is None:
        if views not in (None, 1):
            raise ValueError(
                f"views={views} without `augment` would be {views} times the same; "
                f"pass a Keras preprocessing model or a function as `augment`."
            )
        return 1
    if not callable(augment):
        raise TypeError(
            f"`augment` is a Keras preprocessing layer or model, or a function from a "
            f"batch of inputs to such a batch; received {type(augment).__name__}."
        )
    return views or 3


def augment_once(augment, x):
    """One batch of inputs, augmented, to see whether it works."""
    return _augmenter(augment, (0, 0))(x, 0)


def _passes(trunk, data, augment, views, steps, seed, verbose):
    """What is to be read, checked: for each view, an iterator of its batches."""
    check_data(data, steps)
    views = check_augmentation(augment, views)
    stateless_seed(seed)
    check_is_keras_3(trunk)
    return [
        _one_pass(trunk, data, augment, seed, view, steps, verbose)
        for view in range(views)
    ]


def _in_memory(parts):
    return concatenate(list(parts))


def _stored(passes, folder):
    with new_set(folder) as folder:
        for number, parts in enumerate(passes):
            prefix = f"view-{number:03d}" if len(passes) > 1 else ""
            with ShardWriter(folder, prefix=prefix) as writer:
                for part in parts:
                    writer.add(part.features, part.labels, part.sample_weight)
    return load_features(folder)


def _one_pass(trunk, data, augment, seed, view, steps, verbose):
    """Yields each batch as `LabelledFeatures`."""
    augmented = (lambda x, _: x) if augment is None else _augmenter(augment, seed, view)
    total = _num_batches(data, steps)
    progress = keras.utils.Progbar(total, verbose=int(bool(verbose)), unit_name="batch")
    read = 0
    for x, y, weight in itertools.islice(_batches(data), total):
        inputs = _for_keras(augmented(x, read))
        features = _features_of(trunk, inputs)
        weight = None if weight is None else _array(weight)
        part = LabelledFeatures(features, _array(y), weight)
        _check_part(part, inputs, read)
        yield part
        read += 1
        progress.update(read)
    if not read:
        raise ValueError(_NO_BATCH)
    if total is None:
        progress.update(read, finalize=True)


def _check_part(part, inputs, number):
    """A batch out of step would shift all labels that follow."""
    arrays = {field: getattr(part, field) for field in ("features", "labels")}
    if part.sample_weight is not None:
        arrays["sample_weight"] = part.sample_weight
    lengths = {name: array.shape[:1] for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(
            f"Batch {number}, counted from 0, has first dimensions {lengths}; every "
            f"example needs a feature and a label of its own."
        )
    name = f"The features of batch {number}, counted from 0,"
    check_finite(part.features, name, inputs)


def _augmenter(augment, seed, view=0):
    """A function of a batch and its number; the same seed gives the same views."""
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


def first_batch(data):
    """One batch `(x, y, sample_weight or None)` of data that passed `check_data`."""
    for batch in _batches(data):
        return batch
    raise ValueError(_NO_BATCH)


def labels_at_hand(data, batch):
    """The labels that are known without reading on.

    Args:
        data: data that passed `check_data`.
        batch: the labels of its first batch.

    Returns:
        labels: all of them where `data` are arrays, else those of the batch.
    """
    if isinstance(data, tuple | list):
        batch = keras.tree.flatten(data[1])[0]
    return _array(batch)


def check_data(data, steps=None):
    """Refuses, before anything is read, data that cannot be extracted from.

    Args:
        data: what a user passes as `data`, see `extract_features`.
        steps: batches to read, or None for all.

    Raises:
        ValueError: With what came, what was expected and what to do.
        TypeError: `data` is no dataset and no tuple of arrays.
    """
    if steps is not None:
        whole_number("steps", steps)
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
            f"One set of labels is needed; `y` holds {len(labels)}. Name the output "
            f"of the model that they are for, output=, or map the data to its labels."
        )
    rank = getattr(getattr(labels[0], "shape", None), "rank", None)
    if isinstance(labels[0], tf.TensorSpec) and rank == 0:
        raise ValueError(
            "The dataset gives single examples, not batches (its labels have shape "
            "[]). Add `.batch(256)`."
        )


def _num_batches(data, steps):
    if isinstance(data, tf.data.Dataset):
        known = int(data.cardinality())
        known = None if known < 0 else known
    elif isinstance(data, tuple | list):
        known = -(-len(keras.tree.flatten(data[1])[0]) // _ARRAY_BATCH)
    else:
        known = len(data)
    bounds = [int(bound) for bound in (known, steps) if bound is not None]
    return min(bounds, default=None)


def _batches(data):
    """Yields `(x, y, sample_weight or None)`."""
    if isinstance(data, tuple | list):
        data = _array_batches(_without_none(data))
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


def _array_batches(arrays):
    arrays = keras.tree.map_structure(np.asarray, arrays)
    for start in range(0, len(keras.tree.flatten(arrays[1])[0]), _ARRAY_BATCH):
        rows = slice(start, start + _ARRAY_BATCH)
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
