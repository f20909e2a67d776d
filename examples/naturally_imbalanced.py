"""What to train a head on where the data are no images: tables and texts.

    python -m examples.naturally_imbalanced                      # scikit-learn's own
    python -m examples.naturally_imbalanced --tables=FOLDER --splits=3
    python -m examples.naturally_imbalanced --reviews=review_polarity.tar.gz

Tables are imbalanced as they are, and stay so in the test data. For each stratified
split a small network is trained, without Dropout and with it, and its head is trained
with `fit_head` on every `Material`. How much of the old head is kept (`blend`) and how
much of the prior is taken off the logits (`tau`) need no training: every pair of the
two is scored on the one trained head, as in `examples/sweep.py`. A trained head is a
line of --results as soon as it is there, and a second start goes on from there. Tables:
`examples/naturally_imbalanced_tables.py`.
"""

import dataclasses
import pathlib
import sys
import time
import warnings

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from imblearn.over_sampling import SMOTE
from sklearn.metrics import average_precision_score, roc_auc_score

import tf_pseudofeat as tfpf
from tf_pseudofeat.sampling.counts import minority_classes

from .compare import Results
from .devices import leave_gpus_to_keras
from .natural_sets import (
    WORDS,
    Split,
    bundled_sets,
    read_reviews,
    read_tables,
    review_splits,
    split_of,
)

__all__ = [
    "BLENDS",
    "TAUS",
    "Material",
    "grid_scores",
    "materials",
    "network_of",
    "run_split",
    "train",
]

FLAGS = flags.FLAGS

BLENDS = (0.0, 0.2, 0.3, 0.5, 0.7)
TAUS = (0.0, 0.3, 0.5, 0.65, 0.8, 1.0, 1.25)
NOISES = (0.05, 0.1, 0.2, 0.3)
_DROPOUT = 0.3


@dataclasses.dataclass(frozen=True)
class Material:
    """What one head is trained on.

    Attributes:
        per_class: at most so many examples of each class; None for all.
        view: what the trunk sees of them: "plain", "noise S" (the inputs and Gaussian
            noise of S standard deviations of each), or "dropout" (its Dropout layers
            are active).
        source: of what is added to rare classes: "none", "Gaussians" or "SMOTE".
    """

    per_class: int | None
    view: str
    source: str

    def __str__(self):
        return f"{self.per_class or 'all'} a class, {self.view}, {self.source}"


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("tables", None, "Folder of KEEL .dat and headerless .csv.")
    flags.DEFINE_string("reviews", None, "Archive of Pang and Lee's review polarity.")
    flags.DEFINE_integer("splits", 3, "Splits of each set.", lower_bound=1)
    flags.DEFINE_integer("first_split", 0, "Number of the first one.", lower_bound=0)
    flags.DEFINE_string(
        "results", "outputs/naturally_imbalanced/results.jsonl", "Lines go there."
    )


def network_of(split, dropout):
    """An untrained network with its features at the layer "features"."""
    inputs = keras.Input(split.inputs.shape[1:], dtype=split.inputs.dtype.name)
    if split.kind == "tokens":
        hidden = keras.layers.Embedding(WORDS, 32)(inputs)
        hidden = keras.layers.GlobalAveragePooling1D()(hidden)
    else:
        hidden = keras.layers.Dense(64, activation="relu")(inputs)
    if dropout:
        hidden = keras.layers.Dropout(_DROPOUT)(hidden)
    features = keras.layers.Dense(32, activation="relu", name="features")(hidden)
    outputs = keras.layers.Dense(len(split.counts), activation="softmax")(features)
    return keras.Model(inputs, outputs)


