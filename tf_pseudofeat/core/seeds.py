"""Independent random streams for everything that is drawn from one user seed.

Pseudo-features have their own in `interleave`; these are the streams of everything
else.
"""

import contextlib
import random
import sys
import threading

import keras
import numpy as np

__all__ = ["initial_weights_from", "rng_for", "seed_layers", "seeded_backend_rng"]

# Python's `random` is global to the process: two threads must not seed it at once. It
# is reentrant, since building one model may build another.
_PYTHON_RANDOM = threading.RLock()

# NumPy pads short entropy with zeros: (1, 2) and (1, 2, 0) give the same stream. So
# every use passes all four numbers.
_USES = {"views": 0, "noise of the head": 1, "folds": 2, "chosen examples": 3}


def rng_for(use, seed, part=0):
    """Returns a NumPy generator that is distinct for each use, seed and part."""
    seed = [int(number) % 2**31 for number in seed]
    return np.random.default_rng([*seed, part, _USES[use]])


def seed_layers(layer, rng):
    """Reseeds every random layer inside `layer`, such as Dropout, from `rng`."""
    for variable in layer.variables:
        # The state of a `keras.random.SeedGenerator`, whatever its layer calls it.
        if variable.name == "seed_generator_state":
            variable.assign([int(rng.integers(2**31)), 0])


@contextlib.contextmanager
def seeded_backend_rng(rng):
    """Context manager that seeds the global generator of the backend from `rng`.

    On torch, a Dropout without a seed draws from torch's own generator (Keras 3.15);
    its state is restored on exit. The other backends have no such generator.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    torch = sys.modules["torch"]  # of Keras
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(rng.integers(2**31)))
        yield


@contextlib.contextmanager
def initial_weights_from(seed):
    """Context manager that seeds initial weights and layers without a seed.

    Keras's initializers and random layers without a seed take theirs from Python's
    `random`, whose state is restored on exit.

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
