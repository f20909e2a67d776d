"""The commands of a `pip install`, such as `tf-pseudofeat-resnet56`.

Each runs a module of this folder as `python -m` does, with the same flags and `--help`.
"""

import functools
import runpy
import sys


def run(module, extras):
    """Runs a module of this folder as a program.

    Args:
        module: its name.
        extras: the extras of `pip install` with what it imports, to name them where
            something is missing.
    """
    try:
        runpy.run_module(f"{__package__}.{module}", run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:
        sys.exit(f"{error}. Install it: pip install 'tf-pseudofeat[{extras}]'")


beam_extract = functools.partial(run, "beam_extract", "beam,examples")
compare = functools.partial(run, "compare", "examples")
resnet56 = functools.partial(run, "resnet56", "examples")
retrain_from_shards = functools.partial(run, "retrain_from_shards", "examples")
serve = functools.partial(run, "serve", "serving")
serving_client = functools.partial(run, "serving_client", "serving")
