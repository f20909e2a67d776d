"""Features and moments of an image set, extracted by the workers of Apache Beam.

    python -m examples.resnet56                        # writes trained.keras
    python -m examples.beam_extract --trained=outputs/digits/trained.keras
    python -m examples.beam_extract --trained=FILE.keras --dataset=cifar10 \\
        --data_dir=DIR -- --runner=FnApiRunner \\
        --direct_num_workers=2 --direct_running_mode=multi_processing
    python -m examples.beam_extract --features=FILE.npz

What stands after `--` is Beam's: the runner and its options. Writes to --output_dir

    served/1       the trunk as the workers load it, a SavedModel with `features`
    moments.npz    for `load_moments`
    features/      shards, for `load_features` and `examples.retrain_from_shards`

and prints the report of the Gaussians that follow from the moments. digits are cut as
the main job cuts them by default; a TFDS split is read as it is.
"""

import pathlib
import sys
import time

import apache_beam as beam
import keras
from absl import app, flags, logging
from apache_beam.options.pipeline_options import PipelineOptions

import tf_pseudofeat as tfpf
from tf_pseudofeat.engines.beam import (
    CombineClassMoments,
    ExtractFeatures,
    WriteFeatureShards,
    WriteMoments,
)
from tf_pseudofeat.extraction.shard_folder import check_free

from .beam_sources import Digits, FeatureRows, ReadRanges, TfdsImages
from .data import prepared_set

FLAGS = flags.FLAGS


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("trained", None, "The network, a .keras file.")
    flags.DEFINE_string("layer", "features", "Layer of the features.")
    flags.DEFINE_string("dataset", "digits", "'digits' or a TFDS image set by name.")
    flags.DEFINE_string("data_dir", None, "Where TFDS sets are prepared.")
    flags.DEFINE_string("split", "train", "Of a TFDS set.")
    flags.DEFINE_integer("image_size", None, "Resize images to this side.")
    flags.DEFINE_string("features", None, "Features in place of images, an .npz file.")
    flags.DEFINE_enum(
        "covariance_type",
        "full",
        ["full", "diag", "tied", "low_rank"],
        "Of the Gaussians.",
    )
    flags.DEFINE_integer("rank", None, "Directions of a class, of low_rank.")
    flags.DEFINE_integer("batch_size", 256, "Images that the trunk sees at a time.")
    flags.DEFINE_integer("seed", 0, "Of the cut of digits, as in the main job.")
    flags.DEFINE_string("output_dir", "outputs/beam", "A folder.")


def source_of(dataset, data_dir=None, split="train", image_size=None, seed=0):
    """What to read: digits, or a prepared TFDS set."""
    if dataset == "digits":
        return Digits(seed)
    folder = str(prepared_set(dataset, data_dir).data_dir)
    return TfdsImages(folder, split, image_size)


def extract(source, served, kind, folder, options, batch_size=256, rank=None):
    """Runs the pipeline, and waits for it.

    Args:
        source: see `ReadRanges`.
        served: folder of the SavedModel with the endpoint `features`; None where the
            source has features already.
        kind: of moments, see `ClassMoments`.
        folder: for `moments.npz` and the shards.
        options: `PipelineOptions`.
        batch_size: images that the trunk sees at a time.
        rank: of moments of kind "low_rank".

    Returns:
        moments: `ClassMoments`, as they were written.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with beam.Pipeline(options=options) as pipeline:
        batches = pipeline | ReadRanges(source)
        if served is not None:
            batches = batches | ExtractFeatures(served, batch_size)
        moments = batches | beam.CombineGlobally(
            CombineClassMoments(source.num_classes, kind, rank)
        )
        moments | WriteMoments(str(folder / "moments.npz"))
        batches | WriteFeatureShards(folder / "features")
    return tfpf.load_moments(folder / "moments.npz")


def main(argv):
    """Reads the flags; everything else takes arguments."""
    logging.set_verbosity(logging.WARNING)
    program = pathlib.Path(argv[0]).name
    if (FLAGS.trained is None) == (FLAGS.features is None):
        raise app.UsageError("Pass one of --trained and --features.")
    folder, served = pathlib.Path(FLAGS.output_dir), None
    try:
        check_free(folder / "features")
        if FLAGS.features:
            source = FeatureRows(FLAGS.features)
        else:
            source = source_of(
                FLAGS.dataset, FLAGS.data_dir, FLAGS.split, FLAGS.image_size, FLAGS.seed
            )
            model = keras.models.load_model(FLAGS.trained)
            served = tfpf.export_classifier(
                model, folder / "served", layer_name=FLAGS.layer
            )
        began = time.perf_counter()
        moments = extract(
            source,
            served,
            FLAGS.covariance_type,
            folder,
            PipelineOptions(argv[1:]),
            FLAGS.batch_size,
            FLAGS.rank,
        )
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{program}: {error}")
    seconds = time.perf_counter() - began
    gaussian = tfpf.ClassConditionalGaussian(
        moments.num_classes, moments.kind, rank=moments.rank
    )
    gaussian.adapt_moments(moments)
    rows = int(moments.count.sum())
    print(f"\n{gaussian.report}\n")
    print(f"{rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} a second.")
    print(f"Wrote {folder / 'features'} and {folder / 'moments.npz'}.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
