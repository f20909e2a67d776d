"""Streams of their own for all that is drawn from one seed of a user.

Pseudo-features have theirs in `interleave`; here are those of everything else.
"""

import contextlib
import random
import sys
import threading

import keras
import numpy as np

__all__ = ["initial_weights_from", "noise_from", "numbers_for", "seed_layers"]

# Python's `random` belongs to the process: two threads must not seed it at once. The
# thread that has it may make models while it makes one.
_PYTHON_RANDOM = threading.RLock()

# NumPy fills a short entropy up with zeros: (1, 2) and (1, 2, 0) are one stream. So
# every use has all four numbers.
_USES = {"views": 0, "noise of the head": 1, "folds": 2, "chosen examples": 3}


def numbers_for(use, seed, part=0):
    """A NumPy generator that no other use, seed or part (a number from 0) has."""
    seed = [int(number) % 2**31 for number in seed]
    return np.random.default_rng([*seed, part, _USES[use]])


def seed_layers(layer, numbers):
    """Has each random layer inside, such as Dropout, follow from `numbers`."""
    for variable in layer.variables:
        # The state of a `keras.random.SeedGenerator`, whatever its layer calls it.
        if variable.name == "seed_generator_state":
            variable.assign([int(numbers.integers(2**31)), 0])


@contextlib.contextmanager
def noise_from(numbers):
    """Has what is drawn here, and belongs to no layer, follow from `numbers`, too.

    On torch a Dropout that was given no seed draws from torch's own generator (Keras
    3.15), which is as it was afterwards. Elsewhere there is no such noise.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    torch = sys.modules["torch"]  # of Keras
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(numbers.integers(2**31)))
        yield


@contextlib.contextmanager
def initial_weights_from(seed):
    """Has initial weights and layers that are made here follow from `seed`.

    Keras's initializers and random layers without a seed take theirs from Python's
    `random`, which is as it was afterwards.

    Args:
        seed: what `random.seed` takes.
    """
    with _PYTHON_RANDOM:
        state = random.getstate()
        try:
            random.seed(seed)
            yield
        finally:
            random.setstate(state)
