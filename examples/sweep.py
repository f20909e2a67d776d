"""What to train a head on: how much of the data, through which views, drawn from what.

    python -m examples.sweep --features=A/features.npz,B/features.npz --head_seeds=2

On each feature file of `examples/compare.py` a head is trained for every `Material`,
with `fit_head`. How much of the old head is kept (`blend`) and how much of the prior is
taken off the logits (`tau`) need no training: every pair of the two is scored on the
one trained head. A trained head is a line of --results as soon as it is there, and a
second start goes on from there. Tables: `examples/sweep_tables.py`.
"""

import dataclasses
import itertools
import pathlib
import sys
import time

import numpy as np
from absl import app, flags

import tf_pseudofeat as tfpf

from .compare import Results
from .devices import leave_gpus_to_keras
from .trunks import FeatureFile

__all__ = [
    "BLENDS",
    "MATERIALS",
    "TAUS",
    "Material",
    "add_as_trained",
    "add_oracle",
    "chosen_rows",
    "grid_recalls",
    "grid_scores",
    "network_name",
    "result_entry",
    "sweep",
    "train",
    "train_and_score",
]

FLAGS = flags.FLAGS

BLENDS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.7)
TAUS = (0.0, 0.3, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5)
_PASSES = {
    "plain": (True, 0),
    "1 view": (False, 1),
    "2 views": (False, 2),
    "plain and 2 views": (True, 2),
}
# Examples that the covariance of all classes is worth beside those of one class.
_POOLED_EXAMPLES = 20


@dataclasses.dataclass(frozen=True)
class Material:
    """What one head is trained on.

    Attributes:
        per_class: at most so many examples of each class; None for all.
        passes: how the trunk sees them: "plain", "1 view", "2 views", which leave the
            images as they are out, or "plain and 2 views".
        source: of what is added to rare classes: "none", "over-sampling" (copies),
            "Gaussians", or "Gaussians toward the pooled", whose covariances lean
            towards that of all classes, the more the fewer examples there are.
        target: what each class grows to: "balance" (the largest class), "1,000 of
            each" feature, or "twice" (minority classes to twice the largest).
    """

    per_class: int | None
    passes: str
    source: str
    target: str = "balance"

    def __str__(self):
        target = "" if self.target == "balance" else f" to {self.target}"
        size = self.per_class or "all"
        return f"{size} a class, {self.passes}, {self.source}{target}"


def _materials():
    sizes = (50, 100, 250, 500, 1000, None)
    sources = ("none", "over-sampling", "Gaussians")
    for size, passes, source in itertools.product(
        sizes, ("2 views", "1 view"), sources
    ):
        yield Material(size, passes, source)
    for size in (None, 250, 1000):  # None is the default of `retrain_head`
        yield Material(size, "plain", "none")
        yield Material(size, "plain", "Gaussians")
    for size in (250, 1000):
        yield Material(size, "2 views", "Gaussians", "twice")
    for source in ("none", "Gaussians"):
        yield Material(None, "plain and 2 views", source)
    for size in (50, 100, 250):
        for source in (*sources[1:], "Gaussians toward the pooled"):
            yield Material(size, "2 views", source, "1,000 of each")
    for size in (100, 250, 1000):
        yield Material(size, "2 views", "Gaussians toward the pooled")


MATERIALS = tuple(_materials())


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_list("features", None, "Feature files of examples/compare.py.")
    flags.DEFINE_integer("head_seeds", 1, "Heads for each material.", lower_bound=1)
    flags.DEFINE_string("results", "outputs/sweep/results.jsonl", "Lines go there.")
    flags.mark_flag_as_required("features")


def sweep(file, network, seeds, results, materials=MATERIALS):
    """Trains and scores what is not in the results yet.

    Args:
        file: `FeatureFile` with views.
        network: its name in the results.
        seeds: head seeds; each also picks other examples for `per_class`.
        results: `Results`.
        materials: list of `Material`.
    """
    seeds = list(seeds)
    add_as_trained(file, network, results)
    for seed in seeds:
        for material in materials:
            entry = result_entry(file, network, seed, str(material))
            if entry not in results:
                entry |= dataclasses.asdict(material)
                results.add(entry | train_and_score(file, material, seed))
        add_oracle(file, network, seed, results)


def result_entry(file, network, seed, arm):
    """What tells a line of the results from all others."""
    place = {**file.place, "network": network}
    return {"kind": "head", **place, "seed": seed, "arm": arm}


