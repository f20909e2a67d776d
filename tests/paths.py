"""Where the files are that tests read."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
