"""Retrains the head of a model that knows nothing of this library, in three lines.

    python -m examples.attach_to_existing_model

Trains a `keras.applications` backbone under a small classifier on imbalanced digits, as
anyone would, saves it, loads the file again, and only then imports tf_pseudofeat. The
backbone has random weights, so nothing is downloaded; `weights="imagenet"` would.
"""

import pathlib

import keras
import tensorflow as tf
from absl import app, flags, logging

from tf_pseudofeat.core.files import whole_file

from .data import imbalance, load_images, training_stream

FLAGS = flags.FLAGS


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_integer("epochs", 30, "Training epochs.")
    flags.DEFINE_integer("num_minority", 5, "Classes cut to a tenth.")
    flags.DEFINE_integer("seed", 0, "Of classes, images, weights and draws.")
    flags.DEFINE_string("output_dir", "outputs/attach", "Where the models go.")


def somebody_elses_model(images, epochs, seed):
    """A trained MobileNet under a small classifier; knows nothing of pseudo-features.

    Args:
        images: `ImbalancedImages`.
        epochs: of training.
        seed: of the order of the images.

    Returns:
        model: compiled, trained Keras model.
    """
    image = keras.Input(images.train_images.shape[1:], name="image")
    x = keras.layers.Resizing(32, 32)(image)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
    x = keras.layers.Concatenate()([x, x, x])  # from grey to red, green and blue
    backbone = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.5, include_top=False, pooling="avg", weights=None
    )
    x = backbone(x)
    x = keras.layers.Dense(64, activation="relu", name="hidden")(x)
    x = keras.layers.Dense(images.num_classes, activation="softmax")(x)
    model = keras.Model(image, x)
    model.compile(
        keras.optimizers.Adam(3e-3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    stream = training_stream(images.train_images, images.train_labels, 16, seed=seed)
    model.fit(stream, epochs=epochs, shuffle=False, verbose=2)
    return model


def retrain(path, train_ds, test_ds, seed):
    """The three lines.

    Args:
        path: a `.keras` file.
        train_ds: batches `(images, labels)`.
        test_ds: batches to score on; nothing is chosen by them.
        seed: of the draws.

    Returns:
        model: the retrained model.
        report: `RetrainingReport`.
    """
    import tf_pseudofeat as tfpf

    model = keras.models.load_model(path)
    report = tfpf.retrain_head(
        model, "hidden", train_ds, validation_data=test_ds, monitor=None, seed=(seed, 1)
    )
    return model, report


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    keras.utils.set_random_seed(FLAGS.seed)
    output_dir = pathlib.Path(FLAGS.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    images = imbalance(
        load_images("digits"), num_minority=FLAGS.num_minority, seed=FLAGS.seed
    )
    train_ds = tf.data.Dataset.from_tensor_slices(
        (images.train_images, images.train_labels)
    ).batch(256)
    test_ds = tf.data.Dataset.from_tensor_slices(
        (images.test_images, images.test_labels)
    ).batch(256)

    path = output_dir / "trained.keras"
    with whole_file(path) as aside:
        somebody_elses_model(images, FLAGS.epochs, FLAGS.seed).save(aside)
    model, report = retrain(path, train_ds, test_ds, FLAGS.seed)
    print(f"\n{report}\n")
    with whole_file(output_dir / "retrained.keras") as aside:
        model.save(aside)
    print(f"Wrote {path} and {output_dir / 'retrained.keras'}.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
