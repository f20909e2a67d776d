"""Fine-tunes a KerasHub image classifier, retrains its head, and exports both.

    pip install -e ".[keras-hub]"
    python -m examples.fine_tune_keras_hub

The task takes raw images of 8 x 8. Its preprocessor enlarges and scales them in `fit`,
in the retraining and in the exported SavedModel. By default nothing is downloaded: a
small ResNet starts from random weights. `--preset=resnet_18_imagenet`, or any other
image classifier of KerasHub, by name or as a folder, starts from trained ones.
"""

import keras
import keras_hub
import numpy as np
from absl import app, flags, logging

import tf_pseudofeat as tfpf

from .data import imbalance, load_images, training_stream, validation_and_test

FLAGS = flags.FLAGS


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("preset", None, "A KerasHub preset; by default a small ResNet.")
    flags.DEFINE_integer("epochs", 8, "Training epochs.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of classes, images, weights and draws.")
    flags.DEFINE_string("output_dir", "outputs/keras_hub", "Where the SavedModels go.")


def small_classifier(num_classes, side=12):
    """A task made from a configuration: random weights, and no download.

    Args:
        num_classes: C.
        side: images are enlarged to this height and width.

    Returns:
        task: `keras_hub.models.ImageClassifier`.
    """
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(side, side, 3),
    )
    converter = keras_hub.layers.ImageConverter(
        image_size=(side, side), scale=1 / 127.5, offset=-1.0
    )
    return keras_hub.models.ImageClassifier(
        backbone=backbone,
        preprocessor=keras_hub.models.ImageClassifierPreprocessor(converter),
        num_classes=num_classes,
        activation="softmax",
    )


def pretrained_classifier(preset, num_classes):
    """A task with the backbone of a preset and a new head.

    Args:
        preset: name, or folder that `task.save_to_preset` wrote.
        num_classes: C.

    Returns:
        task: `keras_hub.models.ImageClassifier`.
    """
    return keras_hub.models.ImageClassifier.from_preset(
        preset, num_classes=num_classes, activation="softmax"
    )


def fine_tune(task, images, labels, epochs, seed=0):
    """Trains a task on raw images, as anyone would.

    `fit` of KerasHub makes a dataset of arrays and does not shuffle it, so it gets one.

    Args:
        task: `keras_hub.models.ImageClassifier`.
        images: uint8 `[N, height, width, 3]`.
        labels: `[N]`.
        epochs: of the training.
        seed: of the order of the images.
    """
    task.compile(
        keras.optimizers.Adam(1e-3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    stream = training_stream(images, labels, 32, seed=seed)
    task.fit(stream, epochs=epochs, shuffle=False, verbose=2)


def retrain_and_export(task, train, validation, test, class_names, folder, seed=0):
    """Retrains the head, and exports the task before and after.

    Args:
        task: trained `keras_hub.models.ImageClassifier`, whose head is retrained.
        train: `(images, labels)`, the raw images of `fit`.
        validation: `(images, labels)`; the new head stays only for a gain on them.
        test: `(images, labels)`, which choose nothing.
        class_names: list of C.
        folder: of versions; the network as trained comes first.
        seed: of the draws.

    Returns:
        report: `RetrainingReport`, on the validation data.
        scores: balanced accuracy on the test data, before and after.
        versions: the two folders that were written.
    """
    settings = {"class_names": class_names, "encoded_images": True}
    x, y = test
    versions, scores = [tfpf.export_classifier(task, folder, **settings)], []
    scores.append(tfpf.balanced_accuracy(y, task.predict(x, verbose=0).argmax(axis=1)))
    report = tfpf.retrain_head(
        task,
        None,  # the usual layer: the last one before the classifier
        train,
        validation_data=validation,
        class_names=class_names,
        seed=(seed, 1),
        verbose=0,
    )
    scores.append(tfpf.balanced_accuracy(y, task.predict(x, verbose=0).argmax(axis=1)))
    versions.append(tfpf.export_classifier(task, folder, **settings))
    return report, scores, versions


def colored(images):
    """Gray images `[N, height, width, 1]` with three equal channels."""
    return np.repeat(images, 3, axis=-1)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    keras.utils.set_random_seed(FLAGS.seed)
    images = imbalance(load_images("digits"), seed=FLAGS.seed)
    train = colored(images.train_images), images.train_labels
    validation, test = ((colored(x), y) for x, y in validation_and_test(images))
    if FLAGS.preset is None:
        task = small_classifier(images.num_classes)
    else:
        task = pretrained_classifier(FLAGS.preset, images.num_classes)
    fine_tune(task, *train, FLAGS.epochs, FLAGS.seed)
    report, scores, versions = retrain_and_export(
        task, train, validation, test, images.class_names, FLAGS.output_dir, FLAGS.seed
    )
    print(f"\n{report}\n")
    before, after = (100 * score for score in scores)
    print(f"Balanced accuracy on test data, in percent: {before:.1f}, {after:.1f}.")
    print(f"Wrote {' and '.join(versions)}.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
