"""Tunes a network and the recipe of its head together, with KerasTuner.

    pip install -e ".[keras-tuner]"
    python -m examples.tune_with_keras_tuner

Each trial trains a small network on imbalanced digits and retrains its head; `units`,
`blend`, `tau` and `per_class` are hyperparameters. The tuner compares trials on
validation data, and what it found is scored on test data that chose nothing.

The search saves no weights: KerasTuner saves those at the end of an epoch, before the
head is retrained. The best hyperparameters are trained once more instead. For a network
that is trained already, `retrain_head(..., recipe="auto")` is cheaper: it trains one
head.
"""

import dataclasses
import pathlib

import keras
import keras_tuner
from absl import app, flags, logging

import tf_pseudofeat as tfpf

from .data import imbalance, load_images, validation_and_test

FLAGS = flags.FLAGS


def define_flags():
    """The flags of this program, for when it is run and not imported."""
    flags.DEFINE_integer("trials", 8, "Networks to train.", lower_bound=1)
    flags.DEFINE_integer("epochs", 30, "Training epochs.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of classes, images, weights, draws and trials.")
    flags.DEFINE_string("output_dir", "outputs/tune", "Where the tuner keeps trials.")


class RetrainedNetwork(keras_tuner.HyperModel):
    """A network for digits and the recipe of its head.

    Args:
        seed: of weights and draws, the same in every trial.
    """

    def __init__(self, seed=0):
        super().__init__(name="retrained_network")
        self.seed = seed

    def build(self, hp):
        """Returns a compiled network, whose head follows the layer "features"."""
        keras.utils.set_random_seed(self.seed)
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1), name="image"),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Conv2D(16, 3, activation="relu"),
                keras.layers.Flatten(),
                keras.layers.Dense(
                    hp.Choice("units", [32, 64]), activation="relu", name="features"
                ),
                keras.layers.Dense(10, activation="softmax"),
            ]
        )
        model.compile("adam", loss="sparse_categorical_crossentropy")
        return model

    def fit(self, hp, model, x, y, *, validation_data, epochs, verbose=0):
        """Trains the network and retrains its head.

        The validation data score the trial and nothing else: no guard and no recipe is
        chosen by them, so that all trials are compared alike.

        Args:
            hp: `keras_tuner.HyperParameters`.
            model: from `build`.
            x: training images.
            y: training labels.
            validation_data: `(images, labels)`.
            epochs: of the training.
            verbose: 0 for silence.

        Returns:
            scores: {"val_balanced_accuracy": of the retrained network}.
        """
        model.fit(x, y, epochs=epochs, verbose=verbose)
        tfpf.retrain_head(
            model,
            "features",
            (x, y),
            blend=hp.Float("blend", 0.0, 0.9, step=0.1, default=0.7),
            tau=hp.Float("tau", 0.0, 2.0, step=0.25, default=1.0),
            per_class=hp.Choice("per_class", [50, 500], default=500),
            seed=(self.seed, 1),
            verbose=verbose,
        )
        return {"val_balanced_accuracy": balanced_accuracy(model, validation_data)}


class RandomSearch(keras_tuner.RandomSearch):
    """A random search that saves no weights and needs no TensorBoard."""

    def run_trial(self, trial, *args, **kwargs):
        """Returns the scores of one trial."""
        hp = trial.hyperparameters
        return self.hypermodel.fit(hp, self.hypermodel.build(hp), *args, **kwargs)


def balanced_accuracy(model, data):
    """The mean recall of the classes of `(images, labels)`."""
    x, y = data
    return tfpf.balanced_accuracy(y, model.predict(x, verbose=0).argmax(axis=1))


def search(hypermodel, train, validation, *, trials, epochs, folder):
    """Runs the trials.

    Args:
        hypermodel: `RetrainedNetwork`.
        train: `(images, labels)`.
        validation: `(images, labels)` that the trials are compared on.
        trials: how many.
        epochs: of each training.
        folder: where KerasTuner writes; what an older search left there is replaced.

    Returns:
        tuner: `RandomSearch`, finished.
    """
    tuner = RandomSearch(
        hypermodel,
        objective=keras_tuner.Objective("val_balanced_accuracy", "max"),
        max_trials=trials,
        seed=hypermodel.seed + 1,  # KerasTuner takes 0 for no seed
        directory=folder,
        project_name="trials",
        overwrite=True,
    )
    tuner.search(*train, validation_data=validation, epochs=epochs, verbose=0)
    return tuner


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the best trial gives.

    Attributes:
        model: the network, trained and retrained once more.
        validation: its balanced accuracy on the data that chose it, which flatters.
        test: its balanced accuracy on data that chose nothing.
    """

    model: keras.Model
    validation: float
    test: float


def train_best(tuner, train, validation, test, *, epochs):
    """Trains the best hyperparameters once more.

    Args:
        tuner: from `search`.
        train: `(images, labels)`.
        validation: `(images, labels)`.
        test: `(images, labels)`.
        epochs: those of the search.

    Returns:
        outcome: `Outcome`.
    """
    (best,) = tuner.get_best_hyperparameters(1)
    model = tuner.hypermodel.build(best)
    scores = tuner.hypermodel.fit(
        best, model, *train, validation_data=validation, epochs=epochs
    )
    return Outcome(model, *scores.values(), test=balanced_accuracy(model, test))


def main(argv):
    """Reads the flags; everything else takes arguments."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    images = imbalance(load_images("digits"), seed=FLAGS.seed)
    train = images.train_images, images.train_labels
    validation, test = validation_and_test(images)
    tuner = search(
        RetrainedNetwork(FLAGS.seed),
        train,
        validation,
        trials=FLAGS.trials,
        epochs=FLAGS.epochs,
        folder=pathlib.Path(FLAGS.output_dir),
    )
    for trial in tuner.oracle.get_best_trials(FLAGS.trials):
        print(f"{100 * trial.score:5.1f}  {trial.hyperparameters.values}")
    outcome = train_best(tuner, train, validation, test, epochs=FLAGS.epochs)
    print(
        f"Balanced accuracy of the best, in percent: {100 * outcome.test:.1f} on test"
    )
    print(f"data, {100 * outcome.validation:.1f} on the validation data that chose it.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
