"""Models of a table: the client and the paths of REST, against the server's process."""

import json
import re

import numpy as np
import pytest

from examples.predict_clients import client_of
from examples.serving_client import ranked
from examples.table_rows import check_rows, read_rows
from tests import programs
from tests.server_process import running_server
from tests.tabular_models import NAMES, ROWS, columns, export_columns, export_matrix

FEW = ROWS[:40]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The folder of exports, and {name: what each version says of `FEW`} of Keras."""
    folder = tmp_path_factory.mktemp("models")
    matrix = export_matrix(folder / "matrix", seeds=(0, 1))
    by_name = export_columns(folder / "columns")
    inputs = columns(slice(len(FEW)))
    expected = {
        "matrix": [model.predict(FEW, verbose=0) for model in matrix],
        "columns": [by_name.predict(inputs, verbose=0)],
    }
    return folder, expected


@pytest.fixture(scope="module")
def server(models):
    folder, expected = models
    served = {name: folder / name for name in expected}
    with running_server(folder / "log", served) as server:
        yield server


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """{(model, kind): file of `FEW`}."""
    folder = tmp_path_factory.mktemp("tables")
    files = {
        (model, kind): folder / f"{model}.{kind}"
        for model in ("matrix", "columns")
        for kind in ("csv", "json")
    }
    header = ",".join(f"feature {number}" for number in range(30))
    write_csv(files["matrix", "csv"], FEW, header)
    files["matrix", "json"].write_text(json.dumps(FEW.tolist()))
    # The names tell which column is which: the order is another one here.
    inputs = dict(reversed(columns(slice(len(FEW))).items()))
    matrix = np.concatenate(list(inputs.values()), axis=1)
    write_csv(files["columns", "csv"], matrix, ",".join(inputs))
    rows = [dict(zip(inputs, row, strict=True)) for row in matrix.tolist()]
    files["columns", "json"].write_text(json.dumps(rows))
    return files


def write_csv(path, rows, header=""):
    np.savetxt(path, rows, delimiter=",", fmt="%.9g", header=header, comments="")


def addresses(server):
    return f"http://{server.http}", f"grpc://{server.grpc}"


@pytest.mark.parametrize("kind", ["csv", "json"])
@pytest.mark.parametrize("model", ["matrix", "columns"])
def test_rest_and_grpc_give_what_keras_gives(server, models, tables, model, kind):
    table = read_rows(tables[model, kind])
    for address in addresses(server):
        client = client_of(address)
        for version, expected in enumerate(models[1][model], start=1):
            inputs = client.inputs(model, version)
            rows = check_rows(table, inputs, "table")
            answers = client.predict_rows(model, rows, version)
            found = [answer["probabilities"] for answer in answers]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
            best = [NAMES[k] for k in expected.argmax(axis=1)]
            assert [ranked(answer)[0][0] for answer in answers] == best


def test_rest_and_grpc_describe_the_inputs_alike(server):
    for model, described in (
        ("matrix", {"features": "float32 [B, 30]"}),
        ("columns", dict.fromkeys(columns(), "float32 [B, 1]")),
    ):
        for address in addresses(server):
            inputs = client_of(address).inputs(model)
            assert {name: str(one) for name, one in inputs.items()} == described


def run(server, *arguments, which=0):
    """The client as a program."""
    flags = f"--server={addresses(server)[which]}", *arguments
    return programs.run("examples.serving_client", *flags)


@pytest.mark.parametrize("which", [0, 1])
def test_the_program_prints_both_versions_of_each_row(server, models, tables, which):
    flags = ["--model=matrix", "--versions=1,2", "--repeat=20"]
    done = run(server, *flags, tables["matrix", "csv"], which=which)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("20 requests, 0 failed")
    versions = models[1]["matrix"]
    for number in range(len(FEW)):
        title, head, first, second = lines[4 * number : 4 * number + 4]
        tops = [version[number].argmax() for version in versions]
        path = tables["matrix", "csv"]
        differ = "   <- they differ" if tops[0] != tops[1] else ""
        assert title == f"{path}, row {number + 1}{differ}"
        assert head.split() == ["version", "1", "version", "2"]
        for line, rank in ((first, -1), (second, -2)):
            best = [np.argsort(version[number])[rank] for version in versions]
            words = zip(best, versions, strict=True)
            assert line.split() == [
                text for k, v in words for text in (NAMES[k], f"{v[number][k]:.3f}")
            ]


@pytest.mark.parametrize(
    ("model", "text", "words"),
    [
        ("matrix", "1,2,3\n", "row 1: received 3 values; expected 30, as input 'featu"),
        ("matrix", ",".join(["1"] * 29 + ["x"]), "received 'x'; expected a finite num"),
        ("matrix", ",".join(["1"] * 29 + ["nan"]), "received 'nan'; expected a finite"),
        ("matrix", ",".join(["1"] * 29 + ["-inf"]), "received '-inf'; expected a fini"),
        (
            "columns",
            "1,2,3\n",
            "expected a value for each of the inputs ['mean_radius'",
        ),
        ("columns", "mean_radius,worst_area\n1,2\n", "add ['mean_texture']."),
        ("nobody", "1,2\n", "No model 'nobody'"),
    ],
)
def test_the_program_says_what_is_wrong(server, tmp_path, model, text, words):
    (tmp_path / "a.csv").write_text(text)
    done = run(server, f"--model={model}", tmp_path / "a.csv")
    assert done.returncode == 1
    assert words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    client = client_of(addresses(server)[1])
    with pytest.raises((RuntimeError, ValueError), match=re.escape(words)):
        rows = read_rows(tmp_path / "a.csv")
        client.predict_rows(model, check_rows(rows, client.inputs(model), "a.csv"))


def test_images_and_tables_are_asked_apart(server, tables, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    done = run(server, "--model=matrix", tables["matrix", "csv"], tmp_path / "a.png")
    assert done.returncode == 1 and "expected one kind" in done.stderr
    done = run(server, "--model=matrix", tmp_path / "a.png")
    assert done.returncode == 1 and "No signature 'encoded'" in done.stderr


ROW = [1.0] * 30


@pytest.mark.parametrize(
    ("model", "instance", "words"),
    [
        (
            "matrix",
            ROW[:29],
            "received float32 of shape [1, 29]; expected float32 of sh",
        ),
        ("matrix", [*ROW[:29], "x"], "Input 'features' is float32; received \"x\""),
        ("matrix", [*ROW[:29], None], "Input 'features' is float32; received null"),
        (
            "columns",
            {"mean_radius": [1]},
            "expected ['mean_radius', 'mean_texture', 'w",
        ),
        (
            "columns",
            ROW[:3],
            "Inputs without names, and the signature has 3: ['mean_ra",
        ),
    ],
)
def test_the_server_rejects_what_another_client_sends(server, model, instance, words):
    path = f"/v1/models/{model}:predict"
    status, answer = server.ask(path, {"instances": [instance]})
    assert status == 400 and words in answer["error"], answer
