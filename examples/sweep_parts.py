"""What the programs share that measure the default at its edges."""

import json
import pathlib
import sys

from absl import app, flags

from .compare import Results
from .devices import leave_gpus_to_keras
from .figures import mean_and_error

__all__ = [
    "BLEND",
    "DEFAULT_ARM",
    "TAU",
    "define_flags",
    "define_image_flags",
    "differences",
    "lines_of_kind",
    "means",
    "rows_of",
    "run_program",
]

BLEND, TAU = 0.2, 0.5  # the default on views
DEFAULT_ARM = "500 a class, 1 view, Gaussians"


def rows_of(views):
    """What `train` looks at rows through, of views `[k, N, D]`."""
    return lambda rows: views[:, rows]


def lines_of_kind(path, kind):
    """Yields the lines of one kind of a file of results."""
    for text in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["kind"] == kind:
            yield line


def means(values):
    """Means over networks of scores `[networks, scores]`, as a cell."""
    return " / ".join(f"{value:.1f}" for value in values.mean(axis=0))


def differences(values, default):
    """Of accuracy and of geometric mean, mean ± standard error over networks."""
    for column in range(2):
        difference = (values - default)[:, column]
        yield "{:+.2f} ± {:.2f}".format(*mean_and_error(difference))


def define_flags():
    """The flags that each of the programs has."""
    flags.DEFINE_list("networks", None, "Folders of trained networks and features.")
    flags.DEFINE_integer("seeds", 1, "Heads, or draws of examples.", lower_bound=1)
    flags.DEFINE_string("results", "outputs/sweep/few.jsonl", "Lines go there.")
    flags.mark_flag_as_required("networks")


def define_image_flags():
    """The flags of a program that looks at images."""
    flags.DEFINE_string("dataset", "cifar10", "The image set they were trained on.")
    flags.DEFINE_string("data_dir", None, "Where TFDS sets are prepared.")


def run_program(argv, measure, tables):
    """Measures every network, and prints the tables.

    Args:
        argv: of the program.
        measure: function of the folder of a network, the seeds and `Results`.
        tables: function of the file of results, to Markdown.
    """
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    leave_gpus_to_keras()
    results = Results(flags.FLAGS.results)
    try:
        for folder in map(pathlib.Path, flags.FLAGS.networks):
            measure(folder, range(flags.FLAGS.seeds), results)
            print(folder.name, flush=True)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{pathlib.Path(argv[0]).name}: {error}")
    print(f"Wrote {results.path}.\n")
    print(tables(results.path))
