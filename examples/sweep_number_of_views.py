"""How much more than one view of the images helps.

    python -m examples.sweep_number_of_views --data_dir=DIR --networks=A,B,...

Heads are trained on 1 to 4 views of 125 to 2,000 images of each class. A and B are
folders of networks of `examples/compare.py`. A trained head is a line of --results, as
in `examples/sweep.py`.
"""

import functools
import pathlib

import numpy as np
from absl import app, flags

from tf_pseudofeat.extraction.views import Shifts

from . import sweep_parts
from .data import load_images
from .sweep import Material, add_as_trained, chosen_rows, result_entry, train_and_score
from .sweep_parts import (
    BLEND,
    DEFAULT_ARM,
    TAU,
    differences,
    lines_of_kind,
    means,
    rows_of,
    run_program,
)
from .sweep_views import read_network, seen_through
from .table_parts import markdown_table

__all__ = ["MATERIALS", "shifted_views", "sweep_number_of_views", "views_table"]

FLAGS = flags.FLAGS

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


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    sweep_parts.define_flags()
    sweep_parts.define_image_flags()
    flags.DEFINE_list("confirm", [], "Parts of names of the networks that confirm.")


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
            seen = rows_of(views[: int(material.passes.split()[0])])
            results.add(entry | train_and_score(file, material, seed, seen))


def views_table(path, confirm=()):
    """What a number of views gives, as a table in Markdown; means over networks.

    Args:
        path: of results.
        confirm: parts of the names of the networks that nothing was chosen on.
    """
    grids, passes = {}, {}  # {arm: {network: a grid of scores for each seed}}
    for line in lines_of_kind(path, "head"):
        if line["arm"] != "as trained":
            grid = np.array([line["accuracy"], line["geometric_mean"]]) / 100
            of_arm = grids.setdefault(line["arm"], {})
            of_arm.setdefault(line["network"], []).append(grid)
            passes.setdefault(line["arm"], []).append(line["forward_passes"])
            blends, taus = line["blends"], line["taus"]
    fixed = blends.index(BLEND), taus.index(TAU)
    networks = list(grids[DEFAULT_ARM])
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
            own = f"{means(grid[confirms][..., i, j])} ({blends[i]:g}, {taus[j]:g})"
        rows.append(
            [
                arm.removesuffix(", Gaussians"),
                f"{np.mean(passes[arm]):,.0f}",
                *(means(half) if len(half) else "" for half in halves),
                *differences(values, grids[DEFAULT_ARM][..., fixed[0], fixed[1]]),
                own,
            ]
        )
    header = ("images", "forward passes", "choosing", "confirming")
    header += ("accuracy minus default", "geometric mean minus default")
    header += ("confirming, with its own blend and tau",)
    return markdown_table(
        f"Accuracy / geometric mean; blend {BLEND}, tau {TAU}; {len(networks)} "
        f"networks. In the last column those that were best on the choosing ones.",
        header,
        rows,
    )


def main(argv):
    """Reads the flags; everything else takes arguments."""

    def measure(folder, seeds, results):
        sweep_number_of_views(folder, images(), seeds, results)

    images = functools.cache(lambda: load_images(FLAGS.dataset, FLAGS.data_dir))
    tables = functools.partial(views_table, confirm=FLAGS.confirm)
    run_program(argv, measure, tables)


if __name__ == "__main__":
    define_flags()
    app.run(main)
