"""Results files of `examples/compare.py`: lines of JSON."""

import json
import pathlib
import warnings

from .figures import SCORE_LABELS

__all__ = [
    "read_results",
]

_KEYS = {
    "result": ("experiment", "num_minority", "episode", "seed", "arm", *SCORE_LABELS),
    "picture": (
        *("experiment", "num_minority", "episode", "class_id"),
        *("real", "pseudo", "test"),
    ),
}


def read_results(*paths):
    """Reads results files, each line of which is a JSON object.

    Of lines for the same run the last one stands: an interrupted comparison repeats
    runs. A line that was torn when its writer was killed is skipped with a warning.

    Args:
        *paths: results files, read in this order.

    Returns:
        results: list of result dicts, one for each run of an arm.
        pictures: list of picture dicts, one for each trunk that has one.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a line lacks a key, or the files hold nothing.
    """
    results, pictures, skipped = {}, {}, 0
    for path in map(pathlib.Path, paths):
        if not path.is_file():
            raise FileNotFoundError(
                f"no results file {str(path)!r}; expected one that "
                "`python -m examples.compare` wrote."
            )
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            entry = _parsed(line)
            if entry is None:
                skipped += 1
                warnings.warn(f"{path}:{number}: skipped a torn line.", stacklevel=2)
                continue
            _check_entry(entry, f"{path}:{number}")
            run = (entry["experiment"], entry["num_minority"], entry["episode"])
            if entry["kind"] == "picture":
                pictures[run] = entry
            else:
                results[*run, entry["seed"], entry["arm"]] = entry
    if not results and not pictures:
        raise ValueError(
            f"{', '.join(map(str, paths)) or 'no file'}: holds no result "
            f"({skipped} torn lines); expected one JSON object a line, as "
            "`python -m examples.compare` writes them."
        )
    return list(results.values()), list(pictures.values())


def _parsed(line):
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _check_entry(entry, where):
    kind = entry.get("kind")
    if kind not in _KEYS:
        raise ValueError(
            f"{where}: kind is {kind!r}, expected one of {sorted(_KEYS)}; give files "
            "that `python -m examples.compare` wrote."
        )
    missing = [key for key in _KEYS[kind] if key not in entry]
    if missing:
        raise ValueError(
            f"{where}: a {kind} without {missing}, expected {list(_KEYS[kind])}; "
            "remove the line and run `python -m examples.compare` again."
        )
