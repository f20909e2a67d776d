"""`BUILD`: evaluated here, and its deps held against what the folders import."""

import ast
import functools
import graphlib
import re
import runpy
import sys
import tomllib

import pytest

from tests import import_graph
from tests.paths import ROOT

FOLDERS = ("tf_pseudofeat", "tests", "examples", "benchmarks")

# Distributions that are not called what they are imported as.
DISTRIBUTIONS = {
    "absl": "absl_py",
    "google": "protobuf",
    "grpc": "grpcio",
    "imblearn": "imbalanced_learn",
    "PIL": "pillow",
    "sklearn": "scikit_learn",
    "tensorflow_serving": "tensorflow_serving_api",
    "yaml": "pyyaml",
}
# What a distribution imports but does not require, so whoever imports it must.
UNDECLARED = {
    "tensorflow_datasets": "importlib_resources",
    "tensorflow_probability": "tf_keras",
}
# What a slow test alone imports, and skips without.
UNREQUIRED = {"pyspark"}


def read(file):
    return (ROOT / file).read_text(encoding="utf-8")


def evaluated(package):
    """{label: attributes} of the targets of one BUILD file.

    The language of BUILD files is a subset of Python's, and so is run as Python.
    """
    targets = {}

    def rule(kind, name, **attributes):
        label = f"//{package}:{name}"
        assert label not in targets, f"two targets {label}"
        targets[label] = attributes | {"rule": kind, "deps": attributes.get("deps", [])}

    def matching(pattern):
        return folder.glob(f"{pattern}/*" if pattern.endswith("**") else pattern)

    def glob(patterns, exclude=(), allow_empty=False):
        found = {path for pattern in patterns for path in matching(pattern)}
        skipped = {path for pattern in exclude for path in matching(pattern)}
        files = sorted(path for path in found - skipped if path.is_file())
        assert files or allow_empty, f"//{package}: nothing matches {patterns}"
        return [path.relative_to(folder).as_posix() for path in files]

    folder = ROOT / package
    rules = ("filegroup", "py_binary", "py_library", "py_test", "test_suite")
    names = {kind: functools.partial(rule, kind) for kind in rules}
    names |= {"glob": glob, "load": lambda *_: None, "package": lambda **_: None}
    exec(compile(read(folder / "BUILD"), str(folder / "BUILD"), "exec"), names)
    return targets


def label_of(package, label):
    """`//a/b` and `:b` in full: `//a/b:b`."""
    if label.startswith(":"):
        return f"//{package}{label}"
    return (
        label if ":" in label or label[0] == "@" else f"{label}:{label.split('/')[-1]}"
    )


PACKAGES = sorted(
    path.parent.relative_to(ROOT).as_posix().removeprefix(".")
    for path in [
        ROOT / "BUILD",
        *(p for f in FOLDERS for p in ROOT.glob(f"{f}/**/BUILD")),
    ]
)
TARGETS = {
    label: target | {"package": package}
    for package in PACKAGES
    for label, target in evaluated(package).items()
}
ROOMS = [package for package in PACKAGES if package.startswith("tf_pseudofeat/")]
LIBRARIES = {p: f"//{p}:{p.split('/')[-1]}" for p in [*ROOMS, "examples", "benchmarks"]}
LIBRARIES |= {"": "//:tf_pseudofeat", "tests": "//tests:support"}


def files_of(package):
    """The Python files of a package of BUILD, those of the tests included."""
    folders = ["tf_pseudofeat/*.py"] if not package else [f"{package}/**/*.py"]
    return sorted(ROOT.glob(folders[0]))


def imports_of(code, folder=""):
    """The dotted modules that some code imports, be it inside a function.

    `examples` imports from itself by `from .`, as a wheel has it under another name.
    """
    found = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=module, names=names, level=0):
                found |= {f"{module}.{alias.name}" for alias in names}
            case ast.ImportFrom(module=module, names=names, level=1) if (
                folder == "examples"
            ):
                parent = f"{folder}.{module}" if module else folder
                found |= {f"{parent}.{alias.name}" for alias in names}
            case ast.ImportFrom(lineno=lineno):
                raise ValueError(f"line {lineno}: a relative import")
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "importorskip"),
                args=[ast.Constant(value=name), *_],
            ):
                found.add(name)
    return found