def add_as_trained(file, network, results):
    """The head as it was, and logit adjustment of it."""
    entry = result_entry(file, network, 0, "as trained")
    if entry not in results:
        scores = grid_scores(file, file.kernel, file.bias, (1.0,), (*TAUS, 2.0))
        results.add(entry | scores)


def add_oracle(file, network, seed, results):
    """A head trained on all images, those that were cut away included."""
    entry = result_entry(file, network, seed, "oracle")
    if file.removed_features is None or entry in results:
        return
    features = np.concatenate([file.features, file.removed_features])
    labels = np.concatenate([file.labels, file.removed_labels])
    head = _trained_head(file, features, labels, seed)
    results.add(entry | grid_scores(file, *head, blends=(0.0,), taus=(0.0,)))


def train_and_score(file, material, seed, seen=None):
    """Scores of the head of one material, or the name of another with the same head.

    Args: see `train`.
    """
    head, line = train(file, material, seed, seen)
    return line if head is None else {**line, **grid_scores(file, *head)}


def train(file, material, seed, seen=None):
    """Trains the head of one material.

    Args:
        file: `FeatureFile`.
        material: `Material`.
        seed: of the head, and of which examples it sees.
        seen: function from rows `[M]` of the training images to their features
            `[k, M, D]` in k passes; by default those in the file.

    Returns:
        head: kernel `[D, C]` and bias `[C]`, not blended; None where that of another
            material is the same.
        line: what the results say of it.
    """
    began = time.perf_counter()
    features, labels, forward_passes = _subset(file, material, seed, seen)
    counts = _counts(labels, material, file.minority)
    if not counts and material.source != "none" and seen is None:
        same = dataclasses.replace(material, source="none", target="balance")
        return None, {"same_as": str(same)}
    gaussian = None
    if material.source == "over-sampling":
        features, labels = _with_copies(features, labels, counts, seed)
        counts = {}
    elif counts:
        gaussian = _gaussian(features, labels, material, file.num_classes)
    head = _trained_head(file, features, labels, seed, gaussian, counts)
    line = {
        "forward_passes": forward_passes,
        "drawn": sum(counts.values()),
        "seconds": round(time.perf_counter() - began, 2),
    }
    return head, line


def chosen_rows(file, per_class, seed):
    """Rows of at most so many training images of each class; fewer are among more."""
    rows = np.arange(len(file.labels))
    if not per_class:
        return rows
    order = np.random.default_rng([seed, 2]).permutation(rows)
    members = [order[file.labels[order] == c] for c in range(file.num_classes)]
    return np.sort(np.concatenate([m[:per_class] for m in members]))


def _subset(file, material, seed, seen=None):
    """Features and labels of at most `per_class` examples, and the trunk's passes."""
    rows = chosen_rows(file, material.per_class, seed)
    if seen is None:
        plain, views = _PASSES[material.passes]
        passes = ([file.features] if plain else []) + list(file.view_features[:views])
        passes = [array[rows] for array in passes]
    else:
        passes = seen(rows)
    features = np.concatenate(list(passes))
    return features, np.tile(file.labels[rows], len(passes)), len(features)


def _counts(labels, material, minority):
    """{class: how many to add}."""
    counts = np.bincount(labels)
    goals = np.full(counts.size, counts.max())
    if material.source == "none":
        return {}
    if material.target == "1,000 of each":
        goals[:] = 1000
    elif material.target == "twice":
        goals[minority] *= 2
    return {c: int(n) for c, n in enumerate(goals - counts) if n > 0}


def _with_copies(features, labels, counts, seed):
    """Random over-sampling."""
    rng = np.random.default_rng([seed, 3])
    copies = [rng.choice(np.flatnonzero(labels == c), n) for c, n in counts.items()]
    rows = np.concatenate([np.arange(len(labels)), *copies])
    return features[rows], labels[rows]


