"""Retrains a head on features that a cluster has extracted; no image is read.

    python -m examples.beam_extract --trained=outputs/digits/trained.keras
    python -m examples.retrain_from_shards --trained=outputs/digits/trained.keras

takes shards and moments from --extracted, balances the classes with pseudo-features,
writes the retrained network to --output and prints how many of the extracted features
of each class it gets right. Those were trained on: test it on images that were not.
"""

import pathlib
import sys

import keras
import numpy as np
from absl import app, flags, logging

import tf_pseudofeat as tfpf
from tf_pseudofeat.core.files import whole_file

FLAGS = flags.FLAGS


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("trained", None, "The network, a .keras file.", required=True)
    flags.DEFINE_string("layer", "features", "Layer of the features.")
    flags.DEFINE_string("extracted", "outputs/beam", "--output_dir of beam_extract.")
    flags.DEFINE_string("output", "outputs/beam/retrained.keras", "The file to write.")
    flags.DEFINE_integer("seed", 0, "Of the draws.")


def retrain(model, layer, folder, seed=0, verbose="auto"):
    """Trains the head of a model in place.

    Args:
        model: Keras model of C classes that ends in a softmax.
        layer: name of the layer of the features.
        folder: with `features/` and `moments.npz`.
        seed: of the draws.
        verbose: 0 for silence.

    Returns:
        result: `HeadFit`.
        labels: of the features `[N]`.
    """
    folder = pathlib.Path(folder)
    extracted = tfpf.load_features(folder / "features")
    moments = tfpf.load_moments(folder / "moments.npz")
    if moments.count.sum() != len(extracted.labels):
        raise ValueError(
            f"{folder} has moments of {moments.count.sum():.0f} rows and features of "
            f"{len(extracted.labels)}; they are of two runs. Extract anew."
        )
    gaussian = tfpf.ClassConditionalGaussian(
        moments.num_classes, moments.kind, rank=moments.rank
    )
    gaussian.adapt_moments(moments)
    head, num_classes = tfpf.split_at(model, layer).head, moments.num_classes
    real = extracted.class_counts(num_classes)
    counts = tfpf.pseudo_counts(extracted.ids, "auto")
    result = tfpf.fit_head(
        tfpf.Task(head, num_classes, "sparse_categorical_crossentropy"),
        tfpf.Material(extracted, real, gaussian, counts),
        scoring=extracted,
        seed=(seed, 1),
        verbose=verbose,
    )
    return result, extracted.labels


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    try:
        model = keras.models.load_model(FLAGS.trained)
        result, labels = retrain(model, FLAGS.layer, FLAGS.extracted, FLAGS.seed)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    print(f"\n{len(labels):,} features; percent of them that are right")
    for name in result.before:
        if np.ndim(result.before[name]) == 0:
            before, after = 100 * result.before[name], 100 * result.after[name]
            print(f"{name:28}{before:8.1f}{after:8.1f}")
    pathlib.Path(FLAGS.output).parent.mkdir(parents=True, exist_ok=True)
    with whole_file(FLAGS.output) as aside:
        model.save(aside)
    print(f"Wrote {FLAGS.output}.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
