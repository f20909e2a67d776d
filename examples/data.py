"""Imbalanced image sets: real images, cut to the paper's protocol or to a long tail."""

import dataclasses
import pathlib

import keras
import numpy as np
import tensorflow as tf

__all__ = [
    "ImbalancedImages",
    "imbalance",
    "load_images",
    "long_tail_sizes",
    "only_classes",
    "prepared_set",
    "random_views",
    "step_sizes",
    "training_stream",
    "under_sampled",
    "validation_and_test",
]


@dataclasses.dataclass(frozen=True, eq=False)
class ImbalancedImages:
    """Training images cut to an imbalance, and a test set that is not.

    Attributes:
        train_images: uint8 `[N, height, width, channels]`.
        train_labels: int64 `[N]`.
        test_images: uint8 `[M, height, width, channels]`.
        test_labels: int64 `[M]`.
        class_names: list of C.
        minority: ids of the classes that were cut.
        removed_images: training images that were cut away, None before that.
        removed_labels: their labels.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: list[str]
    minority: list[int]
    removed_images: np.ndarray | None = None
    removed_labels: np.ndarray | None = None

    @property
    def num_classes(self):
        """C."""
        return len(self.class_names)


def load_images(name, data_dir=None, download=False, image_size=None):
    """All images of a set, in memory.

    Args:
        name: "digits" (scikit-learn's, 8 x 8, always there) or an image classification
            set of TensorFlow Datasets with a test or validation split.
        data_dir: where TFDS sets are prepared; by default `~/tensorflow_datasets`.
        download: let TFDS fetch and prepare what is not there.
        image_size: resize to this height and width; needed where sizes differ.

    Returns:
        images: `ImbalancedImages`, not yet cut: `minority` is empty.

    Raises:
        FileNotFoundError: The set is not prepared and `download` is off.
        ValueError: `name` is a path, or the set has no labels, no test split or images
            of many sizes.
    """
    if {"", ".", ".."} & set(name.split("/")):  # paths to write to are made of it
        raise ValueError(f"--dataset is a name such as 'cifar10'; received {name!r}.")
    if name == "digits":
        return _load_digits()
    return _load_tfds(name, data_dir, download, image_size)


def only_classes(images, names):
    """Some of the classes of a set, for instance two that are easily confused.

    Args:
        images: `ImbalancedImages`, not yet cut.
        names: of the classes to keep; they are numbered in this order.

    Returns:
        images: `ImbalancedImages` of these classes alone.

    Raises:
        ValueError: A name is unknown or comes twice, or there are fewer than two.
    """
    unknown = [name for name in names if name not in images.class_names]
    if unknown or len(set(names)) < max(len(names), 2):
        raise ValueError(
            f"--classes takes two or more different names of {images.class_names}; "
            f"received {list(names)}."
        )
    number = np.full(images.num_classes, -1)
    number[[images.class_names.index(name) for name in names]] = np.arange(len(names))

    def kept(pictures, labels):
        labels = number[labels]
        return pictures[labels >= 0], labels[labels >= 0]

    train = kept(images.train_images, images.train_labels)
    test = kept(images.test_images, images.test_labels)
    return ImbalancedImages(*train, *test, class_names=list(names), minority=[])


def step_sizes(counts, num_minority, ratio, rng):
    """The paper's protocol: some classes, chosen at random, are cut to a fraction.

    Args:
        counts: examples per class `[C]`.
        num_minority: how many classes to cut, from 0 to C - 1.
        ratio: the cut classes keep one example in `ratio`.
        rng: `numpy.random.Generator` that chooses them.

    Returns:
        sizes: examples to keep per class `[C]`.
        minority: sorted ids of the classes that are cut.
    """
    counts = np.array(counts)
    if not 0 <= num_minority < counts.size:
        raise ValueError(
            f"--num_minority is 0 to {counts.size - 1}, fewer than the classes; "
            f"received {num_minority}."
        )
    minority = np.sort(rng.permutation(counts.size)[:num_minority])
    counts[minority] = np.maximum(counts[minority] // ratio, 2)
    return counts, minority.tolist()


def long_tail_sizes(counts, ratio, rng):
    """An exponential tail: the largest class has `ratio` times the smallest.

    Args:
        counts: examples per class `[C]`.
        ratio: largest over smallest class.
        rng: `numpy.random.Generator` that puts the classes in order.

    Returns:
        sizes: examples to keep per class `[C]`.
        minority: sorted ids of the smaller half of the classes.
    """
    counts = np.array(counts)
    rank = rng.permutation(counts.size)  # 0 is the largest class
    share = float(ratio) ** (-rank / max(counts.size - 1, 1))
    sizes = np.maximum((counts * share).astype(int), 2)
    return sizes, np.flatnonzero(rank >= (counts.size + 1) // 2).tolist()


def imbalance(images, profile="step", num_minority=5, ratio=10, seed=0):
    """Cuts the training images; the test images stay as they are.

    Args:
        images: `ImbalancedImages`, as from `load_images`.
        profile: "step" (the paper's) or "long_tail".
        num_minority: for "step", how many classes are cut.
        ratio: largest over smallest class.
        seed: chooses the classes and the images.

    Returns:
        cut: `ImbalancedImages`.
    """
    rng = np.random.default_rng(seed)
    counts = np.bincount(images.train_labels, minlength=images.num_classes)
    if profile == "step":
        sizes, minority = step_sizes(counts, num_minority, ratio, rng)
    elif profile == "long_tail":
        sizes, minority = long_tail_sizes(counts, ratio, rng)
    else:
        raise ValueError(f"profile is 'step' or 'long_tail'; received {profile!r}.")
    order = rng.permutation(images.train_labels.size)
    labels = images.train_labels[order]
    rank = np.zeros(labels.size, int)  # of each image within its class
    for class_id in range(images.num_classes):
        members = np.flatnonzero(labels == class_id)
        rank[members] = np.arange(members.size)
    keep = np.sort(order[rank < sizes[labels]])
    removed = np.setdiff1d(order, keep)
    return dataclasses.replace(
        images,
        train_images=images.train_images[keep],
        train_labels=images.train_labels[keep],
        minority=minority,
        removed_images=images.train_images[removed],
        removed_labels=images.train_labels[removed],
    )


def under_sampled(images, seed=0):
    """As many training images of each class as the smallest has, drawn at random."""
    smallest = np.bincount(images.train_labels, minlength=images.num_classes).min()
    rows = np.random.default_rng([seed, 11]).permutation(images.train_labels.size)
    members = [rows[images.train_labels[rows] == c] for c in range(images.num_classes)]
    keep = np.sort(np.concatenate([of_class[:smallest] for of_class in members]))
    return dataclasses.replace(
        images,
        train_images=images.train_images[keep],
        train_labels=images.train_labels[keep],
    )


def validation_and_test(images):
    """The held-out images in two halves: one to choose by, one that chooses nothing.

    Args:
        images: `ImbalancedImages`.

    Returns:
        validation: `(images, labels)`.
        test: `(images, labels)`, with as many of each class, give or take one.
    """
    order = np.argsort(images.test_labels, kind="stable")
    halves = (np.sort(order[start::2]) for start in (0, 1))
    return tuple(
        (images.test_images[rows], images.test_labels[rows]) for rows in halves
    )


def random_views(images, seed, augment):
    """A batch of images as `training_stream` would augment them.

    Args:
        images: `[B, height, width, channels]`.
        seed: int32 `[2]`.
        augment: "shift" or "flip_and_shift".

    Returns:
        views: like `images`.
    """
    images = tf.convert_to_tensor(images)
    count, height, width = len(images), *images.shape[1:3]
    border = max(1, height // 8)
    padded = tf.pad(images, [(0, 0), (border, border), (border, border), (0, 0)])
    corners = tf.random.stateless_uniform(
        [2, count, 1], seed, maxval=2 * border + 1, dtype=tf.int32
    )
    views = tf.gather(padded, corners[0] + tf.range(height), axis=1, batch_dims=1)
    views = tf.gather(views, corners[1] + tf.range(width), axis=2, batch_dims=1)
    if augment == "shift":
        return views
    flip = tf.random.stateless_uniform([count, 1, 1, 1], seed + 1) < 0.5
    return tf.where(flip, views[:, :, ::-1], views)


def training_stream(images, labels, batch_size, augment=None, seed=0):
    """A shuffled `tf.data` stream of batches, augmented where asked for.

    Args:
        images: uint8 `[N, height, width, channels]`.
        labels: `[N]`.
        batch_size: B.
        augment: None, "shift" (by an eighth of the side) or "flip_and_shift".
        seed: of order and augmentation.

    Returns:
        dataset: batches `(images, labels)`.
    """
    # Numbers go through the buffer, and images are copied by the batch.
    arrays = tf.constant(images), tf.constant(labels)
    stream = tf.data.Dataset.range(len(labels)).shuffle(len(labels), seed=seed)
    stream = stream.batch(batch_size).map(
        lambda rows: tuple(tf.gather(array, rows) for array in arrays),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    if augment is not None:
        seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
        stream = tf.data.Dataset.zip(stream, seeds).map(
            lambda batch, seed: (random_views(batch[0], seed, augment), batch[1]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    return stream.prefetch(tf.data.AUTOTUNE)


def _load_digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.uint8(np.round(digits.images * 255 / 16))[..., np.newaxis]
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=0.4, stratify=digits.target, random_state=0
    )
    return ImbalancedImages(
        train_images=train_images,
        train_labels=train_labels.astype(np.int64),
        test_images=test_images,
        test_labels=test_labels.astype(np.int64),
        class_names=[str(name) for name in digits.target_names],
        minority=[],
    )


def _load_tfds(name, data_dir, download, image_size):
    builder = prepared_set(name, data_dir, download)
    info = builder.info
    if info.supervised_keys is None or "label" not in info.features:
        raise ValueError(f"{name} is no set of images with a 'label' each.")
    test = next((s for s in ("test", "validation") if s in info.splits), None)
    if test is None or "train" not in info.splits:
        raise ValueError(
            f"{name} has splits {sorted(info.splits)}; 'train' and one of 'test' and "
            f"'validation' are needed."
        )
    if None in info.features["image"].shape and image_size is None:
        raise ValueError(f"The images of {name} differ in size; pass --image_size=64.")
    train, held_out = (_arrays(builder, split, image_size) for split in ("train", test))
    names = [str(label) for label in info.features["label"].names]
    return ImbalancedImages(*train, *held_out, class_names=names, minority=[])


def prepared_set(name, data_dir=None, download=False):
    """The TFDS builder of a set that is on disk, or may be fetched.

    It looks on disk before TFDS looks on the network, where it may wait for minutes.

    Args:
        name: see `load_images`.
        data_dir: see `load_images`.
        download: see `load_images`.

    Raises:
        FileNotFoundError: The set is not prepared and `download` is off.
    """
    import tensorflow_datasets as tfds

    root = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    prepared = sorted((root / name).glob("**/dataset_info.json"))
    if prepared:
        return tfds.builder_from_directory(prepared[-1].parent)
    if not download:
        raise FileNotFoundError(
            f"TensorFlow Datasets has no prepared {name!r} under {root}. Pass "
            f"--data_dir where it is, --download to fetch it, or --dataset=digits, "
            f"which needs nothing."
        )
    builder = tfds.builder(name, data_dir=root)
    builder.download_and_prepare()
    return builder


def _arrays(builder, split, image_size):
    """`(uint8 images, int64 labels)` in the order of the files, decoded in parallel."""

    def decoded(example):
        image = example["image"]
        if image_size is not None:
            image = tf.image.resize(image, (image_size, image_size), antialias=True)
            image = tf.cast(tf.round(image), tf.uint8)
        return image, example["label"]

    dataset = builder.as_dataset(split=split, shuffle_files=False)
    dataset = dataset.map(decoded, num_parallel_calls=tf.data.AUTOTUNE).batch(1024)
    print(f"Reading {builder.name}, split {split}")
    progress = keras.utils.Progbar(int(dataset.cardinality()), unit_name="batch")
    images, labels = [], []
    for step, (image, label) in enumerate(dataset.as_numpy_iterator()):
        images.append(image)
        labels.append(label)
        progress.update(step + 1)
    return np.concatenate(images), np.concatenate(labels).astype(np.int64)
