"""The experiment of Konno and Iwazume (2018), section 3, with the rivals of today.

    python -m examples.compare                              # digits, 5 minority classes
    python -m examples.compare --num_minority=1,3,5,7,9 --episodes=5
    python -m examples.compare --dataset=cifar10 --data_dir=DIR
    python -m examples.compare --classes=8,9 --num_minority=1     # two classes
    python -m examples.compare --features=FILE.npz --head_seeds=5

In each episode some classes are picked at random and cut to a tenth, a residual network
is trained, and every arm retrains its head on the same features. Each result is a line
of --results as soon as it is known, and a second start goes on where the first one was;
networks and features are kept beside it. Tables and figures: `examples/tables.py`.

What wants a GPU and what does not can be done apart: with `--arms=` networks are
trained and their features kept, OUTPUT_DIR/trunks/*/features.npz, and with these as
--features the arms run anywhere, under the same names. With `--pack=DIR` nothing is
trained here: `examples/train_on_jax.py` does it, on a machine without TensorFlow.
"""

import dataclasses
import json
import pathlib
import sys
import time

import keras
import numpy as np
from absl import app, flags
from sklearn.decomposition import PCA

import tf_pseudofeat as tfpf

from .arms import ARMS, run_arm
from .data import load_images
from .devices import leave_gpus_to_keras
from .packed import pack
from .trunks import FeatureFile, Recipe, network_features

FLAGS = flags.FLAGS

