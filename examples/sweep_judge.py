"""Whether a second view of the training images can choose the recipe.

    python -m examples.sweep_judge --networks=A,B,...

Blend and tau are chosen for each network by how well a second view of its training
images is told apart. A and B are folders of networks of `examples/compare.py` whose
files have two views; each head is a line of --results, as in `examples/sweep.py`.
"""

import dataclasses

import numpy as np
from absl import app

from .sweep import (
    BLENDS,
    Material,
    chosen_rows,
    grid_recalls,
    grid_scores,
    network_name,
    result_entry,
    train,
)
from .sweep_parts import (
    BLEND,
    DEFAULT_ARM,
    TAU,
    define_flags,
    differences,
    lines_of_kind,
    rows_of,
    run_program,
)
from .table_parts import markdown_table
from .trunks import FeatureFile

__all__ = ["judge_table", "sweep_judge", "sweep_network"]


def sweep_judge(file, network, seed, results):
    """The default's head on the first view, and how the second one judges it.

    Args:
        file: `FeatureFile` with two views.
        network: its name in the results.
        seed: of the head, and of which images it sees.
        results: `Results`.
    """
    entry = result_entry(file, network, seed, DEFAULT_ARM) | {"kind": "judge"}
    if entry in results:
        return
    material = Material(500, "1 view", "Gaussians")
    head, line = train(file, material, seed, rows_of(file.view_features[:1]))
    blends = (*BLENDS, 1.0)
    line |= grid_scores(file, *head, blends)
    judges = {
        "the same images": chosen_rows(file, 500, seed),
        "all training images": np.arange(len(file.labels)),
    }
    line["judges"] = {
        name: _judged(file, head, rows, blends) for name, rows in judges.items()
    }
    results.add(entry | line)


def _judged(file, head, rows, blends):
    """What the second view of some images says, in hundredths of a percent."""
    labels = file.labels[rows]
    judge = dataclasses.replace(
        file, test_features=file.view_features[1, rows], test_labels=labels
    )
    recalls = grid_recalls(judge, *head, blends)
    counts = np.bincount(labels, minlength=file.num_classes)
    variance = (recalls * (1 - recalls) / counts).mean(axis=-1) / file.num_classes
    scores = {
        "balanced_accuracy": recalls.mean(axis=-1),
        "standard_error": np.sqrt(variance),
        "minority_recall": recalls[..., file.minority].mean(axis=-1),
    }
    return {k: (1e4 * v).round().astype(int).tolist() for k, v in scores.items()}


def _picked(line):
    """{who chooses: place `(blend, tau)` in the grid}."""
    fixed = line["blends"].index(BLEND), line["taus"].index(TAU)
    places = {
        "as trained": (line["blends"].index(1.0), line["taus"].index(0.0)),
        f"default: blend {BLEND}, tau {TAU}": fixed,
    }
    for name, judge in line["judges"].items():
        score = np.array(judge["balanced_accuracy"])
        best = np.unravel_index(score.argmax(), score.shape)
        limit = score[best] - np.array(judge["standard_error"])[best]
        minority = np.where(score >= limit, judge["minority_recall"], -1)
        rare = np.unravel_index(minority.argmax(), minority.shape)
        places[f"best on a view of {name}"] = best
        places[f"best for the minority, of {name}"] = rare
    score = np.array(line["accuracy"])
    places["best on the test images"] = np.unravel_index(score.argmax(), score.shape)
    return places


def judge_table(path):
    """Who chooses blend and tau, and what that gives, as tables in Markdown.

    Args:
        path: of results.
    """
    lines = list(lines_of_kind(path, "judge"))
    names = {
        "accuracy": "accuracy",
        "geometric_mean": "geometric mean",
        "mean_minority_accuracy": "mean minority accuracy",
        "min_class_accuracy": "min class accuracy",
    }
    places = [_picked(line) for line in lines]
    networks = list(dict.fromkeys(line["network"] for line in lines))
    scores = {}  # {who: [networks, scores]}, means of head seeds
    for who in places[0]:
        of_network = {network: [] for network in networks}
        for line, of in zip(lines, places, strict=True):
            i, j = of[who]
            values = [line[name][i][j] / 100 for name in names]
            of_network[line["network"]].append(values)
        scores[who] = np.array([np.mean(v, axis=0) for v in of_network.values()])
    (default,) = (who for who in scores if who.startswith("default"))
    rows, picks = [], []
    for who, values in scores.items():
        ahead = np.sum(values[:, 0] > scores[default][:, 0])
        rows.append(
            [
                who,
                *(f"{value:.1f}" for value in values.mean(axis=0)),
                *differences(values, scores[default]),
                f"{ahead} of {len(values)}",
            ]
        )
    judged = [who for who in scores if who.startswith("best")]
    for line, of in zip(lines, places, strict=True):
        pairs = ((line["blends"][of[w][0]], line["taus"][of[w][1]]) for w in judged)
        name = f"{line['network']} {line['seed']}"
        picks.append([name, *("{:g}, {:g}".format(*pair) for pair in pairs)])
    header = ("chosen by", *names.values(), "accuracy minus default")
    header += ("geometric mean minus default", "more accurate than default")
    tables = (
        markdown_table(
            f"Percent; {len(networks)} networks, {len(lines)} heads.", header, rows
        ),
        markdown_table("Blend and tau that were chosen.", ("network", *judged), picks),
    )
    return "\n".join(tables)


def sweep_network(folder, seeds, results):
    """The same for each seed.

    Args:
        folder: of `features.npz`.
        seeds: of heads.
        results: `Results`.
    """
    path = folder / "features.npz"
    file = FeatureFile.read(path)
    if file.view_features is None or len(file.view_features) < 2:
        raise ValueError(f"{path} has no two views of the training images.")
    for seed in seeds:
        sweep_judge(file, network_name(path), seed, results)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    run_program(argv, sweep_network, judge_table)


if __name__ == "__main__":
    define_flags()
    app.run(main)
