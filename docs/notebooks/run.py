"""Runs the notebooks of this folder, and keeps in them what they print.

    pip install -e ".[test]"
    python docs/notebooks/run.py

The notebooks are written by hand, and this writes the rest: outputs, metadata that do
not change from run to run, and a digest of the code that ran, so that a test sees where
the code is newer than its outputs. All run in one kernel, one after the other and each
in an empty namespace, as to import TensorFlow takes as long as to run one of them.

"Open in Colab" leads to a file in a repository on GitHub. Its address has one place,
`Source` in `pyproject.toml`; while there is none, or it is not on GitHub, the notebooks
have no such badge. `tests/repository/notebooks_test.py` says when this has to be run
again.
"""

import hashlib
import pathlib
import tempfile
import tomllib

import nbformat
from nbclient import NotebookClient

__all__ = ["badge", "clean", "digest", "execute", "files", "source", "with_badge"]

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
_PICTURE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
)
_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
_SECONDS = 300  # for a cell


def files():
    """The notebooks, in the order of their names."""
    return sorted(HERE.glob("*.ipynb"))


def source():
    """The address of the repository, or None."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return project["urls"].get("Source")


def badge(source, name):
    """The line that opens a notebook in Colab, or None where it cannot.

    Args:
        source: address of the repository, or None.
        name: file name of the notebook.
    """
    host, _, repository = (source or "").rstrip("/").partition("github.com/")
    if host != "https://":
        return None
    path = f"{repository.removesuffix('.git')}/blob/main/docs/notebooks/{name}"
    return f"{_PICTURE}(https://colab.research.google.com/github/{path})"


def with_badge(text, line):
    """The first cell, a title and an introduction, with this badge or without one."""
    title, *rest = [part for part in text.split("\n\n") if part[:3] != _PICTURE[:3]]
    return "\n\n".join([title, *filter(None, [line]), *rest])


def digest(notebook):
    """Of the code of a notebook."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def execute(notebooks, folder):
    """Runs notebooks in one kernel, each from an empty namespace, in place.

    Args:
        notebooks: of nbformat 4.
        folder: where they run.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell fails.
    """
    together = nbformat.v4.new_notebook(metadata={"kernelspec": _KERNEL})
    for notebook in notebooks:
        together.cells += [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]
    client = NotebookClient(
        together,
        timeout=_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()


def clean(notebook, line):
    """Sets all that is not written by hand, in place.

    Of the outputs it leaves out what the page does not show, the plain text of a table
    in HTML, and stderr, which says where on this machine something was warned of.

    Args:
        notebook: one that ran.
        line: its badge, or None.
    """
    cells = notebook.cells
    cells[0].source = with_badge(cells[0].source, line)
    for number, cell in enumerate(cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    code = [cell for cell in cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        cell.execution_count = number
        cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
            if "text/html" in output.get("data", {}):
                output.data.pop("text/plain", None)
    notebook.metadata = {
        "kernelspec": _KERNEL,
        "language_info": {"name": "python"},
        "ran": digest(notebook),
    }


def main():
    """Runs all notebooks, and writes them."""
    notebooks = {path: nbformat.read(path, as_version=4) for path in files()}
    with tempfile.TemporaryDirectory() as folder:
        execute(notebooks.values(), folder)
    for path, notebook in notebooks.items():
        clean(notebook, badge(source(), path.name))
        nbformat.write(notebook, path)
        print(f"Wrote {path.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
