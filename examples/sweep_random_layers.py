"""Whether random layers inside a network make good views for its head.

    python -m examples.sweep_random_layers --data_dir=DIR

Trains a plain CNN that flips, turns and zooms its images itself, as many Keras models
do, and trains its head on at most 500 images of each class: as they are, through those
layers, and through small shifts. Every blend and tau is scored on each trained head, as
`examples/sweep.py` does, and a trained head is a line of --results.
"""

import functools
import pathlib
import sys

import keras
from absl import app, flags
from keras import layers

import tf_pseudofeat as tfpf
from tf_pseudofeat.extraction.views import Shifts

from .compare import Results
from .data import imbalance, load_images
from .devices import leave_gpus_to_keras
from .sweep import (
    Material,
    add_as_trained,
    add_oracle,
    result_entry,
    train_and_score,
)
from .sweep_views import seen_through, views_table
from .trunks import feature_file

__all__ = ["network", "run"]

FLAGS = flags.FLAGS


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("dataset", "cifar10", "'digits' or a TFDS image set by name.")
    flags.DEFINE_string("data_dir", None, "Where TFDS sets are prepared.")
    flags.DEFINE_list("profiles", ["step", "long_tail"], "Kinds of imbalance.")
    flags.DEFINE_integer("epochs", 14, "Of training.", lower_bound=1)
    flags.DEFINE_integer("seed", 20, "Of classes, images, weights and views.")
    flags.DEFINE_string(
        "results", "outputs/sweep/random_layers.jsonl", "Lines go there."
    )


def network(image_shape, num_classes):
    """A CNN, and the random layers in it as a model of their own."""
    random = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.05),
            layers.RandomZoom(0.1),
        ],
        name="random",
    )
    inputs = keras.Input(image_shape)
    x = layers.Rescaling(1 / 127.5, offset=-1)(random(inputs))
    for filters in (32, 64, 128):
        x = layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D()(x)
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    x = layers.Dense(64, activation="relu", name="features")(x)
    outputs = layers.Dense(num_classes, activation="softmax", name="classifier")(x)
    return keras.Model(inputs, outputs), random


def run(images, profile, epochs, seed, results):
    """Trains one network and its heads, and adds what is not in the results yet."""
    cut = imbalance(images, profile, 5, 10 if profile == "step" else 100, seed)
    keras.utils.set_random_seed(seed)
    model, random = network(cut.train_images.shape[1:], cut.num_classes)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    model.fit(
        cut.train_images, cut.train_labels, batch_size=128, epochs=epochs, verbose=2
    )
    trunk = tfpf.split_at(model, "features").trunk
    kind = "step ratio 10" if profile == "step" else "long tail ratio 100"
    place = {
        "experiment": f"{kind}, CNN with random layers",
        "num_minority": 5 if profile == "step" else None,
        "episode": seed,
    }
    file = feature_file(model, cut, place)
    name = f"cnn-{profile}-seed{seed}"
    add_as_trained(file, name, results)
    views = {
        "plain": None,
        "its own random layers": lambda: random,
        "small shifts": lambda: Shifts(cut.train_images[:1]),
    }
    for name_of_view, view in views.items():
        entry = result_entry(file, name, 0, f"500 a class, {name_of_view}, Gaussians")
        if entry not in results:
            seen = functools.partial(seen_through, trunk, cut, view, seed)
            material = Material(500, "1 view", "Gaussians")
            results.add(entry | train_and_score(file, material, 0, seen))
    add_oracle(file, name, 0, results)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    leave_gpus_to_keras()
    results = Results(FLAGS.results)
    try:
        images = load_images(FLAGS.dataset, FLAGS.data_dir)
        for profile in FLAGS.profiles:
            run(images, profile, FLAGS.epochs, FLAGS.seed, results)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    print(f"Wrote {results.path}.\n\n{views_table(results.path)}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
