"""`BUILD` is the floor table: here it is held against what the files import."""

import ast
import functools
import graphlib
import pathlib
import re
import runpy
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("tf_pseudofeat", "tests", "examples", "benchmarks")
RULES = ("py_binary", "py_library", "py_test")

# Distributions that are not called what they are imported as.
DISTRIBUTIONS = {
    "absl": "absl_py",
    "google": "protobuf",
    "grpc": "grpcio",
    "imblearn": "imbalanced_learn",
    "PIL": "pillow",
    "sklearn": "scikit_learn",
    "tensorflow_serving": "tensorflow_serving_api",
}
# What a distribution imports but does not require, so whoever imports it must.
UNDECLARED = {
    "tensorflow_datasets": "importlib_resources",
    "tensorflow_probability": "tf_keras",
}


def read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def modules() -> list[str]:
    """Every Python file of the project's folders, as BUILD writes it."""
    paths = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def targets_of(build: str) -> dict[str, dict]:
    """{name: attributes} of the py_* targets; those of the package get a "floor"."""
    floors = {
        number: int(line.removeprefix("# Floor "))
        for number, line in enumerate(build.splitlines(), start=1)
        if re.fullmatch(r"# Floor \d+", line)
    }
    found = {}
    for call in (
        getattr(statement, "value", None) for statement in ast.parse(build).body
    ):
        if not isinstance(call, ast.Call) or call.func.id not in RULES:
            continue
        target = {k.arg: _literal(k.value) for k in call.keywords}
        assert target["name"] not in found, f"BUILD has two targets {target['name']}"
        found[target["name"]] = target | {"deps": target.get("deps", [])}
        target = found[target["name"]]
        target["rule"] = call.func.id
        if target["srcs"][0].startswith("tf_pseudofeat/"):
            above = [number for number in floors if number < call.lineno]
            assert above, f"BUILD: {target['name']} stands below no '# Floor' line"
            target["floor"] = floors[above[-1]]
    return found


def _literal(node: ast.expr):
    """An attribute's value; what Bazel has to work out is an empty list here."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return []


def imports_of(code: str, folder: str = "") -> set[str]:
    """The dotted names that some code imports, be it inside a function.

    `from a import b` gives "a.b"; whether b is a module is for `label_of` to say.
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


def label_of(name: str, owners: dict[str, str]) -> str | None:
    """The label of a dotted name; None for the standard library."""
    top, *rest = name.split(".")
    if top in sys.stdlib_module_names:
        return None
    if top not in FOLDERS:
        return f"@pypi//{DISTRIBUTIONS.get(top, top)}"
    of_index = not rest or name in _names_of_index(top)
    file = f"{top}/__init__.py" if of_index else f"{top}/{rest[0]}.py"
    if not (ROOT / file).exists():
        raise ValueError(f"import of {name}: there is no {file}")
    return f":{owners.get(file, file)}"


