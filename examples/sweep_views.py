"""Which augmentation of images the trunk is to see: the sweep, view by view.

    python -m examples.sweep_views --dataset=cifar10 --data_dir=DIR \
      --networks=outputs/compare/trunks/A,outputs/compare/trunks/B

Each network of `examples/compare.py` sees at most 500 images of each class through each
of `VIEWS`; a head is trained on that, and scored for every blend and tau, as
`examples/sweep.py` does. A trained head is a line of --results, as there. Prints what
the views give with the default's blend and tau.
"""

import functools
import json
import pathlib
import re
import sys
import time

import keras
import numpy as np
from absl import app, flags

import tf_pseudofeat as tfpf

from .compare import Results
from .data import load_images
from .devices import leave_gpus_to_keras
from .figures import mean_and_error
from .sweep import Material, add_as_trained, result_entry, train_and_score
from .trunks import FeatureFile, Recipe

__all__ = [
    "VIEWS",
    "read_network",
    "recipe_of",
    "seen_through",
    "sweep_views",
    "views_table",
]

FLAGS = flags.FLAGS

_NAME = re.compile(
    r"(?P<dataset>\w+)-(?P<cut>step\d|long_tail)-ratio(?P<ratio>\d+)"
    r"-resnet(?P<depth>\d+)-(?P<epochs>\d+)x(?P<batch_size>\d+)-lr(?P<rate>[\d.e-]+)"
    r"-(?P<augment>\w+?)(?P<mixed>-mixed)?-seed(?P<seed>\d+)"
)


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_list("networks", None, "Folders of trained networks and features.")
    flags.DEFINE_string("dataset", "cifar10", "The image set they were trained on.")
    flags.DEFINE_string("data_dir", None, "Where TFDS sets are prepared.")
    flags.DEFINE_string("results", "outputs/sweep/views.jsonl", "Lines go there.")
    flags.mark_flag_as_required("networks")


def _shift(share, fill_mode="constant", interpolation="nearest", flip=False):
    """Shifts by at most a share of each side, and flips from left to right."""
    layers = [keras.layers.RandomFlip("horizontal")] if flip else []
    layers.append(
        keras.layers.RandomTranslation(
            share, share, fill_mode=fill_mode, interpolation=interpolation
        )
    )
    return keras.Sequential(layers)


def _noise(share, deviation):
    """Noise, as a share of each pixel's deviation."""

    def augment(x, seed):
        noise = keras.random.normal(x.shape, seed=int(seed[0]) + int(seed[1]))
        return keras.ops.cast(x, "float32") + share * deviation * noise

    return augment


VIEWS = {
    "plain": None,
    "shifts of 1/32": functools.partial(_shift, 1 / 32),
    "shifts of 1/16": functools.partial(_shift, 1 / 16),
    "shifts of 1/8": functools.partial(_shift, 1 / 8),
    "shifts of 1/4": functools.partial(_shift, 1 / 4),
    "shifts of 1/8, reflected": functools.partial(_shift, 1 / 8, "reflect"),
    "shifts of 1/8, repeated": functools.partial(_shift, 1 / 8, "nearest"),
    "shifts of 1/8, interpolated": functools.partial(
        _shift, 1 / 8, interpolation="bilinear"
    ),
    "flips and shifts of 1/8": functools.partial(_shift, 1 / 8, flip=True),
    "noise of 0.1": 0.1,
    "noise of 0.2": 0.2,
}


def recipe_of(name):
    """The `Recipe` that a network's folder is named after."""
    found = _NAME.fullmatch(name)
    if not found:
        raise ValueError(f"{name} is not named as examples/compare.py names networks.")
    part = found.groupdict()
    step = part["cut"].startswith("step")
    recipe = Recipe(
        dataset=part["dataset"],
        profile="step" if step else "long_tail",
        num_minority=int(part["cut"][4:]) if step else 5,
        ratio=int(part["ratio"]),
        depth=int(part["depth"]),
        epochs=int(part["epochs"]),
        batch_size=int(part["batch_size"]),
        learning_rate=float(part["rate"]),
        augment=None if part["augment"] == "plain" else part["augment"],
        mixed_precision=part["mixed"] is not None,
        seed=int(part["seed"]),
    )
    if str(recipe) != name:
        raise ValueError(f"{name} is another network than {recipe}.")
    return recipe


