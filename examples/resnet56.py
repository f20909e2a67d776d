"""Trains ResNet-56 on imbalanced images, then retrains its head with pseudo-features.

    python -m examples.resnet56                           # digits: minutes on a laptop
    python -m examples.resnet56 --dataset=cifar10 --data_dir=DIR --epochs=100

Prints the scores on a balanced test set before and after, and how fast it went, and
writes the trained model, `report.json`, `report.png` and two SavedModels to
--output_dir: the network as trained, and as the next version the retrained one. The
test set is scored and nothing is chosen by it.

A job that was killed or interrupted goes on with the same command after its last whole
epoch, and gives the same numbers as one that was not: weights, optimizer, learning rate
and the order of the images go on as they were. It makes its results in a folder of its
own, `unfinished-*`, which becomes `finished-*` when all are there; only then do they
move to where old ones may be, each file and each version whole.
"""

import hashlib
import json
import os
import pathlib
import shutil
import sys

import keras
import tensorflow as tf
from absl import app, flags, logging

import tf_pseudofeat as tfpf

from .data import imbalance, load_images, training_stream
from .devices import leave_gpus_to_keras
from .pace import EpochTimes, Pace, input_rate, matmul_rate, training_flops
from .resnet import compiled_resnet
from .resume import EpochBackup, restore, skip_epochs

FLAGS = flags.FLAGS


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("dataset", "digits", "'digits' or a TFDS image set by name.")
    flags.DEFINE_string("data_dir", None, "Where TFDS sets are prepared.")
    flags.DEFINE_bool("download", False, "Let TFDS fetch a set that is not prepared.")
    flags.DEFINE_integer("image_size", None, "Resize images to this side.")
    flags.DEFINE_enum("profile", "step", ["step", "long_tail"], "Kind of imbalance.")
    flags.DEFINE_integer("num_minority", 5, "Classes to cut, for --profile=step.")
    flags.DEFINE_integer("imbalance_ratio", 10, "Largest class over smallest.")
    flags.DEFINE_integer("depth", 56, "Layers of the residual network, 6n + 2.")
    flags.DEFINE_string("layer", "features", "Layer to split at.")
    flags.DEFINE_integer("epochs", None, "Training epochs; 40 for digits, else 100.")
    flags.DEFINE_integer("batch_size", 128, "Training batch.")
    flags.DEFINE_float("learning_rate", 2e-3, "Of Adam, with cosine decay to zero.")
    flags.DEFINE_bool("augment", False, "Shifts, and flips where the set allows it.")
    flags.DEFINE_bool("mixed_precision", False, "Train in mixed_float16.")
    flags.DEFINE_enum("strategy", None, ["mirrored"], "Train on all GPUs of a machine.")
    flags.DEFINE_string("trained", None, "Load this .keras model, do not train.")
    flags.DEFINE_integer(
        "multiply_minority", None, "Pseudo-features: to this multiple."
    )
    flags.DEFINE_integer("seed", 0, "Of classes, images, weights and draws.")
    flags.DEFINE_string("output_dir", None, "By default outputs/DATASET.")
    flags.register_validator(
        "strategy",
        lambda strategy: strategy is None or keras.backend.backend() == "tensorflow",
        f"--strategy is for models on TensorFlow; KERAS_BACKEND is "
        f"{keras.backend.backend()!r} here. Leave one of the two out.",
    )
    for name in ("imbalance_ratio", "batch_size"):
        flags.register_validator(name, lambda n: n >= 1, f"--{name} is at least 1.")


def train(model, stream, epochs, folder, retrainer):
    """Trains the model, goes on where `folder` has an epoch, and retrains its head.

    Returns:
        trained: path of the model as it was trained.
        times: `EpochTimes`, of the epochs that were not done before.
    """
    done = restore(model, folder)
    skip_epochs(stream, done)
    times = EpochTimes()
    model.fit(
        stream,
        initial_epoch=done,
        epochs=epochs,
        shuffle=False,  # the stream is shuffled
        callbacks=[times, EpochBackup(folder), retrainer],
    )
    return folder / f"epoch-{epochs}.keras", times


def pace_of(times, model, images, stream, report):
    """What training and retraining took; None where a former start did all epochs."""
    if not times.seconds:
        return None
    epoch_seconds, epochs_timed = times.typical()
    return Pace(
        images=len(images.train_labels),
        epoch_seconds=epoch_seconds,
        epochs_timed=epochs_timed,
        flops_per_image=training_flops(model),
        matmul_flops=matmul_rate(model.compute_dtype),
        dtype=model.compute_dtype,
        input_rate=input_rate(stream),
        retraining_seconds=sum(report.seconds.values()),
    )


