"""Networks to train on another machine: what `examples/train_on_jax.py` reads there.

A packed folder holds each image set once, and a line for each network with its settings
and the rows of its training images. Reading it takes NumPy and nothing else.
"""

import dataclasses
import json
import pathlib

import numpy as np

from .data import only_classes

__all__ = ["pack"]


def pack(recipes, images, folder):
    """Adds networks to a packed folder.

    Args:
        recipes: list of `Recipe`, all of one image set and the same classes.
        images: `ImbalancedImages` of that set, not yet cut.
        folder: made where it is missing; networks that it has already are left out.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    first = recipes[0]
    if first.classes:
        images = only_classes(images, first.classes)
    name = "-".join([first.dataset, *first.classes]).replace("/", "_")
    if not (folder / f"{name}.npz").exists():
        names = ("train_images", "train_labels", "test_images", "test_labels")
        arrays = {key: getattr(images, key) for key in names}
        np.savez_compressed(folder / f"{name}.npz", **arrays)
    rows = dataclasses.replace(images, train_images=np.arange(len(images.train_labels)))
    lines = folder / "networks.jsonl"
    known = lines.read_text() if lines.exists() else ""
    with lines.open("a") as file:
        for recipe in recipes:
            if f'"name": "{recipe}"' in known:
                continue
            network = {
                "name": str(recipe),
                "images": name,
                "num_classes": images.num_classes,
                **dataclasses.asdict(recipe),
                "rows": recipe.cut(rows).train_images.tolist(),
            }
            file.write(json.dumps(network) + "\n")
