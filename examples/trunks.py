"""Step 1 of the experiment: a network for each cut of the data, and its features.

What takes long is done once: a trained network and its features are files under a
folder named after everything that they follow from, and are read from there again.
"""

import dataclasses
import pathlib

import keras

from examples.data import imbalance, training_stream
from examples.resnet import resnet

__all__ = ["Recipe", "trained_network"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that a trained network follows from.

    Attributes:
        dataset: name of the image set.
        profile: "step" or "long_tail", see `imbalance`.
        num_minority: classes to cut, for "step".
        ratio: largest class over smallest.
        depth: layers of the residual network.
        epochs: passes over the images.
        batch_size: images in a step.
        learning_rate: of Adam at the start; it decays to zero along a cosine.
        augment: None, "shift" or "flip_and_shift", see `training_stream`.
        seed: of classes, images, weights and order: the episode.
    """

    dataset: str
    profile: str = "step"
    num_minority: int = 5
    ratio: int = 10
    depth: int = 20
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 1e-3
    augment: str | None = None
    seed: int = 0

    def __str__(self):
        cut = f"step{self.num_minority}" if self.profile == "step" else self.profile
        return (
            f"{self.dataset}-{cut}-ratio{self.ratio}-resnet{self.depth}"
            f"-{self.epochs}x{self.batch_size}-lr{self.learning_rate:g}"
            f"-{self.augment or 'plain'}-seed{self.seed}"
        )

    def cut(self, images):
        """The images, cut as the recipe says."""
        return imbalance(images, self.profile, self.num_minority, self.ratio, self.seed)


def trained_network(recipe, images, folder):
    """The network of a recipe: from the folder, or trained and put there.

    A training that was interrupted goes on at the epoch where it was.

    Args:
        recipe: `Recipe`.
        images: `ImbalancedImages`, already cut.
        folder: where networks are kept.

    Returns:
        model: Keras model with the layers `features` and `classifier`.
    """
    place = pathlib.Path(folder) / str(recipe)
    trained = place / "trained.keras"
    if trained.exists():
        return keras.models.load_model(trained)
    place.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(recipe.seed)
    model = resnet(recipe.depth, images.train_images.shape[1:], images.num_classes)
    steps = recipe.epochs * -(-len(images.train_labels) // recipe.batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(recipe.learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    stream = training_stream(
        images.train_images,
        images.train_labels,
        recipe.batch_size,
        recipe.augment,
        recipe.seed,
    )
    print(f"Training {recipe}")
    model.fit(
        stream,
        epochs=recipe.epochs,
        shuffle=False,  # the stream is shuffled
        callbacks=[keras.callbacks.BackupAndRestore(place / "backup")],
        verbose=2,
    )
    model.save(trained)
    return model