def _gaussian(features, labels, material, num_classes):
    """The Gaussians of the package's default, or such as lean towards the pooled one.

    The latter have no other shrinkage. With n examples of a class, whatever the number
    of views, and k = 20,

        covariance = (1 - a) covariance_of_class + a covariance_pooled, a = k / (k + n)
    """
    if material.source == "Gaussians":
        gaussian = tfpf.ClassConditionalGaussian(num_classes)
        gaussian.adapt(features, labels)
        return gaussian
    moments = tfpf.moments_of(features, labels, num_classes, "full")
    examples = moments.count / sum(_PASSES[material.passes])
    share = (_POOLED_EXAMPLES / (_POOLED_EXAMPLES + examples))[:, None, None]
    pooled = moments.scatter.sum(axis=0) / moments.count.sum()  # [D, D]
    pooled = pooled * moments.count[:, None, None]
    scatter = (1 - share) * moments.scatter + share * pooled  # [C, D, D]
    gaussian = tfpf.ClassConditionalGaussian(num_classes, shrinkage=0.0)
    gaussian.adapt_moments(dataclasses.replace(moments, scatter=scatter))
    return gaussian


def _trained_head(file, features, labels, seed, gaussian=None, counts=None):
    """Kernel `[D, C]` and bias `[C]` of the head after `fit_head`, not blended."""
    head = file.head()
    task = tfpf.Task(head, file.num_classes, "sparse_categorical_crossentropy")
    data = tfpf.LabeledFeatures(features, labels)
    real = data.class_counts(file.num_classes)
    material = tfpf.Material(data, real, gaussian, counts)
    recipe = tfpf.HeadRecipe(blend=0.0, tau=0.0)
    tfpf.fit_head(task, material, recipe, seed=(seed, 1), verbose=0)
    return head.layers[-1].get_weights()


def grid_recalls(file, kernel, bias, blends=BLENDS, taus=TAUS):
    """Recall of each class of the test images, for every blend and tau.

    The blended head has the weights `blend * old + (1 - blend) * new`, and `tau *
    log(prior)` of all training labels is taken off its logits, as `fit_head` does.

    Args:
        file: `FeatureFile`: the old head, the prior and the test features.
        kernel: of the new head `[D, C]`.
        bias: `[C]`.
        blends: shares of the old head.
        taus: how much of the prior to take off.

    Returns:
        recalls: `[blends, taus, C]`.
    """
    features = file.test_features.astype(np.float64)
    old, new = features @ file.kernel + file.bias, features @ kernel + bias
    log_prior = np.log(np.bincount(file.labels) / len(file.labels))
    totals = np.bincount(file.test_labels, minlength=file.num_classes)
    recalls = np.empty([len(blends), len(taus), file.num_classes])
    for i, blend in enumerate(blends):
        logits = blend * old + (1 - blend) * new
        for j, tau in enumerate(taus):
            predicted = np.argmax(logits - tau * log_prior, axis=-1)
            hits = file.test_labels[predicted == file.test_labels]
            recalls[i, j] = np.bincount(hits, minlength=file.num_classes) / totals
    return recalls


def grid_scores(file, kernel, bias, blends=BLENDS, taus=TAUS):
    """Test scores of a linear head for every blend and tau, see `grid_recalls`.

    Returns:
        grid: {"blends", "taus", and for each score a list for each blend of one number
        for each tau}; scores in hundredths of a percent.
    """
    recalls = grid_recalls(file, kernel, bias, blends, taus)
    totals = np.bincount(file.test_labels, minlength=file.num_classes)
    scores = {
        "accuracy": recalls @ totals / totals.sum(),
        "geometric_mean": recalls.prod(axis=-1) ** (1 / file.num_classes),
        "mean_minority_accuracy": recalls[..., file.minority].mean(axis=-1),
        "min_class_accuracy": recalls.min(axis=-1),
    }
    scores = {k: (1e4 * v).round().astype(int).tolist() for k, v in scores.items()}
    return {"blends": list(blends), "taus": list(taus), **scores}


def network_name(path):
    """What a feature file is called: by its folder, where that has a network each."""
    path = pathlib.Path(path)
    return path.parent.name if path.stem == "features" else path.stem


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    leave_gpus_to_keras()
    results = Results(FLAGS.results)
    try:
        for path in FLAGS.features:
            file, began = FeatureFile.read(path), time.perf_counter()
            if file.view_features is None or len(file.view_features) < 2:
                raise ValueError(f"{path} has no two views of the training images.")
            sweep(file, network_name(path), range(FLAGS.head_seeds), results)
            seconds = time.perf_counter() - began
            print(f"{network_name(path)}: {seconds:.0f} s", flush=True)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    print(f"Wrote {results.path}. Tables: python -m examples.sweep_tables")


if __name__ == "__main__":
    define_flags()
    app.run(main)
