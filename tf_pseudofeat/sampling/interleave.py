"""The stream of Step 5: real features and pseudo-features, interleaved.

An epoch has every real example once and the exact number of pseudo-features of each
class, in a uniformly shuffled order. Pseudo-features are drawn as the stream is read
and never stored, so even a hundred times the minority takes no memory.
"""

import functools
import numbers
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tf_pseudofeat.core.labeled import LabeledFeatures
from tf_pseudofeat.core.labels import labels_like
from tf_pseudofeat.core.stateless_seed import stateless_seed
from tf_pseudofeat.core.stored_array import StoredArray
from tf_pseudofeat.core.validation import whole_number
from tf_pseudofeat.gaussians.class_conditional_gaussian import (
    ClassConditionalGaussian,
    check_gaussian,
)
from tf_pseudofeat.gaussians.sampling import sample_gaussians
from tf_pseudofeat.sampling.rounding import cast_draws, warn_of_rounding

__all__ = ["interleave", "stream_features"]

# The stream computes chunks and splits them into batches, since small batches are
# mostly overhead. A chunk has at most this many rows and numbers.
_CHUNK_ROWS = 4096
_CHUNK_SIZE = 2**22

# The functions need no autograph, which takes time.
_no_autograph = tf.autograph.experimental.do_not_convert


def interleave(
    features: object,
    labels: npt.ArrayLike,
    gaussian: ClassConditionalGaussian | None = None,
    counts: Mapping[int, int] | None = None,
    batch_size: int = 256,
    seed: Sequence[int] = (1, 2),
    *,
    sample_weight: npt.ArrayLike | None = None,
    fresh_each_epoch: bool = True,
) -> tf.data.Dataset:
    """A `tf.data.Dataset` of real features and pseudo-features, ready for `head.fit`.

    Each iteration over the dataset is one epoch, in a new order. The order and the
    draws follow from `seed` (and from `tf.random.set_seed`, if it was called). They do
    not depend on threads, or on eager or graph mode. The iterator can be saved and
    resumed with `tf.train.Checkpoint`: it completes its epoch bit for bit. After a
    `repeat()`, later epochs are complete, but may be different ones, or repeat earlier
    ones.

    Features on disk give the same batches, bit for bit, and can be resumed if their
    files are there. Rows are read in ascending order within chunks of some thousand
    rows, several chunks at a time. This is fast while the files fit in the cache of the
    system; if they are several times larger than memory, each row takes a read of 4
    KiB.

    Args:
        features: real features `[N, ...]`, an array, or a `StoredArray` as
            `load_features` returns it. For integer features, pseudo-features are
            rounded, with a warning.
        labels: their labels, `[N]`, `[N, 1]` or one-hot `[N, C]`.
        gaussian: a fitted `ClassConditionalGaussian`, or None to stream only real
            features.
        counts: {class: number of pseudo-features}, as from `pseudo_counts`.
        batch_size: B.
        seed: two integers.
        sample_weight: weights of the real examples `[N]`, or None. Pseudo-features get
            the mean weight of their class.
        fresh_each_epoch: whether to draw new pseudo-features in each epoch. If False,
            as in the paper, all epochs have the same set in different orders.

    Returns:
        dataset: batches `(features [B, ...], labels)`, or `(features, labels,
        sample_weight)`, of known cardinality; labels in the form of the input.

    Raises:
        ValueError: If lengths differ; a feature is NaN or infinite, or a weight
            negative; a count is negative, or of a class that the Gaussians were not
            fitted to; or features and Gaussians differ in shape.
        TypeError: If `counts` is not a dict.

    Examples:
        >>> features = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
        >>> labels = np.repeat([0, 1], [50, 10])
        >>> gaussian = ClassConditionalGaussian(num_classes=2)
        >>> gaussian.adapt(features, labels)
        >>> len(interleave(features, labels, gaussian, {1: 40}, batch_size=10))
        10
    """
    data = LabeledFeatures(features, labels, sample_weight)
    if counts:
        warn_of_rounding([data.features.dtype], stacklevel=2)
    return stream_features(
        data,
        gaussian,
        counts,
        batch_size=batch_size,
        seed=seed,
        fresh_each_epoch=fresh_each_epoch,
    )


