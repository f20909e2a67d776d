"""More views, classes of a few examples, and a view as judge: the recipe at its edges.

    python -m examples.sweep_few --part=views --data_dir=DIR --networks=A,B,...
    python -m examples.sweep_few --part=few --data_dir=DIR --networks=A,...
    python -m examples.sweep_few --part=judge --networks=A,B,...

- views: heads trained on 1 to 4 views of 125 to 2,000 images of each class.
- few: all but a few examples of one minority class are kept from the head, and from
  the counts of its prior. The network has seen them, so what is measured is the head.
- judge: blend and tau are chosen for each network by how well a second view of its
  training images is told apart, which needs the file's two views and no images.

A and B are folders of networks of `examples/compare.py`. A trained head is a line of
--results, as in `examples/sweep.py`. Prints the tables of the part.
"""

import dataclasses
import functools
import json
import pathlib
import sys

import imblearn.over_sampling
import keras
import numpy as np
from absl import app, flags

import tf_pseudofeat as tfpf
from tf_pseudofeat.extraction.views import Shifts
from tf_pseudofeat.head.bias_shift import shift_bias

from .compare import Results
from .data import load_images
from .devices import leave_gpus_to_keras
from .figures import mean_and_error
from .sweep import (
    BLENDS,
    Material,
    add_as_trained,
    chosen_rows,
    grid_recalls,
    grid_scores,
    network_name,
    result_entry,
    train,
    train_and_score,
)
from .sweep_views import read_network, seen_through
from .table_parts import markdown_table
from .trunks import FeatureFile

__all__ = [
    "MATERIALS",
    "few_tables",
    "judge_table",
    "shifted_views",
    "sweep_few",
    "sweep_judge",
    "sweep_number_of_views",
    "views_table",
]

FLAGS = flags.FLAGS

_BLEND, _TAU = 0.2, 0.5  # the default on views
_DEFAULT = "500 a class, 1 view, Gaussians"
_VIEWS, _MANY, _MOST = 4, 1000, 2000
MATERIALS = tuple(
    Material(size, f"{views} view{'s' * (views > 1)}", "Gaussians")
    for size, numbers in (
        (125, (1, 4)),
        (250, (1, 2, 4)),
        (500, (1, 2, 3, 4)),
        (_MANY, (1, 2, 3, 4)),
        (_MOST, (1,)),
    )
    for views in numbers
)
_LEFT = (1, 2, 3, 10, 500)
_PRIORS = ("what is left", "what the network saw")
_REFUSED, _COPIES = "refused", "copies"


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_enum("part", None, ["views", "few", "judge"], "What to measure.")
    flags.DEFINE_list("networks", None, "Folders of trained networks and features.")
    flags.DEFINE_list("confirm", [], "views: parts of names of those that confirm.")
    flags.DEFINE_integer("seeds", 1, "Heads, or draws of examples.", lower_bound=1)
    flags.DEFINE_string("dataset", "cifar10", "The image set they were trained on.")
    flags.DEFINE_string("data_dir", None, "Where TFDS sets are prepared.")
    flags.DEFINE_string("results", "outputs/sweep/few.jsonl", "Lines go there.")
    flags.mark_flags_as_required(["part", "networks"])


# More views.


def shifted_views(file, images, trunk, rows, number, seed):
    """Features `[number, N, D]` of small shifts, NaN but for some rows.

    Args:
        file: `FeatureFile`.
        images: `ImbalancedImages` that the network was trained on.
        trunk: Keras model.
        rows: of the training images to look at.
        number: of views.
        seed: of the shifts.
    """
    views = np.full([number, *file.features.shape], np.nan, np.float32)
    shifts = Shifts(images.train_images[:1])
    views[:, rows] = seen_through(trunk, images, lambda: shifts, seed, rows, number)
    return views


def sweep_number_of_views(folder, images, seeds, results, materials=MATERIALS):
    """Trains and scores what is not in the results yet.

    Args:
        folder: of `trained.keras` and `features.npz`.
        images: `ImbalancedImages`, not yet cut.
        seeds: of heads, of views, and of which images are looked at.
        results: `Results`.
        materials: list of `Material`.
    """
    name = pathlib.Path(folder).name
    file, images, trunk = read_network(folder, images)
    add_as_trained(file, name, results)
    for seed in seeds:
        entries = {m: result_entry(file, name, seed, str(m)) for m in materials}
        missing = {m: entry for m, entry in entries.items() if entry not in results}
        if not missing:
            continue
        first, others = (
            shifted_views(
                file, images, trunk, chosen_rows(file, size, seed), number, view_seed
            )
            for size, number, view_seed in (
                (_MOST, 1, seed),
                (_MANY, _VIEWS - 1, seed + 100),
            )
        )
        views = np.concatenate([first, others])
        for material, entry in missing.items():
            seen = _rows_of(views[: int(material.passes.split()[0])])
            results.add(entry | train_and_score(file, material, seed, seen))


