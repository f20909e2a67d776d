"""The default model of `PseudoFeatureClassifier`: a perceptron for tables."""

import keras

__all__ = ["build_perceptron"]


def build_perceptron(input_shape, num_classes):
    """Builds a compiled perceptron for tables `[B, D]`."""
    model = keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(32, activation="relu", name="features"),
            keras.layers.Dense(num_classes, activation="softmax"),
        ],
        name="perceptron",
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    # otherwise TensorFlow traces the first step twice
    model.optimizer.build(model.trainable_variables)
    return model
