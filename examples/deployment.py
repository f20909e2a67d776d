"""What each remedy for rare classes gives on data as imbalanced as those trained on.

    python -m examples.deployment                          # scikit-learn's own sets
    python -m examples.deployment --tables=FOLDER --results=FILE.jsonl
    python -m examples.deployment --tables=FOLDER --dropout --results=FILE.jsonl
    python -m examples.deployment_tables --results=FILE.jsonl

Each stratified re-split has half of a table to train a small network on, a quarter to
validate and a quarter to test, as imbalanced as the table is. Every head starts from
the same trained weights, and is scored as it is, with the class shares of the training
data and equal ones as the target prior, and with thresholds that the validation data
chose. A score is a line of --results as soon as it is known, and a second start goes on
from there.
"""

import dataclasses
import pathlib
import sys
import time
import warnings

import keras
import numpy as np
from absl import app, flags
from imblearn.over_sampling import SMOTE
from sklearn.model_selection import train_test_split

import tf_pseudofeat as tfpf

from .compare import Results
from .deployment_scores import THRESHOLDS, way_scores
from .devices import leave_gpus_to_keras
from .natural_sets import Split, bundled_sets, read_tables, standardized
from .naturally_imbalanced import network_of, train

__all__ = ["HEADS", "Resplit", "resplit", "run_resplit", "trained_network"]

FLAGS = flags.FLAGS

_ALL = ("as it is", "training prior", "uniform prior", *THRESHOLDS)

_NEIGHBORS = 5  # of SMOTE

# Which ways to decide each head is scored in.
HEADS = {
    "as trained": ("as it is", "uniform prior", *THRESHOLDS, "temperature"),
    "class weights": ("as it is", "training prior", *THRESHOLDS),
    "SMOTE": _ALL,
    "real features only": _ALL,
    "paper": _ALL,
    "default": _ALL,
    "target uniform": ("as it is", *THRESHOLDS),
    "target training": ("as it is",),
    "auto for balanced_accuracy": ("as it is",),
    "auto for f1": ("as it is",),
    "guarded by balanced_accuracy": ("as it is",),
    "guarded by f1": ("as it is",),
}
# How `retrain_head` is called for them. SMOTE gets a sampler, see `_retrained`.
_OPTIONS = {
    "SMOTE": {},
    "real features only": {"sampling_strategy": {}, "per_class": None},
    "paper": {"recipe": tfpf.HeadRecipe.paper()},
    "default": {},
    "target uniform": {"target_prior": "uniform"},
    "target training": {"target_prior": "training"},
    "auto for balanced_accuracy": {"recipe": "auto"},
    "auto for f1": {"recipe": "auto"},
    "guarded by balanced_accuracy": {},
    "guarded by f1": {},
}


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_string("tables", None, "Folder of KEEL .dat and headerless .csv.")
    flags.DEFINE_bool("dropout", False, "Whether the networks have Dropout layers.")
    flags.DEFINE_integer("resplits", 5, "Re-splits of each set.", lower_bound=1)
    flags.DEFINE_string("results", "outputs/deployment/results.jsonl", "Lines go here.")


@dataclasses.dataclass(frozen=True, eq=False)
class Resplit:
    """Training, validation and test data of one re-split.

    Attributes:
        split: `Split` of training and test data.
        inputs: validation data `[V, D]`.
        labels: `[V]`.
    """

    split: Split
    inputs: np.ndarray
    labels: np.ndarray


def resplit(name, columns, labels, number):
    """Half of a table to train on, a quarter to validate, a quarter to test.

    Returns:
        data: `Resplit`, standardized by the training data.
    """
    rows = np.arange(labels.size)
    train_rows, rest = _halves(rows, labels, number)
    validation, test = _halves(rest, labels, number)
    inputs = standardized(columns, train_rows)
    split = Split(
        *("table", name, number, inputs[train_rows], labels[train_rows]),
        *(inputs[test], labels[test]),
    )
    return Resplit(split, inputs[validation], labels[validation])