def views_table(path, confirm=()):
    """What a number of views gives, as a table in Markdown; means over networks.

    Args:
        path: of results.
        confirm: parts of the names of the networks that nothing was chosen on.
    """
    grids, passes = {}, {}  # {arm: {network: a grid of scores for each seed}}
    for line in _lines(path, "head"):
        if line["arm"] != "as trained":
            grid = np.array([line["accuracy"], line["geometric_mean"]]) / 100
            of_arm = grids.setdefault(line["arm"], {})
            of_arm.setdefault(line["network"], []).append(grid)
            passes.setdefault(line["arm"], []).append(line["forward_passes"])
            blends, taus = line["blends"], line["taus"]
    fixed = blends.index(_BLEND), taus.index(_TAU)
    networks = list(grids[_DEFAULT])
    confirms = np.array([any(part in name for part in confirm) for name in networks])
    grids = {  # {arm: [networks, scores, blends, taus]}
        arm: np.array([np.mean(of_arm[name], axis=0) for name in networks])
        for arm, of_arm in grids.items()
    }
    rows = []
    for arm, grid in grids.items():
        values = grid[..., fixed[0], fixed[1]]
        halves = [values[confirms == half] for half in (False, True)]
        own = ""
        if confirms.any() and not confirms.all():
            merit = grid[~confirms].mean(axis=(0, 1))
            i, j = np.unravel_index(merit.argmax(), merit.shape)
            own = f"{_pair(grid[confirms][..., i, j])} ({blends[i]:g}, {taus[j]:g})"
        rows.append(
            [
                arm.removesuffix(", Gaussians"),
                f"{np.mean(passes[arm]):,.0f}",
                *(_pair(half) if len(half) else "" for half in halves),
                *_differences(values, grids[_DEFAULT][..., fixed[0], fixed[1]]),
                own,
            ]
        )
    header = ("images", "forward passes", "choosing", "confirming")
    header += ("accuracy minus default", "geometric mean minus default")
    header += ("confirming, with its own blend and tau",)
    return markdown_table(
        f"Accuracy / geometric mean; blend {_BLEND}, tau {_TAU}; {len(networks)} "
        f"networks. In the last column those that were best on the choosing ones.",
        header,
        rows,
    )


# Classes of a few examples.


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
    like_default = {"blend": _BLEND, "tau": _TAU}
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
        keras.backend.clear_session()
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


_SHOWN = ("accuracy", "geometric_mean", "recall")


def few_tables(path, prior):
    """What is reached with a few examples of a class, as tables in Markdown.

    Args:
        path: of results.
        prior: what the prior was counted on, one of `_PRIORS`.
    """
    cells, cases = {}, set()  # {method: {left: {case: scores}}}
    for line in _lines(path, "few"):
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


# A view as judge.


def sweep_judge(file, network, seed, results):
    """The default's head on the first view, and how the second one judges it.

    Args:
        file: `FeatureFile` with two views.
        network: its name in the results.
        seed: of the head, and of which images it sees.
        results: `Results`.
    """
    entry = result_entry(file, network, seed, _DEFAULT) | {"kind": "judge"}
    if entry in results:
        return
    material = Material(500, "1 view", "Gaussians")
    head, line = train(file, material, seed, _rows_of(file.view_features[:1]))
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
    fixed = line["blends"].index(_BLEND), line["taus"].index(_TAU)
    places = {
        "as trained": (line["blends"].index(1.0), line["taus"].index(0.0)),
        f"default: blend {_BLEND}, tau {_TAU}": fixed,
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
    lines = list(_lines(path, "judge"))
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
                *_differences(values, scores[default]),
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


# Common.


def _rows_of(views):
    """What `train` looks at rows through."""
    return lambda rows: views[:, rows]


def _lines(path, kind):
    for text in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["kind"] == kind:
            yield line


def _pair(values):
    return " / ".join(f"{value:.1f}" for value in values.mean(axis=0))


def _differences(values, default):
    """Of accuracy and of geometric mean, mean ± standard error over networks."""
    for column in range(2):
        difference = (values - default)[:, column]
        yield "{:+.2f} ± {:.2f}".format(*mean_and_error(difference))


def run(part, folders, images, seeds, results):
    """One part of the measurements, on all networks.

    Args:
        part: "views", "few" or "judge".
        folders: of networks.
        images: `ImbalancedImages`, not yet cut; None for "judge".
        seeds: whole numbers.
        results: `Results`.
    """
    for folder in map(pathlib.Path, folders):
        if part == "views":
            sweep_number_of_views(folder, images, seeds, results)
        elif part == "judge":
            path = folder / "features.npz"
            file = FeatureFile.read(path)
            if file.view_features is None or len(file.view_features) < 2:
                raise ValueError(f"{path} has no two views of the training images.")
            for seed in seeds:
                sweep_judge(file, network_name(path), seed, results)
        else:
            file, cut, trunk = read_network(folder, images)
            rows = chosen_rows(file, 500, 0)
            views = functools.cache(
                functools.partial(shifted_views, file, cut, trunk, rows, 2, 0)
            )
            for seed in seeds:
                sweep_few(file, folder.name, views, seed, results)
        print(folder.name, flush=True)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    leave_gpus_to_keras()
    results, images = Results(FLAGS.results), None
    try:
        if FLAGS.part != "judge":
            images = load_images(FLAGS.dataset, FLAGS.data_dir)
        run(FLAGS.part, FLAGS.networks, images, range(FLAGS.seeds), results)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    print(f"Wrote {results.path}.\n")
    if FLAGS.part == "views":
        print(views_table(results.path, FLAGS.confirm))
    elif FLAGS.part == "judge":
        print(judge_table(results.path))
    else:
        print("\n".join(few_tables(results.path, prior) for prior in _PRIORS))


if __name__ == "__main__":
    define_flags()
    app.run(main)
