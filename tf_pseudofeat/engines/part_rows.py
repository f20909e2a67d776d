"""Rows of one part of the data: batches of them, and a checksum of all."""

import hashlib
from collections.abc import Mapping

import numpy as np

__all__ = ["RowDigest", "batches_of_rows"]


def batches_of_rows(rows, specs, batch_size):
    """Yields `({name: inputs [B, ...]}, labels [B])` of rows or batches."""
    pending = []
    for row in rows:
        inputs, label, is_batch = _parsed(row, specs)
        if is_batch:
            if len(label):
                yield inputs, label
            continue
        pending.append((inputs, label))
        if len(pending) == batch_size:
            yield _stacked(pending)
            pending = []
    if pending:
        yield _stacked(pending)


def _parsed(row, specs):
    """Returns `(inputs by name, label, is_batch)`, after a check of the shapes."""
    if not isinstance(row, tuple | list) or len(row) != 2:
        size = f" of {len(row)}" if isinstance(row, tuple | list) else ""
        raise ValueError(
            f"`rows` must yield (input, label); received a {type(row).__name__}{size}."
        )
    x, label = row
    inputs = x if isinstance(x, Mapping) else dict.fromkeys(specs, x)
    if inputs.keys() != specs.keys() or (len(specs) > 1 and inputs is not x):
        received = sorted(inputs) if inputs is x else f"a {type(x).__name__}"
        raise ValueError(
            f"The endpoint has inputs {sorted(specs)}; received {received}. Pass a "
            f"dict by these names."
        )
    inputs = {name: np.asarray(value) for name, value in inputs.items()}
    label = np.asarray(label)
    shapes = {name: value.shape for name, value in inputs.items()}
    as_rows = all(s.shape[1:].is_compatible_with(shapes[n]) for n, s in specs.items())
    if as_rows and label.ndim <= 1:
        return inputs, label, False
    as_batch = all(s.shape.is_compatible_with(shapes[n]) for n, s in specs.items())
    if as_batch and label.ndim and {s[0] for s in shapes.values()} == {len(label)}:
        return inputs, label, True
    expected = {name: list(spec.shape) for name, spec in specs.items()}
    shapes = {name: list(shape) for name, shape in shapes.items()}
    raise ValueError(
        f"`rows` must yield (input, label), or batches of them, for inputs {expected}; "
        f"received shapes {shapes} and a label of shape {list(label.shape)}."
    )


def _stacked(pending):
    inputs, labels = zip(*pending, strict=True)
    try:
        by_name = {name: np.stack([x[name] for x in inputs]) for name in inputs[0]}
        return by_name, np.stack(labels)
    except ValueError as error:
        raise ValueError(
            f"Rows of one batch differ in shape ({error}). Pad them, or pass "
            f"batch_size=1."
        ) from error


class RowDigest:
    """Counts rows, and adds up a checksum of each, in any order."""

    def __init__(self):
        self.num_rows, self.value = 0, 0

    def add(self, inputs, labels):
        """Adds a batch: inputs by name, each `[B, ...]`, and labels `[B]`."""
        columns = [*(inputs[name] for name in sorted(inputs)), labels]
        for row in zip(*columns, strict=True):
            pieces = hashlib.blake2b(digest_size=8)
            for value in map(np.asarray, row):
                is_text = value.dtype.kind in "OSTU"  # padded, or not in the array
                pieces.update(
                    repr(value.tolist()).encode() if is_text else value.tobytes()
                )
            self.value += int.from_bytes(pieces.digest(), "big")
            self.num_rows += 1
        self.value %= 2**64