def _halves(rows, labels, number):
    return train_test_split(
        rows, test_size=0.5, stratify=labels[rows], random_state=number
    )


def run_resplit(data, results, dropout=False, heads=tuple(HEADS), **shorter):
    """Trains a network and its heads; scores what is not in the results yet.

    Args:
        data: `Resplit`.
        results: `Results`.
        dropout: whether the network has Dropout layers.
        heads: keys of `HEADS`.
        **shorter: `epochs` of the heads, and `passes` of the networks, see `train`.
    """
    split, passes = data.split, shorter.pop("passes", None)
    place = {
        "kind": f"table{', dropout' if dropout else ''}",
        "experiment": split.name,
        "episode": split.number,
    }
    missing = [head for head in heads if place | {"arm": head} not in results]
    if not missing:
        return
    keras.backend.clear_session()
    network = trained_network(data, dropout, False, passes)
    weights, counts = network.get_weights(), split.counts
    for head in missing:
        began = time.perf_counter()
        network.set_weights(weights)
        model, prior, known = network, counts, {}
        if head == "class weights":
            model = trained_network(data, dropout, True, passes)
            prior = np.ones(counts.size)
        elif head == "SMOTE" and counts.min() <= _NEIGHBORS:
            known = {
                "skipped": f"SMOTE needs {_NEIGHBORS + 1} examples of each class; the "
                f"rarest has {counts.min()}"
            }
        elif head != "as trained":
            report = _retrained(network, data, head, shorter)
            prior, recipe = report.prior, report.recipe
            known = {"kept": report.kept, "blend": recipe.blend, "tau": recipe.tau}
        seconds = round(time.perf_counter() - began, 2)
        if "skipped" not in known:
            validation = data.inputs, data.labels
            scored = [
                way_scores(way, model, prior, split, validation) for way in HEADS[head]
            ]
            known["ways"] = HEADS[head]
            known |= {name: [each[name] for each in scored] for name in scored[0]}
        results.add(
            place
            | {"counts": counts.tolist(), "arm": head, "seconds": seconds}
            | {"test_counts": np.bincount(split.test_labels).tolist(), **known}
        )


def trained_network(data, dropout=False, weighted=False, passes=None):
    """The small network of a `Resplit`, trained; `passes` as for `train`."""
    keras.utils.set_random_seed(data.split.number)
    network = network_of(data.split, dropout)
    train(network, data.split, weighted=weighted, passes=passes)
    return network


def _retrained(network, data, head, shorter):
    """Retrains the head; returns the report. A guard only where the name says so."""
    split, options = data.split, {"monitor": None} | _OPTIONS[head]
    if head == "SMOTE":
        options["sampler"] = SMOTE(k_neighbors=_NEIGHBORS, random_state=split.number)
    if head.startswith(("auto", "guarded")):
        options["validation_data"] = data.inputs, data.labels
        options["monitor"] = head.split()[-1]
    return tfpf.retrain_head(
        *(network, "features", (split.inputs, split.labels)),
        seed=(split.number, 1),
        verbose=0,
        **options,
        **shorter,
    )


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    leave_gpus_to_keras()
    results = Results(FLAGS.results)
    try:
        tables = read_tables(FLAGS.tables) if FLAGS.tables else bundled_sets()
    except (OSError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    for number in range(FLAGS.resplits):
        for name, table in tables.items():
            began = time.perf_counter()
            data = resplit(name, *table, number)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # few examples, rollbacks
                run_resplit(data, results, FLAGS.dropout)
            seconds = time.perf_counter() - began
            print(f"{name} {number}: {seconds:.0f} s", flush=True)
    print(f"Wrote {results.path}. Tables: python -m examples.deployment_tables")


if __name__ == "__main__":
    define_flags()
    app.run(main)