def train(network, split, weighted=False, passes=None):
    """Trains a network with Adam and batches of 32, all epochs as one `fit`.

    Args:
        network: from `network_of`.
        split: `Split`.
        weighted: whether each class weighs the same.
        passes: epochs; by default 100 of up to 1,500 rows, fewer of more, and of
            texts 10 on words and 25 on tokens.
    """
    size = len(split.labels)
    if passes is None:
        few = {"words": 10, "tokens": 25}
        passes = few.get(split.kind, int(np.clip(150_000 // size, 20, 100)))
    data = [split.inputs, split.labels]
    if weighted:
        weights = size / split.counts / len(split.counts)
        data.append(weights[split.labels].astype(np.float32))
    stream = tf.data.Dataset.from_tensor_slices(tuple(data))
    stream = stream.shuffle(size, seed=split.number).batch(32).repeat(passes)
    network.compile(
        keras.optimizers.Adam(1e-3 if split.kind != "tokens" else 3e-3),
        "sparse_categorical_crossentropy",
        steps_per_execution=32,
        jit_compile=False,
    )
    network.fit(stream.prefetch(4), shuffle=False, verbose=0)


def materials(split, dropout, more=False):
    """What heads are trained on.

    Args:
        split: `Split`.
        dropout: whether the network has Dropout layers.
        more: whether to try 100 of each class and all, too.

    Returns:
        materials: list of `Material`.
    """
    views = ["dropout"] if dropout else []
    if split.kind != "tokens":
        noises = NOISES if not dropout or split.kind != "table" else (0.1, 0.3)
        views += [f"noise {scale:g}" for scale in noises]
    few = [view for view in views if view in ("dropout", "noise 0.1")]
    found = [Material(500, view, "Gaussians") for view in ("plain", *views)]
    found += [Material(500, view, "none") for view in ("plain", *few)]
    found += [Material(None, "plain", "Gaussians"), Material(None, "plain", "SMOTE")]
    if more:
        found += [Material(n, v, "Gaussians") for n in (100, None) for v in few]
    return found


def run_split(split, dropout, results, more=False, passes=None):
    """Trains a network and its heads; scores what is not in the results yet.

    Args:
        split: `Split`.
        dropout: whether the network has Dropout layers.
        results: `Results`.
        more: see `materials`.
        passes: see `train`.
    """
    entries = {
        arm: _entry(split, dropout, str(arm))
        for arm in ("as trained", "class weights", *materials(split, dropout, more))
    }
    missing = [arm for arm, entry in entries.items() if entry not in results]
    if not missing:
        return
    keras.backend.clear_session()
    keras.utils.set_random_seed(split.number)
    network = network_of(split, dropout)
    train(network, split, passes=passes)
    file = _Features.of(network, split)
    for arm in missing:
        began = time.perf_counter()
        if arm == "as trained":
            scores = grid_scores(file, *file.head, (1.0,), (*TAUS, 1.5))
        elif arm == "class weights":
            keras.utils.set_random_seed(split.number)
            other = network_of(split, dropout)
            train(other, split, weighted=True, passes=passes)
            file_of_other = _Features.of(other, split)
            scores = grid_scores(file_of_other, *file_of_other.head, (1.0,), (0.0,))
        else:
            scores = _run(file, arm)
        seconds = round(time.perf_counter() - began, 2)
        results.add(entries[arm] | {"seconds": seconds} | scores)


def _entry(split, dropout, arm):
    network = f"{split.kind}{', dropout' if dropout else ''}"
    return {
        "kind": network,
        "experiment": split.name,
        "episode": split.number,
        "counts": split.counts.tolist(),
        "arm": arm,
    }


@dataclasses.dataclass(frozen=True, eq=False)
class _Features:
    """A trained network, and the test data as its head sees them."""

    trunk: keras.Model
    head: list
    split: Split
    test_features: np.ndarray

    @classmethod
    def of(cls, network, split):
        trunk = keras.Model(network.inputs[0], network.get_layer("features").output)
        features = trunk.predict(split.test_inputs, batch_size=1024, verbose=0)
        return cls(trunk, network.layers[-1].get_weights(), split, features)

    def view(self, view, rows, seed):
        """Features of some training rows `[M, D]`."""
        inputs = self.split.inputs[rows]
        if view.startswith("noise"):
            noise = np.random.default_rng([seed, 3]).normal(size=inputs.shape)
            noise *= float(view.split()[1]) * self.split.inputs.std(axis=0)
            inputs = inputs + noise.astype(np.float32)
        chunks = np.array_split(inputs, -(-len(inputs) // 1024))
        seen = [self.trunk(chunk, training=view == "dropout") for chunk in chunks]
        return np.concatenate([keras.ops.convert_to_numpy(array) for array in seen])


def _run(file, material):
    """Scores of the head of one material, or the name of another with the same head."""
    split = file.split
    small = split.counts.max() <= 500
    if material.per_class is None and material.source != "SMOTE" and small:
        return {"same_as": str(dataclasses.replace(material, per_class=500))}
    order = np.random.default_rng([split.number, 2]).permutation(split.labels.size)
    members = [order[split.labels[order] == c] for c in range(split.counts.size)]
    rows = np.sort(np.concatenate([m[: material.per_class] for m in members]))
    features = file.view(material.view, rows, split.number)
    data = tfpf.LabeledFeatures(features, split.labels[rows])
    return grid_scores(file, *_trained_head(file, data, material.source))


def _trained_head(file, data, source):
    """Kernel `[D, C]` and bias `[C]` of the head after `fit_head`, not blended."""
    classes, seed = file.split.counts.size, file.split.number
    head = keras.Sequential(
        [
            keras.Input(data.features.shape[1:]),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )
    head.layers[-1].set_weights(file.head)
    recipe = tfpf.HeadRecipe(blend=0.0, tau=0.0)
    if source == "SMOTE":
        neighbors = min(5, file.split.counts.min() - 1)
        sampler = SMOTE(k_neighbors=neighbors, random_state=seed)
        recipe = tfpf.HeadRecipe(sampler=sampler, blend=0.0, tau=0.0)
    if source == "none":
        material = tfpf.Material(data, data.class_counts(classes))
    else:
        material = tfpf.prepare_material(data, recipe, classes)
    task = tfpf.Task(head, classes, "sparse_categorical_crossentropy")
    tfpf.fit_head(task, material, recipe, seed=(seed, 1), verbose=0)
    return head.layers[-1].get_weights()


def grid_scores(file, kernel, bias, blends=BLENDS, taus=TAUS):
    """Test scores of a linear head for every blend and tau, as `fit_head` means them.

    The blended head has the weights `blend * old + (1 - blend) * new`, and `tau *
    log(prior)` of all training labels is taken off its logits.

    Args:
        file: with the old head, the split and the test features.
        kernel: of the new head `[D, C]`.
        bias: `[C]`.
        blends: shares of the old head.
        taus: how much of the prior to take off.

    Returns:
        grid: {"blends", "taus", and for each score a list for each blend of one number
        for each tau}; average precision and ROC-AUC are of tau 0, a number for each
        blend. Scores are in tenths of a percent, log loss in hundredths.
        Precision, recall and those two are means over the minority classes.
    """
    split, features = file.split, file.test_features.astype(np.float64)
    old = features @ file.head[0] + file.head[1]
    new = features @ kernel + bias
    log_prior = np.log(split.counts / split.counts.sum())
    labels, minority = split.test_labels, minority_classes(split.counts)
    grid, ranks = [], []
    for blend in blends:
        logits = blend * old + (1 - blend) * new
        ranks.append(_rank_scores(_softmax(logits), labels, minority))
        shifted = [logits - tau * log_prior for tau in taus]
        grid.append([_scores(array, labels, minority) for array in shifted])
    found = {"blends": list(blends), "taus": list(taus)}
    for name in grid[0][0]:
        found[name] = [[row[name] for row in rows] for rows in grid]
    return found | {name: [each[name] for each in ranks] for name in ranks[0]}


def _scores(logits, labels, minority):
    classes = logits.shape[1]
    confusion = np.zeros([classes, classes])
    np.add.at(confusion, (labels, logits.argmax(axis=1)), 1)
    hits, said = confusion.diagonal(), confusion.sum(axis=0)
    there = confusion.sum(axis=1)
    recall, precision = hits / there, hits / np.maximum(said, 1)
    likely = _softmax(logits)[np.arange(labels.size), labels]
    log_loss = -np.log(np.maximum(likely, np.finfo(np.float64).eps)).mean()
    scores = {
        "balanced_accuracy": recall.mean(),
        "geometric_mean": recall.prod() ** (1 / classes),
        "macro_f1": (2 * hits / (there + said)).mean(),
        "minority_precision": precision[minority].mean(),
        "minority_recall": recall[minority].mean(),
    }
    scores = {name: round(1e3 * value) for name, value in scores.items()}
    return scores | {"log_loss": round(1e2 * log_loss)}


def _rank_scores(outputs, labels, minority):
    """Of each minority class against the rest."""
    pairs = [(labels == c, outputs[:, c]) for c in minority]
    return {
        "average_precision": round(
            1e3 * np.mean([average_precision_score(*pair) for pair in pairs])
        ),
        "roc_auc": round(1e3 * np.mean([roc_auc_score(*pair) for pair in pairs])),
    }


def _softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    leave_gpus_to_keras()
    results = Results(FLAGS.results)
    try:
        tables = read_tables(FLAGS.tables) if FLAGS.tables else {}
        reviews = read_reviews(FLAGS.reviews) if FLAGS.reviews else None
    except (OSError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    if not tables and reviews is None:
        tables = bundled_sets()
    for number in range(FLAGS.first_split, FLAGS.first_split + FLAGS.splits):
        splits = [split_of(name, *tables[name], number) for name in tables]
        splits += review_splits(*reviews, number) if reviews else []
        for split in splits:
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # rare classes
                for dropout in (False, True) if split.kind == "table" else (True,):
                    run_split(split, dropout, results, more=number == 0)
            seconds = time.perf_counter() - began
            print(f"{split.kind} {split.name} {number}: {seconds:.0f} s", flush=True)
    print(f"Wrote {results.path}. Tables: naturally_imbalanced_tables")


if __name__ == "__main__":
    define_flags()
    app.run(main)