def stream_features(data, gaussian, counts, *, batch_size, seed, fresh_each_epoch):
    """`interleave` for `LabeledFeatures`."""
    features, batch_size = data.features, whole_number("batch_size", batch_size)
    num_classes = int(data.ids.max()) + 1
    if gaussian is not None:
        check_gaussian(gaussian)
        num_classes = gaussian.num_classes
        data.class_counts(num_classes)  # raises where a label names none of them
    counts = _resolve_counts(counts, gaussian, features.shape[1:])
    columns = [data.labels]
    prototypes = [labels_like(np.arange(num_classes), data.labels, num_classes)]
    if data.sample_weight is not None:
        columns.append(data.sample_weight)
        prototypes.append(_mean_weights(data.ids, data.sample_weight, num_classes))
    with tf.device("CPU"):
        columns = [tf.constant(column) for column in columns]
        prototypes = [tf.constant(prototype) for prototype in prototypes]
        rows = _row_maker(features, columns, gaussian, counts, prototypes)
        return _stream(
            rows,
            total=len(data) + sum(counts.values()),
            row_size=features[0].size,
            batch_size=batch_size,
            seed=stateless_seed(seed),
            fresh_each_epoch=fresh_each_epoch,
        )


def _on_host(features):
    """Copies features to a tensor once; `tf.constant` would hold two copies."""
    aligned = np.empty(
        features.nbytes + 64, np.uint8
    )  # alignment of TensorFlow's kernels
    start = -aligned.ctypes.data % 64
    aligned = aligned[start : start + features.nbytes].view(features.dtype)
    aligned = aligned.reshape(features.shape)
    aligned[...] = features
    bits = aligned.view(f"u{features.itemsize}")  # DLPack does not know bfloat16
    tensor = tf.experimental.dlpack.from_dlpack(bits.__dlpack__())
    return tf.bitcast(tensor, features.dtype)


def _gatherer(features):
    """Returns a function from row numbers `[M]` to rows of an array or its files."""
    if not isinstance(features, StoredArray):
        return functools.partial(tf.gather, _on_host(features))

    def gather(rows):
        # Stateless, since the result depends only on `rows`, so the iterator can be
        # saved.
        taken = tf.numpy_function(features.take, [rows], features.dtype, stateful=False)
        return tf.ensure_shape(taken, [None, *features.shape[1:]])

    return gather


def _row_maker(features, columns, gaussian, counts, prototypes):
    """Returns a function from indices `[M]` and a seed to rows.

    Indices below N are real examples; those from N on are pseudo-features, class by
    class in the order of `counts`.
    """
    num_real, classes = features.shape[0], tf.constant(list(counts), tf.int64)
    real_features = _gatherer(features)
    borders = tf.constant(np.cumsum([num_real, *counts.values()]), tf.int64)
    loc, scale = gaussian.parameters(list(counts)) if counts else (None, None)
    prototypes = [tf.gather(prototype, classes) for prototype in prototypes]

    def rows(indices, seed):
        group = tf.searchsorted(borders, indices, side="right")  # 0 for a real example
        places = tf.range(tf.size(indices))
        places = tf.dynamic_partition(places, tf.minimum(group, 1), 2)
        real = tf.gather(indices, places[0])
        drawn = tf.gather(group, places[1]) - 1
        samples = sample_gaussians(loc, scale, drawn, seed)
        samples = tf.reshape(samples, [-1, *features.shape[1:]])
        if samples.dtype != features.dtype:
            samples = cast_draws(samples, features.dtype)
        pairs = [(real_features(real), samples)]
        for column, prototype in zip(columns, prototypes, strict=True):
            pairs.append((tf.gather(column, real), tf.gather(prototype, drawn)))
        return tuple(tf.dynamic_stitch(places, pair) for pair in pairs)

    def real_rows(indices, seed):
        del seed  # nothing is drawn
        gathered = (tf.gather(column, indices) for column in columns)
        return real_features(indices), *gathered

    return rows if counts else real_rows


