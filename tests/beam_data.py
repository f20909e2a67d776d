"""Features, images and a small model for pipelines of Apache Beam."""

import keras
import numpy as np
from keras import layers

__all__ = [
    "C",
    "D",
    "by_row",
    "image_model",
    "images_and_labels",
    "make_data",
    "model_of",
    "pipeline",
    "random_batches",
]

C, D = 4, 6


def pipeline():
    """In this process. `DirectRunner` would first look for a binary on GitHub."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    return beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))


def make_data(size=500, seed=0):
    """Far from the origin; class 3 has one example, and one batch alone has it."""
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 3, size - 1), 3)
    means = rng.normal(size=(C, D))
    return 100 + means[labels] + rng.normal(size=(size, D)), labels


def random_batches(features, labels, rng):
    cuts = np.sort(rng.choice(np.arange(1, len(labels)), 30, replace=False))
    order = rng.permutation(len(labels))
    pieces = np.split(features[order], cuts), np.split(labels[order], cuts)
    return list(zip(*pieces, strict=True))


def model_of(inputs, joined):
    features = layers.Dense(5, activation="tanh", name="features")(joined)
    return keras.Model(inputs, layers.Dense(C, activation="softmax")(features))


def image_model(seed=0):
    keras.utils.set_random_seed(seed)
    image = keras.Input((3, 3, 1), name="image")
    return model_of(image, layers.Flatten()(layers.Rescaling(1 / 255)(image)))


def images_and_labels(size=90):
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (size, 3, 3, 1), dtype=np.uint8)
    return images, rng.integers(0, C, size)


def by_row(features, labels):
    """Rows with their labels, in an order that does not depend on theirs."""
    rows = np.column_stack([features, labels])
    return rows[np.lexsort(rows.T)]
