"""What `pip install` brings: wheel, sdist and commands; and the page on PyPI."""

import importlib
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

from examples import commands
from tests.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
README = (ROOT / "README.md").read_text("utf-8")
SOURCE = "https://repository.example/tf-pseudofeat"

BUILD = """
import sys
from setuptools import build_meta
dist = sys.argv[1]  # a build changes sys.argv
build_meta.build_sdist(dist)
build_meta.build_wheel(dist)
"""


@pytest.fixture(scope="module")
def tracked():
    """The files that git tracks."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not in a git checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [file for file in listed.split("\0") if file and (ROOT / file).exists()]


@pytest.fixture(scope="module")
def built(tracked, tmp_path_factory):
    """(sdist, wheel), built from the files that git tracks."""
    pytest.importorskip("setuptools", minversion="77")
    checkout = tmp_path_factory.mktemp("checkout")
    dist = tmp_path_factory.mktemp("dist")
    for file in tracked:
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, checkout / file)
    command = [sys.executable, "-c", BUILD, str(dist)]
    subprocess.run(command, check=True, capture_output=True, cwd=checkout)
    return next(dist.glob("*.tar.gz")), next(dist.glob("*.whl"))


def test_the_sdist_has_every_file_so_that_it_can_be_tested(built, tracked):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    missing = sorted(set(tracked) - names)
    assert not missing, f"MANIFEST.in lacks: {missing}"


def test_the_wheel_has_the_package_and_the_commands(built, tracked):
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    own = {file for file in tracked if re.match(r"tf_pseudofeat/.*\.(py|typed)$", file)}
    examples = {f for f in tracked if re.fullmatch(r"examples/[^/]*\.(py|html)", f)}
    assert names == own | {f"tf_pseudofeat_{file}" for file in examples}
    assert "tf_pseudofeat/py.typed" in names
    assert "tf_pseudofeat_examples/serve_page.html" in names


def test_the_commands_run_modules_of_the_examples(monkeypatch):
    ran = []
    monkeypatch.setattr(runpy, "run_module", lambda name, **_: ran.append(name))
    for script, entry in PROJECT["scripts"].items():
        module, _, function = entry.partition(":")
        assert module == "tf_pseudofeat_examples.commands"
        assert script == f"tf-pseudofeat-{function.replace('_', '-')}"
        getattr(commands, function)()
        assert ran[-1] == f"examples.{function}"
        assert importlib.util.find_spec(ran[-1]) is not None


def test_a_command_has_the_flags_of_its_module():
    code = "from examples import commands; commands.serving_client()"
    command = [sys.executable, "-c", code, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "--model:" in done.stdout, done.stderr


def test_a_command_names_the_extra_that_is_missing(monkeypatch):
    def run_module(name, **_):
        raise ModuleNotFoundError("No module named 'aiohttp'", name="aiohttp")

    monkeypatch.setattr(runpy, "run_module", run_module)
    with pytest.raises(SystemExit, match=r"'aiohttp'. .* 'tf-pseudofeat\[serving\]'"):
        commands.serve()


def page(source=None):
    setup = runpy.run_path(str(ROOT / "setup.py"))
    return setup["page"](README, PROJECT["scripts"], source)


@pytest.mark.parametrize("source", [None, SOURCE])
def test_no_command_on_pypi_needs_a_checkout(source):
    text = page(source)
    assert 'pip install "tf-pseudofeat[examples]"\ntf-pseudofeat-resnet56\n' in text
    assert "<!--" not in text
    for part in ("pip install -e", "python -m pytest", "python -m examples"):
        assert part not in text
    assert not re.search(r"python -m (?:tests|benchmarks)", text, re.M)
    modules = re.findall(r"python -m tf_pseudofeat_(examples\.\w+)", text)
    assert modules
    assert all(importlib.util.find_spec(module) for module in modules)


def links(text):
    """The targets of its links and pictures."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return re.findall(r"\]\(([^)\s]+)\)", prose)


def test_links_on_pypi_are_absolute():
    assert all(re.match(r"https://|#", link) for link in links(page()))
    assert "![" not in page()
    text = page(SOURCE)
    assert all(re.match(r"https://|#", link) for link in links(text))
    assert "![Four scores" in text
    to_files = [link for link in links(text) if link.startswith(SOURCE)]
    assert len(to_files) > 10
    for link in to_files:
        path = link.removeprefix(SOURCE).split("/", 3)[3].partition("#")[0]
        assert (ROOT / path).exists(), link


def test_links_within_the_page_lead_to_a_heading():
    headings = re.findall(r"^#+ (.*)$", page(), re.M)
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert {link[1:] for link in links(page()) if link[0] == "#"} <= anchors
