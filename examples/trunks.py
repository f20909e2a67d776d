"""Step 1 of the experiment: a network for each cut of the data, and its features.

What takes long is done once: a trained network and its features are files under a
folder named after everything that they follow from, and are read from there again.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import shutil

import keras
import numpy as np

import tf_pseudofeat as tfpf
from tf_pseudofeat.core.files import whole_file
from tf_pseudofeat.extraction.views import choose_views

from .data import (
    imbalance,
    only_classes,
    random_views,
    training_stream,
    under_sampled,
)
from .resnet import compiled_resnet
from .resume import EpochBackup, restore, skip_epochs

__all__ = [
    "FeatureFile",
    "Recipe",
    "feature_file",
    "network_features",
    "trained_network",
    "with_used_features",
]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that a trained network follows from.

    Attributes:
        dataset: name of the image set.
        classes: names of the only classes to use; all of them where empty.
        profile: "step" or "long_tail", see `imbalance`.
        num_minority: classes to cut, for "step".
        ratio: largest class over smallest.
        depth: layers of the residual network.
        epochs: passes over the images.
        batch_size: images in a step.
        learning_rate: of Adam at the start; it decays to zero along a cosine.
        augment: None, "shift" or "flip_and_shift", see `training_stream`.
        mixed_precision: compute in float16, with float32 weights.
        seed: of classes, images, weights and order: the episode.
        under_sampled: train on as many images of each class as the smallest has.
    """

    dataset: str
    classes: tuple[str, ...] = ()
    profile: str = "step"
    num_minority: int = 5
    ratio: int = 10
    depth: int = 20
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 1e-3
    augment: str | None = None
    mixed_precision: bool = False
    seed: int = 0
    under_sampled: bool = False

    def __str__(self):
        cut = f"step{self.num_minority}" if self.profile == "step" else self.profile
        name = "-".join([self.dataset, *self.classes]).replace("/", "_")
        return (
            f"{name}-{cut}-ratio{self.ratio}-resnet{self.depth}"
            f"-{self.epochs}x{self.batch_size}-lr{self.learning_rate:g}"
            f"-{self.augment or 'plain'}{'-mixed' if self.mixed_precision else ''}"
            f"-seed{self.seed}{'-undersampled' if self.under_sampled else ''}"
        )

    @property
    def place(self):
        """What the lines of its results say of it, see `FeatureFile.place`."""
        cut = "step" if self.profile == "step" else "long tail"
        data = " ".join([self.dataset, " or ".join(self.classes)]).strip()
        experiment = (
            f"{data}, {cut} ratio {self.ratio}, ResNet-{self.depth}, "
            f"{self.epochs} epochs, {self.augment or 'no augmentation'}"
            f"{', mixed precision' if self.mixed_precision else ''}"
        )
        return {
            "experiment": experiment,
            "num_minority": self.num_minority if self.profile == "step" else None,
            "episode": self.seed,
        }

    def cut(self, images):
        """The images of its classes, cut as the recipe says."""
        if self.classes:
            images = only_classes(images, self.classes)
        cut = imbalance(images, self.profile, self.num_minority, self.ratio, self.seed)
        return under_sampled(cut, self.seed) if self.under_sampled else cut


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
    policy = "mixed_float16" if recipe.mixed_precision else "float32"
    if trained.exists():
        with _policy(policy):
            return keras.models.load_model(trained)
    place.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(recipe.seed)
    steps = recipe.epochs * -(-len(images.train_labels) // recipe.batch_size)
    with _policy(policy):
        model = compiled_resnet(recipe.depth, images, recipe.learning_rate, steps)
    stream = training_stream(
        images.train_images,
        images.train_labels,
        recipe.batch_size,
        recipe.augment,
        recipe.seed,
    )
    done = restore(model, place / "backup")
    skip_epochs(stream, done)
    print(f"Training {recipe}")
    model.fit(
        stream,
        initial_epoch=done,
        epochs=recipe.epochs,
        shuffle=False,  # the stream is shuffled
        callbacks=[EpochBackup(place / "backup")],
        verbose=2,
    )
    with whole_file(trained) as aside:
        model.save(aside)
    shutil.rmtree(place / "backup")
    return model


@contextlib.contextmanager
def _policy(name):
    """Layers that are made here compute in this policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureFile:
    """What the arms of the experiment work on; the arrays of an `.npz` file.

    Attributes:
        features: of the training images `[N, D]`.
        labels: int `[N]`.
        test_features: `[M, D]`.
        test_labels: int `[M]`.
        minority: ids of the classes that were cut.
        kernel: of the classifier as trained `[D, C]`.
        bias: `[C]`.
        view_features: of augmented training images `[k, N, D]`, or None.
        removed_features: of the images that were cut away `[R, D]`, or None.
        removed_labels: int `[R]`, or None.
        used_features: what the package's default looks at: of some examples of each
            class, as it sees them `[U, D]`; or None.
        used_labels: int `[U]`, or None.
        used_are_views: whether those are views, and not examples as they are.
        scratch_predictions: classes of the test images by a network that was trained
            on the under-sampled images alone, int `[M]`; or None.
        place: {"experiment", "num_minority", "episode"}: where it belongs.
    """

    features: np.ndarray
    labels: np.ndarray
    test_features: np.ndarray
    test_labels: np.ndarray
    minority: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    view_features: np.ndarray | None = None
    removed_features: np.ndarray | None = None
    removed_labels: np.ndarray | None = None
    used_features: np.ndarray | None = None
    used_labels: np.ndarray | None = None
    used_are_views: bool = True
    scratch_predictions: np.ndarray | None = None
    place: dict | None = None

    @classmethod
    def read(cls, path):
        """The arrays of a file, numbers as float32.

        A file that does not say where it belongs is an experiment of its own.
        """
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no feature file {path}.")
        known = {field.name for field in dataclasses.fields(cls)}
        with np.load(path) as arrays:
            missing = {"features", "labels", "kernel", "bias"} - set(arrays.files)
            if missing:
                raise ValueError(f"{path} has no arrays {sorted(missing)}.")
            found = {name: arrays[name] for name in arrays.files if name in known}
        for name, array in found.items():
            if array.dtype.kind == "f":
                found[name] = array.astype(np.float32)
        place = {
            "experiment": path.stem,
            "num_minority": len(found["minority"]),
            "episode": 0,
        }
        if "place" in found:
            place = json.loads(str(found["place"]))
        return cls(**{**found, "place": place})

    def write(self, path):
        """Writes the arrays, features as float16; the file appears whole."""
        arrays = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        for name in arrays:
            if "features" in name:
                arrays[name] = arrays[name].astype(np.float16)
        if self.place is not None:
            arrays["place"] = json.dumps(self.place)
        with whole_file(path) as aside:
            np.savez_compressed(aside, **arrays)

    @property
    def num_classes(self):
        """C."""
        return len(self.bias)

    def head(self):
        """The classifier as it was trained, features -> probabilities."""
        features = keras.Input(self.features.shape[1:])
        dense = keras.layers.Dense(self.num_classes, activation="softmax")
        head = keras.Model(features, dense(features))
        dense.set_weights([self.kernel, self.bias])
        return head


def with_used_features(file, trunk, images, seed=0):
    """A `FeatureFile` with what the package's default looks at of training images."""
    shifts = choose_views(tfpf.Extraction(), images[:1]).augment
    seen = tfpf.extract_features(
        trunk, (images, file.labels), augment=shifts, per_class=500, seed=(seed, 1)
    )
    return dataclasses.replace(
        file,
        used_features=seen.features,
        used_labels=seen.labels,
        used_are_views=shifts is not None,
    )


def network_features(recipe, images, folder, views=0, scratch=False):
    """The features of a recipe's network: from the folder, or made and put there.

    Args:
        recipe: `Recipe`.
        images: `ImbalancedImages`, not yet cut.
        folder: where networks and features are kept.
        views: augmented passes over the training images; none for 0.
        scratch: also train a network on the under-sampled images, for its predictions.

    Returns:
        file: `FeatureFile`.
    """
    path = pathlib.Path(folder) / str(recipe) / "features.npz"
    file = FeatureFile.read(path) if path.exists() else None
    cut = recipe.cut(images)
    if file is None or file.used_features is None:
        model = trained_network(recipe, cut, folder)
        file = file or _with_views(model, recipe, cut, views)
        trunk, _ = tfpf.split_at(model, "features")
        file = with_used_features(file, trunk, cut.train_images, recipe.seed)
        file.write(path)
    if scratch and file.scratch_predictions is None:
        small = dataclasses.replace(recipe, under_sampled=True)
        cut = small.cut(images)
        outputs = trained_network(small, cut, folder).predict(cut.test_images)
        predicted = outputs.argmax(axis=-1)
        file = dataclasses.replace(file, scratch_predictions=predicted)
        file.write(path)
    return dataclasses.replace(FeatureFile.read(path), place=recipe.place)


def feature_file(model, images, place):
    """The `FeatureFile` of a network, without views.

    Args:
        model: Keras model with the layers `features` and `classifier`.
        images: `ImbalancedImages`, already cut.
        place: see `FeatureFile`.
    """
    trunk, _ = tfpf.split_at(model, "features")
    kernel, bias = model.get_layer("classifier").get_weights()

    def features(x, y):
        return tfpf.extract_features(trunk, (x, y)).features

    removed = None
    if len(images.removed_labels):
        removed = features(images.removed_images, images.removed_labels)
    return FeatureFile(
        features=features(images.train_images, images.train_labels),
        labels=images.train_labels,
        test_features=features(images.test_images, images.test_labels),
        test_labels=images.test_labels,
        minority=np.array(images.minority),
        kernel=kernel,
        bias=bias,
        removed_features=removed,
        removed_labels=images.removed_labels if removed is not None else None,
        place=place,
    )


def _with_views(model, recipe, images, views):
    """The same of a recipe's network, with augmented passes where `views` is not 0."""
    file = feature_file(model, images, recipe.place)
    if not views:
        return file
    kind = recipe.augment or (
        "shift" if recipe.dataset == "digits" else "flip_and_shift"
    )
    seen = tfpf.extract_features(
        tfpf.split_at(model, "features").trunk,
        (images.train_images, images.train_labels),
        augment=functools.partial(random_views, augment=kind),
        views=views,
        seed=(recipe.seed, 1),
    )
    seen = seen.features.reshape(views, len(file.labels), -1)
    return dataclasses.replace(file, view_features=seen)
