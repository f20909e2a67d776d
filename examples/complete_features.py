"""Adds to a feature file what the default and oracle arms of the experiment need.

    python -m examples.complete_features --features=FILE.npz --model=FILE.keras \\
        --dataset=cifar10 --data_dir=DIR --scale --output=COMPLETE.npz

The images behind the features are found again: the model is run on all images of the
set, and each row of the file is the image of its class with the nearest features. Those
that are left are the ones that were cut away. Then views of the found ones are made.
"""

import dataclasses
import functools
import pathlib
import sys

import keras
import numpy as np
from absl import app, flags
from sklearn.neighbors import NearestNeighbors

import tf_pseudofeat as tfpf

from .data import load_images, random_views
from .trunks import FeatureFile, with_used_features

FLAGS = flags.FLAGS

# Features are stored as float16; a row farther from every image is another image's.
_TOLERANCE = 0.02


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("features", None, "The feature file, .npz.")
    flags.DEFINE_string("model", None, "The network that it came from, .keras.")
    flags.DEFINE_string("output", None, "The file to write, .npz.")
    flags.DEFINE_string("layer", "features", "The layer of the features.")
    flags.DEFINE_string("dataset", "digits", "'digits' or a TFDS image set by name.")
    flags.DEFINE_string("data_dir", None, "Where TFDS sets are prepared.")
    flags.DEFINE_bool("scale", False, "The network takes images from -1 to 1.")
    flags.DEFINE_integer("views", 3, "Augmented passes.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the views.")
    for name in ("features", "model", "output"):
        flags.mark_flag_as_required(name)


def complete(file, trunk, images, kind, views=3, seed=0, scale=False):
    """A feature file with views and with the removed examples.

    Args:
        file: `FeatureFile`.
        trunk: Keras model, images -> features.
        images: `ImbalancedImages`, none of them cut.
        kind: "shift" or "flip_and_shift", see `random_views`.
        views: augmented passes.
        seed: of the views.
        scale: whether the trunk takes images from -1 to 1, not from 0 to 255.

    Returns:
        completed: `FeatureFile`.

    Raises:
        ValueError: the images are not those that the features were made of.
    """

    def features(x, y, **options):
        extracted = tfpf.extract_features(
            trunk, (_scaled(x) if scale else x, y), **options
        )
        return extracted.features

    def seen(x, seed):
        return random_views(x, seed, kind)

    everything = features(images.train_images, images.train_labels)
    rows = matching_rows(file, everything, images.train_labels)
    view_features = features(
        images.train_images[rows],
        file.labels,
        augment=functools.partial(_scaled_views, seen) if scale else seen,
        views=views,
        seed=(seed, 1),
    )
    removed = np.setdiff1d(np.arange(len(everything)), rows)
    train = images.train_images[rows]
    file = with_used_features(file, trunk, _scaled(train) if scale else train, seed)
    return dataclasses.replace(
        file,
        view_features=view_features.reshape(views, len(rows), -1),
        removed_features=everything[removed],
        removed_labels=images.train_labels[removed],
    )


def matching_rows(file, everything, labels):
    """Which image each row of a feature file is.

    Args:
        file: `FeatureFile`.
        everything: features of all images `[M, D]`.
        labels: of all images `[M]`.

    Returns:
        rows: int `[N]`, row numbers in `everything`, none of them twice.

    Raises:
        ValueError: a row has no image, or two have the same.
    """
    rows = np.zeros(len(file.labels), int)
    for class_id in np.unique(file.labels):
        mine = np.flatnonzero(file.labels == class_id)
        images = np.flatnonzero(labels == class_id)
        if not images.size:
            raise ValueError(f"The set has no image of class {class_id}.")
        nearest = NearestNeighbors(n_neighbors=1).fit(everything[images])
        distance, found = nearest.kneighbors(file.features[mine])
        if distance.max() > _TOLERANCE:
            raise ValueError(
                f"Features of class {class_id} lie up to {distance.max():.3g} from "
                f"those of every image of it, more than {_TOLERANCE}: the model, its "
                f"--layer, --scale or the set are not those of the file."
            )
        rows[mine] = images[found[:, 0]]
    if len(np.unique(rows)) < len(rows):
        twice = len(rows) - len(np.unique(rows))
        raise ValueError(f"{twice} rows of the file are the same image as another.")
    return rows


def _scaled(images):
    return np.float32(images) / 127.5 - 1


def _scaled_views(views, images, seed):
    """Views are cut from images as stored: their border is black there."""
    return views((images + 1) * 127.5, seed) / 127.5 - 1


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    try:
        file = FeatureFile.read(FLAGS.features)
        trunk, _ = tfpf.split_at(keras.models.load_model(FLAGS.model), FLAGS.layer)
        images = load_images(FLAGS.dataset, FLAGS.data_dir)
        kind = "shift" if FLAGS.dataset == "digits" else "flip_and_shift"
        completed = complete(
            file, trunk, images, kind, FLAGS.views, FLAGS.seed, FLAGS.scale
        )
        pathlib.Path(FLAGS.output).parent.mkdir(parents=True, exist_ok=True)
        completed.write(FLAGS.output)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    print(
        f"Wrote {FLAGS.output}: {len(completed.removed_labels)} removed images found."
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
