"""Data as a `keras.utils.PyDataset`."""

import keras

__all__ = ["ArrayBatches"]


class ArrayBatches(keras.utils.PyDataset):
    """Batches of arrays; `asked` are the indices that were read."""

    def __init__(self, *arrays, batch_size, **kwargs):
        super().__init__(**kwargs)
        self.arrays, self.batch_size, self.asked = arrays, batch_size, []

    def __len__(self):
        return -(-len(self.arrays[0]) // self.batch_size)

    def __getitem__(self, index):
        self.asked.append(index)
        rows = slice(index * self.batch_size, (index + 1) * self.batch_size)
        return tuple(array[rows] for array in self.arrays)