def _stream(rows, *, total, row_size, batch_size, seed, fresh_each_epoch):
    chunk_rows = max(1, min(_CHUNK_ROWS, _CHUNK_SIZE // row_size) // batch_size)
    chunk_rows *= batch_size
    num_chunks = -(-total // chunk_rows)
    set_seed, order_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    fold = tf.random.experimental.stateless_fold_in

    def chunk(rows_seed, position):
        """The rows of one slice of the shuffled indices, with their own draws."""
        shuffle_seed = fold(rows_seed, -1)
        start = position * chunk_rows
        indices = tf.range(start, tf.minimum(start + chunk_rows, total))
        return rows(_shuffled(indices, shuffle_seed, total), fold(rows_seed, position))

    @_no_autograph
    def fresh(epoch, position):
        return chunk(fold(set_seed, epoch), position)

    @_no_autograph
    def fixed(epoch, position):
        """The same chunks in every epoch, in another order, also within chunks."""
        epoch_seed = fold(order_seed, epoch)
        position = _shuffled(position, epoch_seed, num_chunks)
        columns = chunk(set_seed, position)
        places = tf.range(tf.shape(columns[0])[0])
        places = _shuffled(places, fold(epoch_seed, position), tf.size(places))
        return tuple(tf.gather(column, places) for column in columns)

    @_no_autograph
    def begin(epoch, numbered):
        """Identifies the epoch by the random number at its first position."""
        position, number = numbered
        epoch = tf.where(position == 0, number, epoch)
        return epoch, (epoch, position)

    # A new random sequence for each iteration over the dataset.
    numbers = tf.data.Dataset.random(int(seed[0]), rerandomize_each_iteration=True)
    stream = tf.data.Dataset.zip(tf.data.Dataset.range(num_chunks), numbers)
    stream = stream.scan(tf.constant(0, tf.int64), begin)
    stream = stream.map(
        fresh if fresh_each_epoch else fixed, num_parallel_calls=tf.data.AUTOTUNE
    )
    stream = stream.rebatch(batch_size)
    num_batches = -(-total // batch_size)
    stream = stream.apply(tf.data.experimental.assert_cardinality(num_batches))
    # Graph rewrites find nothing to optimize, and copy the features on each iteration.
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    # Deleting an iterator before its end, as after an interrupt, may wait for the next
    # period of the autotuner, up to a minute.
    options.autotune.enabled = False
    # With AUTO, a strategy of one device takes `rebatch` for its own and undoes it.
    policy = tf.data.experimental.AutoShardPolicy.DATA
    options.experimental_distribute.auto_shard_policy = policy
    return stream.prefetch(tf.data.AUTOTUNE).with_options(options)


def _shuffled(indices, seed, size):
    """Maps indices by a uniform random permutation of `range(size)`."""
    # The cipher takes its key from the lowest bits, often 8, of each word of the seed.
    # A folded seed varies in one word, and `index_shuffle` fixes another, which leaves
    # about 250 permutations. So the seed is hashed into all three words.
    key = tf.random.stateless_uniform([3], seed, None, None, tf.int32)
    last = tf.cast(size, indices.dtype) - 1
    return tf.raw_ops.RandomIndexShuffle(
        index=indices, seed=key, max_index=last, rounds=8
    )


def _mean_weights(ids, sample_weight, num_classes):
    total = np.bincount(ids, weights=sample_weight, minlength=num_classes)
    count = np.bincount(ids, minlength=num_classes)
    return (total / np.maximum(count, 1)).astype(sample_weight.dtype)  # [C]


def _resolve_counts(counts, gaussian, feature_shape):
    """Returns {class: number} as ints, without classes that get none."""
    if not isinstance(counts, dict | None):
        raise TypeError(
            f"`counts` must be a dict {{class: number of pseudo-features}}, as from "
            f"pseudo_counts; received {counts!r}."
        )
    counts = {c: count for c, count in (counts or {}).items() if count != 0}
    if not counts:
        return counts
    if gaussian is None:
        raise ValueError(
            f"`counts` asks for pseudo-features of classes {sorted(counts)}, but there "
            f"is no `gaussian` to draw them from. Pass a fitted one."
        )
    for class_id, count in counts.items():
        known = class_id in range(gaussian.num_classes)
        whole = isinstance(count, numbers.Real) and count % 1 == 0
        if not known or not whole or count < 0:
            raise ValueError(
                f"`counts` must map classes 0 to {gaussian.num_classes - 1} to whole "
                f"numbers; received {{{class_id!r}: {count!r}}}."
            )
    counts = {int(class_id): int(counts[class_id]) for class_id in sorted(counts)}
    gaussian.check_can_sample(counts)
    if gaussian.feature_shape != tuple(feature_shape):
        raise ValueError(
            f"The Gaussians were fitted to features of shape "
            f"{list(gaussian.feature_shape)}; received features of shape "
            f"{list(feature_shape)}. Fit them to these features."
        )
    return counts
