"""Tests for sweep_few, sweep_judge and sweep_number_of_views, on one network."""

import dataclasses
import json

import numpy as np
import pytest

import tf_pseudofeat as tfpf
from examples.compare import Results
from examples.data import load_images
from examples.sweep import Material, chosen_rows
from examples.sweep_few import few_tables, sweep_few
from examples.sweep_judge import judge_table, sweep_network
from examples.sweep_number_of_views import sweep_number_of_views, views_table
from examples.trunks import FeatureFile, Recipe, network_features
from tests.few_steps import heads_train_briefly  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("heads_train_briefly")]

_RECIPE = Recipe("digits", depth=8, epochs=1)


@pytest.fixture(scope="module")
def images():
    return load_images("digits")


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    trunks = tmp_path_factory.mktemp("trunks")
    network_features(_RECIPE, images, trunks, views=2)
    return trunks / str(_RECIPE)


@pytest.fixture(scope="module")
def file(folder):
    return FeatureFile.read(folder / "features.npz")


def lines_of(results):
    return [json.loads(line) for line in results.path.read_text().splitlines()]


def row_of(table, start):
    (row,) = (row for row in table.splitlines() if row.startswith(f"| {start} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_each_number_of_views_is_a_line_and_a_row(folder, images, tmp_path):
    results = Results(tmp_path / "few.jsonl")
    materials = [
        Material(500, "1 view", "Gaussians"),
        Material(20, "4 views", "Gaussians"),
    ]
    for _ in range(2):  # the second finds all there
        sweep_number_of_views(folder, images, [0], results, materials)
    lines = lines_of(results)
    assert [line["arm"] for line in lines] == ["as trained", *map(str, materials)]
    table = views_table(results.path, confirm=["seed0"])
    row = row_of(table, "20 a class, 4 views")
    assert row[1] == f"{lines[2]['forward_passes']:,}"
    place = lines[2]["blends"].index(0.2), lines[2]["taus"].index(0.5)
    score = lines[2]["accuracy"][place[0]][place[1]] / 100
    assert row[2] == "" and row[3].startswith(f"{score:.1f} / ")


def test_fewer_images_are_among_more(file):
    rows = chosen_rows(file, 5, 0)
    assert (np.bincount(file.labels[rows]) == 5).all()
    assert set(rows) < set(chosen_rows(file, 7, 0))
    assert len(chosen_rows(file, None, 0)) == len(file.labels)


def test_a_class_of_a_few_examples(file, tmp_path):
    results = Results(tmp_path / "few.jsonl")

    def views():
        return np.stack([file.features, file.view_features[0]])

    sweep_few(file, "network", views, 1, results, left=(1, 8))
    lines = {(line["method"], line["left"]): line for line in lines_of(results)}
    assert "has 1 example" in lines["own covariance", 1]["refused"]
    assert "n_neighbors" in lines["SMOTE", 1]["refused"]
    for arm in ("2 views, own covariance", "tied covariance", "copies", "as trained"):
        assert "scores" in lines[arm, 1]
    class_id = file.minority[1]
    assert {line["class"] for line in lines.values()} == {class_id}

    adjusted = lines["logit adjustment, tau 1", 8]["scores"]
    for prior, count in (("what is left", 8), ("what the network saw", None)):
        counts = np.bincount(file.labels)
        counts[class_id] = count or counts[class_id]
        logits = file.test_features @ file.kernel + file.bias - np.log(counts)
        recalls = tfpf.class_recalls(file.test_labels, logits.argmax(axis=-1), 10)
        assert adjusted[prior]["recall"] == pytest.approx(recalls[class_id], abs=1e-4)

    scores, gains = few_tables(results.path, "what is left").split("\n\n|")[1:]
    row = row_of("|" + scores, "own covariance")
    assert row[1] == "refused" and row[2].count(" / ") == 2
    row = row_of("|" + gains, "copies")
    assert row[1].startswith("+0.0 ± nan / +0.0")


def test_the_default_with_a_few_examples_is_that_of_the_package(file, tmp_path):
    results = Results(tmp_path / "few.jsonl")
    sweep_few(file, "n", lambda: file.view_features, 0, results, left=(4,))
    (line,) = (line for line in lines_of(results) if line["method"] == "own covariance")
    rows = chosen_rows(file, 500, 0)
    members = rows[file.labels[rows] == line["class"]]
    members = np.random.default_rng([0, 4]).permutation(members)
    kept = np.setdiff1d(rows, members[4:])
    totals = np.bincount(file.labels)
    totals[line["class"]] = 4
    head, recipe = file.head(), tfpf.HeadRecipe()
    data = tfpf.LabeledFeatures(file.view_features[0, kept], file.labels[kept])
    material = tfpf.prepare_material(data, recipe, 10, totals=totals, viewed=True)
    task = tfpf.Task(head, 10, "sparse_categorical_crossentropy")
    tfpf.fit_head(task, material, recipe, seed=(0, 1), verbose=0)
    predicted = head.predict(file.test_features, verbose=0).argmax(axis=-1)
    accuracy = tfpf.accuracy(file.test_labels, predicted)
    assert line["scores"]["what is left"]["accuracy"] == pytest.approx(
        accuracy, abs=2e-3
    )


def test_a_view_judges_the_head_of_another(folder, file, tmp_path):
    results = Results(tmp_path / "few.jsonl")
    for _ in range(2):  # the second finds all there
        sweep_network(folder, [0], results)
    (line,) = lines_of(results)
    assert line["network"] == folder.name
    for judge in line["judges"].values():
        best = np.max(judge["balanced_accuracy"])
        i, j = np.unravel_index(np.argmax(judge["balanced_accuracy"]), (7, 8))
        error = judge["standard_error"][i][j]
        assert 0 < error < best <= 10_000
    # Of the head as it was the recalls are known without any training.
    logits = file.view_features[1] @ file.kernel + file.bias
    recalls = tfpf.class_recalls(file.labels, logits.argmax(axis=-1), 10)
    judge = line["judges"]["all training images"]
    assert judge["balanced_accuracy"][-1][0] == pytest.approx(
        1e4 * recalls.mean(), abs=1
    )
    table = judge_table(results.path)
    assert row_of(table, "default: blend 0.2, tau 0.5")[-1] == "0 of 1"


def test_a_file_without_two_views_is_no_judge(folder, tmp_path):
    file = FeatureFile.read(folder / "features.npz")
    (tmp_path / "one").mkdir()
    one = dataclasses.replace(file, view_features=file.view_features[:1])
    one.write(tmp_path / "one/features.npz")
    results = Results(tmp_path / "few.jsonl")
    with pytest.raises(ValueError, match="no two views"):
        sweep_network(tmp_path / "one", [0], results)
