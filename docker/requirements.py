"""Prints what to install beside this package: `python requirements.py EXTRA,EXTRA`.

Reads pyproject.toml of this folder, so that an image has a layer of packages that a
change of the code leaves as it is. Writes constraints.txt, the versions that
requirements_lock.txt pins; pip takes no constraint with an extra in it.
"""

import pathlib
import re
import sys
import tomllib


def requirements(project, extras):
    """The dependencies of a project, with those of some extras.

    Args:
        project: the table `project` of a pyproject.toml.
        extras: list of names.

    Returns:
        lines: list of requirements.

    Raises:
        ValueError: There is no such extra.
    """
    optional = project["optional-dependencies"]
    for extra in extras:
        if extra not in optional:
            raise ValueError(
                f"Received the extra {extra!r}; expected some of {sorted(optional)}, "
                f"with commas between. Correct the build argument EXTRAS."
            )
    chosen = [line for extra in extras for line in optional[extra]]
    return [*project["dependencies"], *chosen]


def constraints(lock):
    """The lines of a requirements file as constraints, without extras."""
    return re.sub(r"^([\w.-]+)\[[^]]*\]", r"\1", lock, flags=re.M)


if __name__ == "__main__":
    settings = tomllib.loads(pathlib.Path("pyproject.toml").read_text("utf-8"))
    lock = pathlib.Path("requirements_lock.txt").read_text("utf-8")
    try:
        lines = requirements(settings["project"], sys.argv[1].split(","))
    except ValueError as error:
        sys.exit(f"requirements.py: {error}")
    pathlib.Path("constraints.txt").write_text(constraints(lock), "utf-8")
    print(*lines, sep="\n")