_PICTURED = 200  # points of each kind in a picture of feature space


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_list("features", [], "Feature files to run on; nothing is trained.")
    flags.DEFINE_string("dataset", "digits", "'digits' or a TFDS image set by name.")
    flags.DEFINE_string("data_dir", None, "Where TFDS sets are prepared.")
    flags.DEFINE_bool("download", False, "Let TFDS fetch a set that is not prepared.")
    flags.DEFINE_list("classes", [], "The only classes to use, by name.")
    flags.DEFINE_enum("profile", "step", ["step", "long_tail"], "Kind of imbalance.")
    flags.DEFINE_list("num_minority", ["5"], "Numbers of classes to cut.")
    flags.DEFINE_integer("ratio", 10, "Largest class over smallest.", lower_bound=1)
    flags.DEFINE_integer("episodes", 1, "Repetitions, each with other classes.")
    flags.DEFINE_integer("first_episode", 0, "Its number, and its seed.")
    flags.DEFINE_integer("head_seeds", 1, "Heads for each network.", lower_bound=1)
    flags.DEFINE_integer("depth", 20, "Layers of the residual network, 6n + 2.")
    flags.DEFINE_integer("epochs", None, "Of training; 40 for digits, else 12.")
    flags.DEFINE_integer("batch_size", 64, "Training batch.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 1e-3, "Of Adam, with cosine decay to zero.")
    flags.DEFINE_bool("augment", False, "Shifts, and flips where the set allows it.")
    flags.DEFINE_bool("mixed_precision", False, "Train in mixed_float16.")
    flags.DEFINE_integer("views", 0, "Passes to keep for sweep.py.", lower_bound=0)
    flags.DEFINE_bool("scratch", False, "Train on the under-sampled images, too.")
    flags.DEFINE_list("arms", list(ARMS), "What to compare; --arms= for nothing yet.")
    flags.DEFINE_string("pack", None, "Folder for `train_on_jax`; trains nothing.")
    flags.DEFINE_string("output_dir", "outputs/compare", "For networks and features.")
    flags.DEFINE_string("results", None, "By default OUTPUT_DIR/results.jsonl.")


class Results:
    """A file of results, a line each, that is added to and never rewritten.

    Args:
        path: of the file; need not exist.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._known = set()
        text = self.path.read_text() if self.path.exists() else ""
        for line in text.splitlines():
            try:
                self._known.add(_key(json.loads(line)))
            except (ValueError, KeyError):
                continue  # torn when a run was killed
        if text and not text.endswith("\n"):
            with self.path.open("a") as file:
                file.write("\n")

    def __contains__(self, entry):
        return _key(entry) in self._known

    def add(self, entry):
        """Writes one entry at once."""
        with self.path.open("a") as file:
            file.write(json.dumps(_plain(entry)) + "\n")
        self._known.add(_key(entry))


def run_arms(file, seeds, arms, results):
    """Runs what is not in the results yet.

    Args:
        file: `FeatureFile`.
        seeds: head seeds.
        arms: keys of `ARMS`.
        results: `Results`.
    """
    for seed in seeds:
        for arm in arms:
            entry = {"kind": "result", **file.place, "seed": seed, "arm": arm}
            if entry in results:
                continue
            began = time.perf_counter()
            scores = run_arm(arm, file, seed)
            seconds = time.perf_counter() - began
            if scores is None:
                print(f"  {arm}: the feature file has not what it needs")
                continue
            minority = [int(class_id) for class_id in file.minority]
            results.add(
                {
                    **entry,
                    **scores,
                    "minority": minority,
                    "seconds": round(seconds, 3),
                }
            )
            print(
                f"  seed {seed} {arm:<22} accuracy {100 * scores['accuracy']:.1f}  "
                f"geometric mean {100 * scores['geometric_mean']:.1f}  "
                f"({seconds:.1f} s)",
                flush=True,
            )
    picture = {"kind": "picture", **file.place}
    if arms and picture not in results and len(file.minority):
        results.add({**picture, **picture_of(file)})


def picture_of(file, seed=0):
    """Figure 2 of the paper: one minority class in the plane of its test features.

    Returns:
        picture: {"class_id", "real", "pseudo", "test"}, points `[M, 2]` as lists.
    """
    class_id = int(file.minority[0])
    gaussian = tfpf.ClassConditionalGaussian(file.num_classes)
    gaussian.adapt(file.features, file.labels)
    rng = np.random.default_rng(seed)
    real = file.features[file.labels == class_id]
    test = file.test_features[file.test_labels == class_id]
    points = {
        "real": rng.permutation(real)[:_PICTURED],
        "pseudo": gaussian.sample([class_id] * _PICTURED, (seed, 2)).numpy(),
        "test": rng.permutation(test)[:_PICTURED],
    }
    plane = PCA(2, random_state=0).fit(np.concatenate([real, test]))
    shown = {k: plane.transform(v).round(3).tolist() for k, v in points.items()}
    return {"class_id": class_id, **shown}


def recipes(settings, minorities, episodes):
    """One `Recipe` for each (number of minority classes, episode)."""
    for episode in episodes:
        for num_minority in minorities:
            yield Recipe(num_minority=num_minority, seed=episode, **settings)


def _key(entry):
    names = ("kind", "experiment", "num_minority", "episode", "seed", "arm")
    return tuple(entry.get(name) for name in names)


def _plain(value):
    """NaN is null in JSON."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value


def _files(planned, images, folder, views, scratch):
    """Yields the feature file of each network, and trains what is not there."""
    for recipe in planned:
        yield network_features(recipe, images, folder, views, scratch)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    unknown = sorted(set(FLAGS.arms) - set(ARMS))
    if unknown:
        sys.exit(f"--arms: {unknown} are none of {list(ARMS)}")
    leave_gpus_to_keras()
    keras.utils.set_random_seed(0)
    results = Results(FLAGS.results or f"{FLAGS.output_dir}/results.jsonl")
    try:
        if FLAGS.features:
            files = [FeatureFile.read(path) for path in FLAGS.features]
        else:
            digits = FLAGS.dataset == "digits"
            flips = "shift" if digits else "flip_and_shift"
            settings = {
                "dataset": FLAGS.dataset,
                "classes": tuple(FLAGS.classes),
                "profile": FLAGS.profile,
                "ratio": FLAGS.ratio,
                "depth": FLAGS.depth,
                "epochs": FLAGS.epochs or (40 if digits else 12),
                "batch_size": FLAGS.batch_size,
                "learning_rate": FLAGS.learning_rate,
                "augment": flips if FLAGS.augment else None,
                "mixed_precision": FLAGS.mixed_precision,
            }
            minorities = [int(number) for number in FLAGS.num_minority]
            first = FLAGS.first_episode
            episodes = range(first, first + FLAGS.episodes)
            planned = list(recipes(settings, minorities, episodes))
            images = load_images(FLAGS.dataset, FLAGS.data_dir, FLAGS.download)
            if FLAGS.pack:
                if FLAGS.scratch:
                    small = {"under_sampled": True}
                    planned += [dataclasses.replace(r, **small) for r in planned]
                pack(planned, images, FLAGS.pack)
                print(f"Packed {len(planned)} networks in {FLAGS.pack}.")
                return
            trunks = pathlib.Path(FLAGS.output_dir) / "trunks"
            files = _files(planned, images, trunks, FLAGS.views, FLAGS.scratch)
        for file in files:
            print(f"{file.place['experiment']}: minority {file.minority.tolist()}")
            run_arms(file, range(FLAGS.head_seeds), FLAGS.arms, results)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    if FLAGS.arms:
        print(f"Wrote {results.path}. Tables: python -m examples.tables --results=FILE")
    else:
        print(f"Networks and features are in {FLAGS.output_dir}/trunks.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
