"""Labels of four classes in every form, and outputs that guess most of them."""

import numpy as np

__all__ = ["FORMS", "GUESS", "MINORITY", "NUM_CLASSES", "OUTPUTS", "TRUTH"]

NUM_CLASSES = 4
MINORITY = [1, 3]
RNG = np.random.default_rng(0)
TRUTH = RNG.permutation(np.repeat(range(NUM_CLASSES), [40, 9, 25, 6]))
GUESS = np.where(RNG.random(80) < 0.6, TRUTH, RNG.integers(NUM_CLASSES, size=80))
# Outputs whose largest entry stands at the guess.
OUTPUTS = RNG.random((80, NUM_CLASSES)) + 2 * np.eye(NUM_CLASSES)[GUESS]
OUTPUTS = (OUTPUTS / OUTPUTS.sum(axis=1, keepdims=True)).astype("float32")

FORMS = {
    "sparse": TRUTH,
    "column": TRUTH[:, np.newaxis],
    "float": TRUTH.astype("float32"),
    "one-hot": np.eye(NUM_CLASSES, dtype="float32")[TRUTH],
    "whole one-hot": np.eye(NUM_CLASSES, dtype="uint8")[TRUTH],
}