def write_results(report, pace, settings, trained, model, class_names, folder):
    """Writes `report.json`, `report.png` and two SavedModels.

    A server of the network as trained and the retrained one can show what has changed,
    or go back. Where Keras runs on torch, which has no SavedModels, it is
    `retrained.keras` in their place.
    """
    shutil.rmtree(folder, ignore_errors=True)  # what another start left of it
    folder.mkdir(parents=True)
    results = {"settings": settings, "report": report.to_dict()}
    if pace is not None:
        results["pace"] = pace.to_dict()
    (folder / "report.json").write_text(json.dumps(results, indent=1) + "\n")
    report.plot().savefig(folder / "report.png", dpi=120)
    networks = {"as trained": keras.models.load_model(trained), "retrained": model}
    try:
        for name, network in networks.items():
            tfpf.export_classifier(
                network,
                folder / name,
                class_names=class_names,
                encoded_images=True,
                layer_name=report.layer_name,
            )
    except NotImplementedError as error:  # and nothing was written
        model.save(folder / "retrained.keras")
        print(f"Nothing to serve yet. {error}")


def name_of_job(settings):
    """Eight letters that no other settings have: what goes on is the same command."""
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def finish(unfinished, finished, output_dir):
    """Moves the results to where they are looked for, and clears up.

    What was moved is no longer there to be moved again: after a kill, the rest is.
    """
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in ("as trained", "retrained"):
        if (finished / name / "1").exists():
            (output_dir / "served").mkdir(exist_ok=True)
            version = tfpf.next_version(output_dir / "served")
            (finished / name / "1").rename(version)
            print(f"Wrote {version}, the network {name}.")
    for name in ("trained.keras", "retrained.keras", "report.png", "report.json"):
        if (finished / name).exists():
            os.replace(finished / name, output_dir / name)
            print(f"Wrote {output_dir / name}.")
    print("Done.", flush=True)
    shutil.rmtree(finished)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    settings = {
        flag.name: flag.value
        for flag in FLAGS.get_key_flags_for_module(argv[0])
        if flag.name not in ("data_dir", "download", "output_dir")  # change no number
    }
    settings["backend"] = keras.backend.backend()
    logging.set_verbosity(logging.WARNING)
    leave_gpus_to_keras()
    keras.utils.set_random_seed(FLAGS.seed)
    keras.mixed_precision.set_dtype_policy(
        "mixed_float16" if FLAGS.mixed_precision else "float32"
    )
    try:
        images = load_images(
            FLAGS.dataset, FLAGS.data_dir, FLAGS.download, FLAGS.image_size
        )
        images = imbalance(
            images, FLAGS.profile, FLAGS.num_minority, FLAGS.imbalance_ratio, FLAGS.seed
        )
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    output_dir = pathlib.Path(FLAGS.output_dir or f"outputs/{FLAGS.dataset}")
    unfinished = output_dir / f"unfinished-{name_of_job(settings)}"
    finished = output_dir / f"finished-{name_of_job(settings)}"
    if finished.exists():
        return finish(unfinished, finished, output_dir)
    counts = tfpf.class_counts(images.train_labels, images.num_classes).tolist()
    print(f"{FLAGS.dataset}: training images per class {counts}")
    devices = [device.name for device in tf.config.list_logical_devices()]
    print(f"Keras on {keras.backend.backend()}; devices of TensorFlow: {devices}")

    training = (images.train_images, images.train_labels)
    retraining = {
        # Scored on the test set, so nothing may be chosen by the score: no monitor.
        "validation_data": (images.test_images, images.test_labels),
        "monitor": None,
        "recipe": tfpf.HeadRecipe(
            sampling_strategy=tfpf.multiply_minority(FLAGS.multiply_minority)
            if FLAGS.multiply_minority
            else "auto"
        ),
        "seed": (FLAGS.seed, 1),
    }
    if FLAGS.trained:
        trained, model = FLAGS.trained, keras.models.load_model(FLAGS.trained)
        report = tfpf.retrain_head(model, FLAGS.layer, training, **retraining)
        pace = None
    else:
        epochs = FLAGS.epochs or (40 if FLAGS.dataset == "digits" else 100)
        flips = "shift" if FLAGS.dataset == "digits" else "flip_and_shift"
        steps = epochs * -(-len(images.train_labels) // FLAGS.batch_size)
        strategy = tf.distribute.MirroredStrategy() if FLAGS.strategy else None
        with (strategy or tf.distribute.get_strategy()).scope():
            model = compiled_resnet(FLAGS.depth, images, FLAGS.learning_rate, steps)
        stream = training_stream(
            *training, FLAGS.batch_size, flips if FLAGS.augment else None, FLAGS.seed
        )
        retrainer = tfpf.PseudoFeatureHeadRetrainer(FLAGS.layer, training, **retraining)
        trained, times = train(model, stream, epochs, unfinished, retrainer)
        report = retrainer.report
        pace = pace_of(times, model, images, stream, report)

    print(f"\n{report}\n")
    if pace is not None:
        print(f"{pace}\n")
    results = unfinished / "results"
    write_results(report, pace, settings, trained, model, images.class_names, results)
    if not FLAGS.trained:
        shutil.copyfile(trained, results / "trained.keras")
    results.rename(finished)  # From here on all is there.
    finish(unfinished, finished, output_dir)


if __name__ == "__main__":
    define_flags()
    try:
        app.run(main)
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on where it was.")