def read_network(folder, images):
    """A network as it was left by examples/compare.py.

    Args:
        folder: of `trained.keras` and `features.npz`.
        images: `ImbalancedImages`, not yet cut.

    Returns:
        file: `FeatureFile`.
        images: `ImbalancedImages` that it was trained on.
        trunk: Keras model.
    """
    folder = pathlib.Path(folder)
    file = FeatureFile.read(folder / "features.npz")
    images = recipe_of(folder.name).cut(images)
    if not np.array_equal(images.train_labels, file.labels):
        raise ValueError(f"{folder} was trained on other images than these.")
    model = keras.models.load_model(folder / "trained.keras")
    return file, images, tfpf.split_at(model, "features").trunk


def sweep_views(folder, images, results, views=None, per_class=500, seed=0):
    """Trains and scores what is not in the results yet.

    Args:
        folder: of `trained.keras` and `features.npz`.
        images: `ImbalancedImages`, not yet cut.
        results: `Results`.
        views: names in `VIEWS`; all of them by default.
        per_class: at most so many images of each class.
        seed: of the head, and of which images those are.
    """
    folder = pathlib.Path(folder)
    file, images, trunk = read_network(folder, images)
    add_as_trained(file, folder.name, results)
    material = Material(per_class, "1 view", "Gaussians")
    for name in views or VIEWS:
        arm = f"{per_class} a class, {name}, Gaussians"
        entry = result_entry(file, folder.name, seed, arm)
        if entry in results:
            continue
        began = time.perf_counter()
        seen = functools.partial(seen_through, trunk, images, VIEWS[name], seed)
        scores = train_and_score(file, material, seed, seen)
        seconds = round(time.perf_counter() - began, 2)
        results.add(entry | {**scores, "seconds": seconds})


def seen_through(trunk, images, view, seed, rows, views=1):
    """What a trunk makes of views of some images, `[views, M, D]`.

    Args:
        trunk: Keras model.
        images: `ImbalancedImages`.
        view: a value of `VIEWS`: None, a share of noise, or what makes an `augment`.
        seed: of the view.
        rows: of the training images `[M]`.
        views: of each image.
    """
    x, y = images.train_images[rows], images.train_labels[rows]
    if isinstance(view, float):
        view = _noise(view, np.std(x, axis=0, dtype=np.float64).astype(np.float32))
    elif view is not None:
        view = view()
    features, _ = tfpf.extract_features(
        trunk,
        (x, y),
        augment=view,
        views=None if view is None else views,
        seed=(seed, 9),
        verbose=0,
    )
    return features.reshape(-1, len(rows), *features.shape[1:])


def views_table(path, blend=0.2, tau=0.5):
    """What each view gives, as a table in Markdown; means over networks.

    Args:
        path: of results, of this program or of `sweep_random_layers`.
        blend: of the heads to show.
        tau: likewise.
    """
    lines = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    networks = list(dict.fromkeys(line["network"] for line in lines))
    scores = {}  # {head: [networks, 2]}
    for line in lines:
        kept, off = blend, tau
        if line["arm"] in ("as trained", "oracle"):
            kept, off = line["blends"][0], 0.0
        place = line["blends"].index(kept), line["taus"].index(off)
        values = [
            line[name][place[0]][place[1]] / 100
            for name in ("accuracy", "geometric_mean")
        ]
        row = scores.setdefault(line["arm"], np.full([len(networks), 2], np.nan))
        row[networks.index(line["network"])] = values
    plain = next(values for arm, values in scores.items() if ", plain," in arm)
    rows = [
        f"Percent; mean of {len(networks)} networks; blend {blend:g}, tau {tau:g}.\n",
        "| head | accuracy | geometric mean | accuracy minus plain |",
        "| --- | --- | --- | --- |",
    ]
    for arm, values in scores.items():
        mean, error = mean_and_error((values - plain)[:, 0])
        accuracy, geometric_mean = values.mean(axis=0)
        rows.append(
            f"| {arm} | {accuracy:.1f} | {geometric_mean:.1f} | "
            f"{mean:+.1f} ± {error:.1f} |"
        )
    return "\n".join(rows)


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    leave_gpus_to_keras()
    results = Results(FLAGS.results)
    try:
        images = load_images(FLAGS.dataset, FLAGS.data_dir)
        for folder in FLAGS.networks:
            began = time.perf_counter()
            sweep_views(folder, images, results)
            seconds = time.perf_counter() - began
            print(f"{pathlib.Path(folder).name}: {seconds:.0f} s", flush=True)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    print(f"Wrote {results.path}.\n\n{views_table(results.path)}")


if __name__ == "__main__":
    define_flags()
    app.run(main)
