"""Arrays for `fit`: float32, and in batches whose order follows from a seed."""

import keras
import numpy as np

__all__ = ["ShuffledBatches", "as_float32"]


class ShuffledBatches(keras.utils.PyDataset):
    """Batches of arrays in a new order each epoch, reproducible by a seed."""

    def __init__(self, arrays, batch_size, seed):
        super().__init__()
        self._arrays, self._batch_size = arrays, batch_size
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def on_epoch_end(self):
        """Draws the order of the next epoch."""
        self._order = self._rng.permutation(len(self._arrays[0]))

    @property
    def num_batches(self):
        """Batches of an epoch; the last may be smaller."""
        return -(-len(self._order) // self._batch_size)

    def __getitem__(self, index):
        start = index * self._batch_size
        rows = self._order[start : start + self._batch_size]
        return tuple(array[rows] for array in self._arrays)


def as_float32(numbers, name="X"):
    """Converts floats to float32; keeps integers, which may be token ids."""
    if numbers.dtype.kind not in "fb":
        return numbers
    with np.errstate(over="ignore"):
        floats = numbers.astype(np.float32)
    if not np.isfinite(floats).all():
        raise ValueError(
            f"{name} contains a value too large for float32, {np.abs(numbers).max():g}."
        )
    return floats
