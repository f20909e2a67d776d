"""What the default does where a class has but a few examples.

    python -m examples.sweep_few --data_dir=DIR --networks=A,B,...

All but a few examples of one minority class are kept from the head, and from the counts
of its prior. The network has seen them, so what is measured is the head. A and B are
folders of networks of `examples/compare.py`; each head is a line of --results.
"""

import functools

import imblearn.over_sampling
import numpy as np
from absl import app, flags

import tf_pseudofeat as tfpf
from tf_pseudofeat.head.bias_shift import shift_bias

from . import sweep_parts
from .data import load_images
from .figures import mean_and_error
from .sweep import chosen_rows, result_entry
from .sweep_number_of_views import shifted_views
from .sweep_parts import BLEND, TAU, lines_of_kind, run_program
from .sweep_views import read_network
from .table_parts import markdown_table

__all__ = ["few_tables", "sweep_few"]

FLAGS = flags.FLAGS

_LEFT = (1, 2, 3, 10, 500)
_PRIORS = ("what is left", "what the network saw")
_REFUSED, _COPIES = "refused", "copies"
_SHOWN = ("accuracy", "geometric_mean", "recall")


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    sweep_parts.define_flags()
    sweep_parts.define_image_flags()


def sweep_few(file, network, views, seed, results, left=_LEFT):
    """Heads that see but a few examples of one minority class, another for each seed.

    Args:
        file: `FeatureFile`.
        network: its name in the results.
        views: function that gives two views of the default's images `[2, N, D]`.
        seed: of the examples that are left, and of the head.
        results: `Results`.
        left: numbers of examples that are left.
    """
    class_id = int(file.minority[seed % len(file.minority)])
    rows = chosen_rows(file, 500, 0)
    members = rows[file.labels[rows] == class_id]
    members = np.random.default_rng([seed, 4]).permutation(members)
    others = np.setdiff1d(rows, members)
    for number in left:
        arms = _few_arms(seed)
        entries = {
            arm: result_entry(file, network, seed, f"{arm}, {number} left")
            for arm in arms
        }
        for arm, entry in entries.items():
            if entry in results:
                continue
            kept = np.sort(np.concatenate([others, members[:number]]))
            totals = np.bincount(file.labels, minlength=file.num_classes)
            seen = views()[: 2 if arm.startswith("2 views") else 1, kept]
            data = tfpf.LabeledFeatures(
                np.concatenate(list(seen)), np.tile(file.labels[kept], len(seen))
            )
            entry |= {"kind": "few", "method": arm, "left": number, "class": class_id}
            results.add(entry | _few_scores(file, arms[arm], data, totals, entry))


def _few_arms(seed):
    """{name: `HeadRecipe`, or the tau of logit adjustment}."""
    own = {"covariance_type": "full"}
    like_default = {"blend": BLEND, "tau": TAU}
    over = imblearn.over_sampling
    return {
        "as trained": 0.0,
        "logit adjustment, tau 1": 1.0,
        "own covariance": tfpf.HeadRecipe(gaussian=own),
        "2 views, own covariance": tfpf.HeadRecipe(gaussian=own),
        "tied covariance": tfpf.HeadRecipe(gaussian={"covariance_type": "tied"}),
        _COPIES: tfpf.HeadRecipe(
            sampler=over.RandomOverSampler(random_state=seed), **like_default
        ),
        "SMOTE": tfpf.HeadRecipe(sampler=over.SMOTE(random_state=seed), **like_default),
    }


