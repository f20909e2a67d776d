"""The choice of a recipe, beside the training of one head."""

import keras
import numpy as np

import tf_pseudofeat as tfpf
from benchmarks.race import Contender, race
from tf_pseudofeat.retraining.search import search_recipe

__all__ = ["measure"]


def measure(num_features=20_000, feature_size=64, num_classes=10, rounds=3):
    """Measurements, on features of classes of which half are rare."""
    rng = np.random.default_rng(0)
    share = np.repeat([10.0, 1.0], num_classes // 2)
    centers = rng.normal(size=(num_classes, feature_size))

    def drawn(count):
        labels = rng.choice(num_classes, count, p=share / share.sum())
        noise = rng.normal(size=(count, feature_size))
        features = (centers[labels] + 2 * noise).astype(np.float32)
        return tfpf.LabeledFeatures(features, labels)

    training, validation = drawn(num_features), drawn(num_features // 4)
    head = keras.Sequential(
        [
            keras.Input((feature_size,)),
            keras.layers.Dense(num_classes, activation="softmax"),
        ]
    )
    task = tfpf.Task(head, num_classes, "sparse_categorical_crossentropy")
    recipe = tfpf.HeadRecipe()
    material = tfpf.prepare_material(training, recipe, num_classes)
    contenders = [
        Contender("ours", lambda: search_recipe(task, material, validation), "ours"),
        Contender(
            "training of one head",
            lambda: tfpf.fit_head(task, material, recipe, verbose=0),
            "floor",
        ),
    ]
    setting = f"{num_features:,} x {feature_size}, {len(validation):,} to judge by"
    return race("choose blend and tau", setting, contenders, rounds=rounds)
