"""Which folder of the package imports which, as a diagram in Mermaid.

    python -m tests.import_graph                 # the folders, each on its floor
    python -m tests.import_graph gaussians       # the files of one folder

An arrow points to what is imported. Arrows that follow from others are left out; what
the files of a folder import from elsewhere, too.
"""

import ast
import sys

from tests.paths import ROOT

PACKAGE = ROOT / "tf_pseudofeat"


def folder_graph():
    """{folder: the folders that it imports}."""
    graph = {}
    for path in sorted(PACKAGE.glob("*/*.py")):
        folder = path.parent.name
        imported = {name.split(".")[1] for name in _imports(path)}
        graph.setdefault(folder, set()).update(imported - {folder})
    return graph


def file_graph(folder):
    """{file: the files of the same folder that it imports}, without `.py`."""
    paths = [p for p in sorted(PACKAGE.glob(f"{folder}/*.py")) if p.stem != "__init__"]
    inside = f"tf_pseudofeat.{folder}."
    return {
        path.stem: {
            name.removeprefix(inside)
            for name in _imports(path)
            if name.startswith(inside)
        }
        for path in paths
    }


def floors(graph):
    """{name: its floor}: 0 if it imports nothing, else one above all that it does."""
    found = {}

    def floor(name):
        if name not in found:
            found[name] = max((1 + floor(other) for other in graph[name]), default=0)
        return found[name]

    return {name: floor(name) for name in graph}


def mermaid(graph):
    """The graph as a flowchart."""
    lines, on_floor = ["flowchart TD"], floors(graph)
    for number in sorted(set(on_floor.values()), reverse=True):
        names = sorted(name for name in graph if on_floor[name] == number)
        lines += [f"  subgraph floor {number}", *(f"    {name}" for name in names)]
        lines.append("  end")
    for name, imported in graph.items():
        follows = set().union(*(_below(graph, other) for other in imported))
        lines += [f"  {name} --> {other}" for other in sorted(imported - follows)]
    return "\n".join(lines)


def _below(graph, name):
    """All that something imports, at once or through others."""
    return graph[name].union(*(_below(graph, other) for other in graph[name]))


def _imports(path):
    """The modules of the package that a file imports, be it inside a function."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = {n.module for n in nodes if isinstance(n, ast.ImportFrom)}
    return {name for name in names if name and name.startswith("tf_pseudofeat.")}


def main(arguments):
    """Prints a graph."""
    known = sorted(folder_graph())
    if len(arguments) > 1 or not {*arguments} <= {*known}:
        sys.exit(f"Name one of {known}, or none; received {arguments}.")
    print(mermaid(file_graph(*arguments) if arguments else folder_graph()))


if __name__ == "__main__":
    main(sys.argv[1:])