def _few_scores(file, recipe, data, totals, entry):
    """Scores by what the prior was counted on, or why there is no head."""
    head, tau = file.head(), recipe
    priors = {name: totals.copy() for name in _PRIORS}
    priors["what is left"][entry["class"]] = entry["left"]
    counted = priors["what is left"]
    if isinstance(recipe, tfpf.HeadRecipe):
        try:
            material = tfpf.prepare_material(
                data, recipe, file.num_classes, totals=counted, viewed=True
            )
        except ValueError as error:
            return {_REFUSED: str(error)}
        task = tfpf.Task(head, file.num_classes, "sparse_categorical_crossentropy")
        recipe = recipe.resolve(task, material)
        tfpf.fit_head(task, material, recipe, seed=(entry["seed"], 1), verbose=0)
        tau = recipe.tau
        shift_bias(head, counted, -tau)  # to take another prior off
    kernel, bias = head.layers[-1].get_weights()
    found = {}
    for name, counts in priors.items():
        head.layers[-1].set_weights([kernel, bias])
        shift_bias(head, counts, tau)
        outputs = head.predict(file.test_features, batch_size=4096, verbose=0)
        predicted = outputs.argmax(axis=-1)
        minority = [int(c) for c in file.minority]
        scores = tfpf.classification_scores(
            file.test_labels, predicted, file.num_classes, minority
        )
        recalls = tfpf.class_recalls(file.test_labels, predicted, file.num_classes)
        scores["recall"] = recalls[entry["class"]]
        found[name] = {k: round(float(v), 4) for k, v in scores.items() if k in _SHOWN}
    return {"tau": tau, "scores": found}


def few_tables(path, prior):
    """What is reached with a few examples of a class, as tables in Markdown.

    Args:
        path: of results.
        prior: what the prior was counted on, one of `_PRIORS`.
    """
    cells, cases = {}, set()  # {method: {left: {case: scores}}}
    for line in lines_of_kind(path, "few"):
        scores, case = line.get("scores"), (line["network"], line["seed"])
        values = [100 * scores[prior][k] for k in _SHOWN] if scores else None
        of_method = cells.setdefault(line["method"], {})
        of_method.setdefault(line["left"], {})[case] = values
        cases.add(case)
    lefts = sorted({left for of_method in cells.values() for left in of_method})
    header = ("head", *(f"{left} left" for left in lefts))
    scored, gained = [], []
    for method, of_method in cells.items():
        scored.append([method, *(_few_cell(of_method[left]) for left in lefts)])
        pairs = ((of_method[left], cells[_COPIES][left]) for left in lefts)
        gained.append([method, *(_few_gain(*pair) for pair in pairs)])
    scores = (
        f"Accuracy / geometric mean / recall of the class, mean of {len(cases)} cases, "
        f"each another class or network. The prior is that of {prior}."
    )
    gains = f"The same minus {_COPIES}, mean ± standard error over cases."
    return "\n".join(
        (markdown_table(scores, header, scored), markdown_table(gains, header, gained))
    )


def _few_cell(cases):
    """Of the scores of some cases `{case: scores}`, None where there is no head."""
    if None in cases.values():
        return _REFUSED
    means = np.mean(list(cases.values()), axis=0)
    return " / ".join(f"{value:.1f}" for value in means)


def _few_gain(cases, others):
    """Scores minus those of another head, case by case."""
    if None in cases.values():
        return _REFUSED
    gains = [np.subtract(cases[case], others[case]) for case in others]
    return " / ".join(
        "{:+.1f} ± {:.1f}".format(*mean_and_error(g)) for g in zip(*gains, strict=True)
    )


def main(argv):
    """Reads the flags; everything else takes arguments."""

    def measure(folder, seeds, results):
        file, cut, trunk = read_network(folder, images())
        rows = chosen_rows(file, 500, 0)
        views = functools.cache(
            functools.partial(shifted_views, file, cut, trunk, rows, 2, 0)
        )
        for seed in seeds:
            sweep_few(file, folder.name, views, seed, results)

    def tables(path):
        return "\n".join(few_tables(path, prior) for prior in _PRIORS)

    images = functools.cache(lambda: load_images(FLAGS.dataset, FLAGS.data_dir))
    run_program(argv, measure, tables)


if __name__ == "__main__":
    define_flags()
    app.run(main)