@functools.cache
def _names_of_index(package: str) -> set[str]:
    """What `__init__` takes in: there, a function hides a module of its name."""
    index = f"{package}/__init__.py"
    return {
        f"{package}.{alias.asname or alias.name}"
        for node in ast.parse(read(index) if (ROOT / index).exists() else "").body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def wanted_deps(target: dict, owners: dict[str, str]) -> set[str]:
    """The deps a target should have: what its code imports, and nothing else."""
    names = set()
    for file in target["srcs"]:
        names |= imports_of(read(file), file.split("/")[0])
    for file in target.get("data", []):
        if file.endswith(".md"):  # the test runs its Python blocks
            blocks = re.findall(r"^```python\n(.*?)^```", read(file), re.M | re.S)
            names = names.union(*map(imports_of, blocks))
    if target["rule"] == "py_test":
        names.add("pytest")
    tops = {name.partition(".")[0] for name in names}
    names |= {UNDECLARED[top] for top in tops & UNDECLARED.keys()}
    return {label_of(name, owners) for name in names} - {None, f":{target['name']}"}


TARGETS = targets_of(read("BUILD"))
OWNERS = {file: name for name, target in TARGETS.items() for file in target["srcs"]}
PACKAGE = {name: target for name, target in TARGETS.items() if "floor" in target}


def packages_of(targets: dict[str, dict]) -> set[str]:
    labels = {label for target in targets.values() for label in target["deps"]}
    return {label.removeprefix("@pypi//") for label in labels if label[0] == "@"}


def normal(requirement: str) -> str:
    """`TF-Keras>=2.20` as a label has it: `tf_keras`."""
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("-", "_")


def test_every_file_belongs_to_exactly_one_target():
    listed = [file for target in TARGETS.values() for file in target["srcs"]]
    twice = sorted({file for file in listed if listed.count(file) > 1})
    missing = sorted(set(modules()) - set(listed))
    gone = sorted(set(listed) - set(modules()))
    assert not twice, f"BUILD: in the srcs of more than one target: {twice}"
    assert not missing, f"BUILD: in the srcs of no target: {missing}"
    assert not gone, f"BUILD: in srcs, and there is no such file: {gone}"


@pytest.mark.parametrize("name", TARGETS)
def test_deps_are_the_direct_imports(name):
    wanted, listed = wanted_deps(TARGETS[name], OWNERS), TARGETS[name]["deps"]
    missing, unused = sorted(wanted - set(listed)), sorted(set(listed) - wanted)
    assert not missing, f"BUILD: {name} imports, and its deps lack: {missing}"
    assert not unused, f"BUILD: {name} does not import, and its deps have: {unused}"
    assert len(listed) == len(wanted), f"BUILD: {name} has a dep twice: {listed}"


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_is_built_the_way_it_is_run(name):
    target = TARGETS[name]
    (file,) = target["srcs"]
    if file.endswith("_test.py"):
        assert target["rule"] == "py_test", f"BUILD: {name} must be a py_test"
        # Run as a script, a file of tests passes without running one.
        runner = target.get("main_module"), target.get("args")
        assert runner == ("pytest", [file]), f"BUILD: {name} must run pytest on {file}"
    elif 'if __name__ == "__main__":' in read(file):
        assert target["rule"] == "py_binary", f"BUILD: {name} must be a py_binary"
        if file.startswith("examples/"):  # `from .` needs a module, not a script
            main = "main_module", file[:-3].replace("/", ".")
        else:
            main = "main", file
        assert target.get(main[0]) == main[1], f"BUILD: {name} needs {main}"
    else:
        assert target["rule"] == "py_library", f"BUILD: {name} must be a py_library"


@pytest.mark.parametrize("name", PACKAGE)
def test_imports_of_the_package_point_strictly_down(name):
    floor = PACKAGE[name]["floor"]
    for below in sorted(wanted_deps(PACKAGE[name], OWNERS)):
        if below[0] == ":":
            assert below[1:] in PACKAGE, f"{name} imports {below}: not in the package"
            stands_on = PACKAGE[below[1:]]["floor"]
            assert stands_on < floor, (
                f"BUILD: {name}, on floor {floor}, imports {below}, on floor "
                f"{stands_on}: move what both need to a floor below them"
            )


def test_there_is_no_circle():
    graph = {
        name: {label[1:] for label in wanted_deps(target, OWNERS) if label[0] == ":"}
        for name, target in TARGETS.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"these import each other: {' <- '.join(error.args[1])}")


def test_every_package_is_pinned():
    pinned = {
        normal(line)
        for line in read("requirements_lock.txt").splitlines()
        if not line.startswith("#")
    }
    missing = sorted(packages_of(TARGETS) - pinned)
    assert not missing, f"requirements_lock.txt lacks: {missing}"


def requirements():
    """What `pyproject.toml` requires: always, and by the name of an extra."""
    project = tomllib.loads(read("pyproject.toml"))["project"]
    extras = project["optional-dependencies"]
    own, *more = extras["test"]  # tf-pseudofeat[beam,examples,...]
    of_extras = re.fullmatch(r"tf-pseudofeat\[(.*)\]", own)[1].split(",")
    extras["test"] = sum((extras[name] for name in of_extras), more)
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
    installed = {
        "tf_pseudofeat": set().union(*extras.values()),
        "examples": set().union(
            *(more for name, more in extras.items() if name != "test")
        ),
        "tests": extras["test"],
        "benchmarks": extras["test"],
    }
    for name, target in TARGETS.items():
        used = packages_of({name: target})
        missing = sorted(used - installed[target["srcs"][0].split("/")[0]])
        assert not missing, f"{name} imports, and nothing requires: {missing}"
    for name, target in PACKAGE.items():  # an extra is for imports inside functions
        body = ast.parse(read(target["srcs"][0])).body
        at_once = [n for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = imports_of("\n".join(map(ast.unparse, at_once)))
        labels = {label_of(imported, OWNERS) for imported in names} - {None}
        missing = sorted(packages_of({name: {"deps": labels}}) - always)
        assert not missing, f"`dependencies` lack, for {name}: {missing}"


def test_the_version_is_the_same_everywhere():
    version = runpy.run_path(str(ROOT / "tf_pseudofeat/version.py"))["__version__"]
    (bazel,) = re.findall(r'^    version = "(.*)",$', read("MODULE.bazel"), re.M)
    assert bazel == version, f"MODULE.bazel has {bazel}, version.py has {version}"
    (cited,) = re.findall(r"^version: (.*)$", read("CITATION.cff"), re.M)
    assert cited == version, f"CITATION.cff has {cited}, version.py has {version}"
