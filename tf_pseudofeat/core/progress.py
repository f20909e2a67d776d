"""Keras progress bars with a title."""

import keras

__all__ = ["print_status", "progress_bar"]


def progress_bar(total, unit, verbose, **options):
    """A `keras.utils.Progbar`.

    Args:
        total: number of steps, None if unknown.
        unit: name of a step.
        verbose: as in `fit`: 0 for no output, "auto" or 1 for a bar, 2 for one line.
        **options: arguments of `Progbar`.
    """
    kind = 1 if verbose == "auto" else int(verbose)
    return keras.utils.Progbar(total, verbose=kind, unit_name=unit, **options)


def print_status(text, verbose):
    """Prints a line, unless `verbose` is 0."""
    if verbose:
        print(text)
