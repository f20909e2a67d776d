"""Progress bars as Keras draws them, each under its title."""

import keras

__all__ = ["progress_bar", "say"]


def progress_bar(total, unit, verbose, **options):
    """A `keras.utils.Progbar`.

    Args:
        total: steps to come, None where nobody knows.
        unit: what one is called.
        verbose: as for `fit`: 0 for silence, "auto" or 1 for a bar, 2 for one line.
        **options: of `Progbar`.
    """
    kind = 1 if verbose == "auto" else int(verbose)
    return keras.utils.Progbar(total, verbose=kind, unit_name=unit, **options)


def say(text, verbose):
    """Prints a line, unless `verbose` is 0; see above."""
    if verbose:
        print(text)
