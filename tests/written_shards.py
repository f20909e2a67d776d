"""Features to write to shards, and what lies in a folder."""

import numpy as np

from tf_pseudofeat.extraction.shard_writer import ShardWriter

__all__ = ["WEIGHT", "X", "Y", "files", "write"]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(25, 3)).astype("float32")
Y = RNG.integers(0, 4, 25)
WEIGHT = RNG.uniform(size=25).astype("float32")


def write(folder, *columns, sizes=None, **options):
    """Writes the columns, in batches of so many rows."""
    sizes = sizes or (len(columns[0]),)
    with ShardWriter(folder, **options) as writer:
        for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
            writer.add(*(column[start : start + size] for column in columns))
    return writer


def files(folder):
    return sorted(path.name for path in folder.iterdir())
