"""One pass over the data, optionally over some examples of each class."""

import itertools

import numpy as np

from tf_pseudofeat.core.finite import check_weights
from tf_pseudofeat.core.labels import class_ids
from tf_pseudofeat.core.progress import progress_bar
from tf_pseudofeat.core.seeds import rng_for
from tf_pseudofeat.data.batches import (
    NO_BATCH,
    arrays_of,
    batches_of,
    num_batches,
)
from tf_pseudofeat.extraction.chosen import (
    ClassTotals,
    choose_rows,
    chosen_chunks,
    whole_chunks,
)

__all__ = ["NO_EXAMPLE", "DataPass"]

NO_EXAMPLE = "All sample weights are 0, or all batches empty: there is no example."


class DataPass:
    """One pass over the data.

    Args:
        data: checked data.
        extraction: `Extraction`.
        seed: two integers, for the choice of examples from arrays.
        verbose: 0 for no progress bar.

    Attributes:
        totals: `ClassTotals`, updated while chunks are read.
        first: the first batch `(inputs, labels, sample_weight)`.
    """

    def __init__(self, data, extraction, seed, verbose):
        self.totals, self._extraction, rows = ClassTotals(), extraction, None
        arrays = arrays_of(data)
        if arrays is not None and extraction.per_class is not None:
            rows = self._choose(*arrays, seed)
        self._is_chosen = rows is not None
        total = num_batches(data, extraction, rows)
        self._bar = progress_bar(total, "batch", verbose)
        self._batches = batches_of(data, extraction, rows)
        self.first = next(self._batches, None)
        if self.first is None:
            raise ValueError(NO_BATCH if rows is None else NO_EXAMPLE)

    def close(self):
        """Ends the pass, and the threads that read ahead."""
        self._batches.close()

    def _choose(self, labels, weight, seed):
        extraction = self._extraction
        if extraction.steps is not None:
            seen = slice(0, extraction.steps * extraction.batch_size)
            labels, weight = labels[seen], None if weight is None else weight[seen]
        ids = class_ids(labels)
        there = np.arange(ids.size)
        if weight is not None:
            check_weights(weight, ids.size)
            there = np.flatnonzero(weight)
        self.totals.add(ids, weight)
        rng = rng_for("chosen examples", seed)
        return there[choose_rows(ids[there], extraction.per_class, rng)]

    def chunks(self):
        """Yields the inputs of the trunk as `Chunk`."""
        per_class = self._extraction.per_class
        if self._is_chosen:
            yield from whole_chunks(self._shown(), ClassTotals())
        elif per_class is None:
            yield from whole_chunks(self._shown(), self.totals)
        else:
            yield from chosen_chunks(self._shown(), self.totals, per_class)

    def _shown(self):
        read = 0
        for batch in itertools.chain([self.first], self._batches):
            yield batch
            read += 1
            self._bar.update(read)
        if self._bar.target is None:
            self._bar.update(read, finalize=True)
