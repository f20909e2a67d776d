"""Imbalanced digits, a retrained head, a SavedModel: python -m examples.quickstart."""

import keras
import numpy as np
from absl import app, logging
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tf_pseudofeat as tfpf


def main(_):
    """Digits 5 to 9 keep a tenth of their images; the test images are balanced."""
    logging.set_verbosity(logging.WARNING)  # absl shows all that TensorFlow logs
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1) / 16
    x, x_test, y, y_test = train_test_split(images, labels, random_state=0)
    rank = np.array([np.sum(y[:i] == label) for i, label in enumerate(y)])
    kept = (y < 5) | (rank < 12)
    x, y = x[kept], y[kept]

    layers = [
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(64, activation="relu", name="features"),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    model.compile("adam", "sparse_categorical_crossentropy")
    retrainer = tfpf.PseudoFeatureHeadRetrainer(
        "features", (x, y), validation_data=(x_test, y_test)
    )
    model.fit(x, y, epochs=40, verbose=0, callbacks=[retrainer])
    print(retrainer.report)
    print("Exported to", tfpf.export_classifier(model, "outputs/quickstart"))


if __name__ == "__main__":
    app.run(main)