def owner(name):
    """The label of the library that a dotted name is of; None: standard library."""
    top, *rest = name.split(".")
    if top in sys.stdlib_module_names | UNREQUIRED:
        return None
    if top not in FOLDERS:
        return f"@pypi//{DISTRIBUTIONS.get(top, top)}"
    if top == "tf_pseudofeat":
        return LIBRARIES.get(f"{top}/{rest[0]}" if rest else "", LIBRARIES[""])
    return LIBRARIES[top]


def wanted(files):
    """The labels of all that some files import."""
    names = set()
    for file in files:
        names |= imports_of(file.read_text("utf-8"), file.relative_to(ROOT).parts[0])
    tops = {name.partition(".")[0] for name in names}
    names |= {UNDECLARED[top] for top in tops & UNDECLARED.keys()}
    return {owner(name) for name in names} - {None}


@pytest.mark.parametrize("package", LIBRARIES)
def test_deps_are_the_direct_imports(package):
    target = TARGETS[LIBRARIES[package]]
    listed = [label_of(package, label) for label in target["deps"]]
    expected = wanted(files_of(package)) - {LIBRARIES[package]}
    missing, unused = sorted(expected - {*listed}), sorted({*listed} - expected)
    assert not missing, f"{package}/BUILD: imports, and its deps lack: {missing}"
    assert not unused, f"{package}/BUILD: does not import, and deps have: {unused}"
    assert len(listed) == len(expected), f"{package}/BUILD: a dep twice: {listed}"


def test_every_label_is_a_target():
    for name, target in TARGETS.items():
        labels = [*target["deps"], *target.get("tests", []), *target.get("data", [])]
        for label in labels:
            if label[0] in ":/":
                full = label_of(target["package"], label)
                assert full in TARGETS, f"{name} names {full}: there is no such target"
            elif label[0] != "@":
                assert (ROOT / target["package"] / label).exists(), (name, label)


def test_every_file_belongs_to_one_library_or_is_a_test():
    owned = [
        f"{target['package']}/{file}".removeprefix("/")
        for target in TARGETS.values()
        for file in target.get("srcs", [])
        if target["rule"] in ("py_library", "py_test") and file.endswith(".py")
    ]
    files = sorted(
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    )
    assert sorted(owned) == files


def test_a_file_is_built_the_way_it_is_run():
    for label, target in TARGETS.items():
        if target["rule"] == "py_test":
            # Run as a script, a file of tests passes without running one.
            (file,) = target["srcs"]
            runner = target["main_module"], target["args"]
            assert runner == ("pytest", [f"tests/{file}"]), label
    for folder in ("examples", "benchmarks"):
        programs = {
            f"{folder}.{path.stem}"
            for path in (ROOT / folder).glob("*.py")
            if "__name__ == " in path.read_text("utf-8")
        }
        built = {
            target["main_module"]
            for target in TARGETS.values()
            if target["rule"] == "py_binary" and target["package"] == folder
        }
        assert built == programs, f"{folder}/BUILD"


# What may import what.


