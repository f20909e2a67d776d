"""Whether streams of random numbers know of each other."""

import numpy as np
from scipy import stats

__all__ = ["dependent"]

# Chance of a false alarm, in a whole call.
_FAMILY_WISE_ERROR = 1e-3
# Streams are held against each other shifted by up to so many numbers.
_LAGS = 20


def dependent(streams):
    """What speaks against the streams being independent, each of independent numbers.

    Correlations of all pairs of streams, and of each with itself, at every lag, are
    held against those of n independent numbers: r sqrt((n - 2) / (1 - r^2)) is
    Student's t with n - 2 degrees of freedom (of normal numbers; near enough of
    others). They are many, m, so one counts where its chance is below 0.001 / m. And no
    draw may occur twice; of float32 normals single numbers do by chance, so what counts
    are two in a row that occur in a row once more.

    Args:
        streams: {name: array}, of the same length but for what is cut off.

    Returns:
        pairs: set of frozensets of names; a stream that knows of itself is one alone.
    """
    names = list(streams)
    size = min(np.size(stream) for stream in streams.values())
    numbers = np.stack([np.ravel(streams[name])[:size] for name in names])
    found = _repeated(names, numbers)
    numbers = numbers.astype(np.float64)
    num_tests = _LAGS * len(names) ** 2 + len(names) * (len(names) - 1) // 2
    for lag in range(_LAGS + 1):
        first, second = numbers[:, : size - lag], numbers[:, lag:]
        first, second = (_standardised(part) for part in (first, second))
        r = np.clip(first @ second.T, -1 + 1e-12, 1 - 1e-12)
        degrees = size - lag - 2
        t = np.abs(r) * np.sqrt(degrees / (1 - r**2))
        suspicious = 2 * stats.t.sf(t, degrees) < _FAMILY_WISE_ERROR / num_tests
        for i, j in np.argwhere(suspicious):
            if lag or i < j:
                found.add(frozenset((names[i], names[j])))
    return found


def _standardised(rows):
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def _repeated(names, numbers):
    """Pairs of streams that have the same two numbers in a row somewhere."""
    first, second = numbers[:, :-1].ravel(), numbers[:, 1:].ravel()
    owners = np.repeat(np.arange(len(names)), numbers.shape[1] - 1)
    order = np.lexsort((second, first))
    same = (np.diff(first[order]) == 0) & (np.diff(second[order]) == 0)
    return {
        frozenset((names[owners[order[i]]], names[owners[order[i + 1]]]))
        for i in np.flatnonzero(same)
    }