def circle_in(graph):
    """Names that import each other, in a loop; None where there is no loop."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " <- ".join(error.args[1])
    return None


def test_folders_import_folders_of_lower_floors_only():
    rows = re.findall(r"^\| (\d) \| `(\w+)` \|", read("CONTRIBUTING.md"), re.M)
    floors = {folder: int(floor) for floor, folder in rows}
    graph = import_graph.folder_graph()
    assert floors.keys() == graph.keys()
    assert sum(map(len, graph.values())) > 20  # the imports are understood
    for folder, imported in graph.items():
        upwards = {other for other in imported if floors[other] >= floors[folder]}
        assert not upwards, f"{folder} imports {upwards}, of no lower floor"


def test_the_import_graph_is_the_one_that_is_printed():
    drawn = import_graph.mermaid(import_graph.folder_graph())
    (shown,) = re.findall(r"```mermaid\n(.*?)\n```", read("CONTRIBUTING.md"), re.S)
    assert shown == drawn, "copy what `python -m tests.import_graph` prints"
    for folder in import_graph.folder_graph():
        files = import_graph.file_graph(folder)
        assert files and f"{min(files)}" in import_graph.mermaid(files)


def test_files_of_a_room_do_not_import_each_other_in_a_loop():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    graph = {}
    for name, path in modules.items():
        names = imports_of(path.read_text("utf-8"), name.split(".")[0])
        names |= {imported.rpartition(".")[0] for imported in names}
        graph[name] = names & modules.keys()
    assert sum(map(len, graph.values())) > 500  # the names are understood
    assert not circle_in(graph), f"these import each other: {circle_in(graph)}"


def test_the_package_imports_neither_examples_nor_tests():
    for room in ["", *ROOMS]:
        others = {"//examples:examples", "//benchmarks:benchmarks", "//tests:support"}
        assert not wanted(files_of(room)) & others, room


# What is installed.


def packages_of(labels):
    return {label.removeprefix("@pypi//") for label in labels if label[0] == "@"}


def normal(requirement):
    """`TF-Keras>=2.20` as a label has it: `tf_keras`."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("-", "_")


def test_every_package_is_pinned():
    pinned = {
        normal(line)
        for line in read("requirements_lock.txt").splitlines()
        if not line.startswith("#")
    }
    used = packages_of(label for target in TARGETS.values() for label in target["deps"])
    assert len(used) > 20
    assert not used - pinned, f"requirements_lock.txt lacks: {sorted(used - pinned)}"


def requirements():
    """What `pyproject.toml` requires: always, and by the name of an extra."""
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    for name in ("test", "test-slow"):
        own, *more = extras[name]  # tf-pseudofeat[beam,examples,...]
        of_extras = re.fullmatch(r"tf-pseudofeat\[(.*)\]", own)[1].split(",")
        extras[name] = sum((extras[other] for other in of_extras), more)
    return project["dependencies"], extras


def test_users_packages_have_a_lower_bound():
    always, extras = requirements()
    extras = [extras[name] for name in ("examples", "jax", "serving")]
    for requirement in sum(extras, always):
        assert ">=" in requirement, f"what is the oldest {requirement}?"


def test_what_is_imported_is_installed():
    always, extras = requirements()
    always = set(map(normal, always))
    extras = {name: always | set(map(normal, more)) for name, more in extras.items()}
    of_examples = ("beam", "examples", "jax", "keras-hub", "keras-tuner", "serving")
    installed = dict.fromkeys(PACKAGES, set().union(*extras.values()))
    installed["examples"] = set().union(*(extras[name] for name in of_examples))
    for package, label in LIBRARIES.items():
        missing = packages_of(TARGETS[label]["deps"]) - installed[package]
        assert not missing, f"{package} imports, and nothing requires: {missing}"


@pytest.mark.parametrize("room", [room for room in ROOMS if "engines" not in room])
def test_an_extra_is_for_imports_inside_functions(room):
    always = set(map(normal, requirements()[0]))
    for file in files_of(room):
        body = ast.parse(file.read_text("utf-8")).body
        at_once = [n for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = imports_of("\n".join(map(ast.unparse, at_once)))
        missing = packages_of({owner(name) for name in names} - {None}) - always
        assert not missing, f"`dependencies` lack, for {file}: {sorted(missing)}"


def test_the_version_is_the_same_everywhere():
    version = runpy.run_path(str(ROOT / "tf_pseudofeat/version.py"))["__version__"]
    (bazel,) = re.findall(r'^    version = "(.*)",$', read("MODULE.bazel"), re.M)
    assert bazel == version, f"MODULE.bazel has {bazel}, version.py has {version}"
    (cited,) = re.findall(r"^version: (.*)$", read("CITATION.cff"), re.M)
    assert cited == version, f"CITATION.cff has {cited}, version.py has {version}"
