"""Tables and texts: how they are read, one tiny run, and its tables."""

import io
import json
import tarfile

import numpy as np
import pytest
from imblearn.metrics import geometric_mean_score
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    log_loss,
    precision_score,
    roc_auc_score,
)

from examples.compare import Results
from examples.natural_sets import bundled_sets, read_reviews, read_table, split_of
from examples.naturally_imbalanced import (
    BLENDS,
    TAUS,
    Material,
    grid_scores,
    materials,
    run_split,
)
from examples.naturally_imbalanced_tables import (
    AS_TRAINED,
    Recipe,
    best_recipe,
    halves,
    read_sets,
    report,
)
from tests.few_steps import heads_train_briefly  # noqa: F401

pytestmark = pytest.mark.usefixtures("heads_train_briefly")

_FEW = [
    Material(500, "plain", "Gaussians"),
    Material(500, "dropout", "Gaussians"),
    Material(500, "noise 0.1", "none"),
    Material(None, "plain", "Gaussians"),
]
_KEEL = """@relation shells
@attribute sex {M, F}
@data
M, 0.5, 3, negative
F, ?, 4, positive
M, 1.5, 5, negative
"""


def test_a_keel_table(tmp_path):
    (tmp_path / "shells.dat").write_text(_KEEL)
    columns, labels = read_table(tmp_path / "shells.dat")
    assert columns[0].tolist() == ["M", "F", "M"]
    np.testing.assert_array_equal(columns[1], [0.5, np.nan, 1.5])
    assert columns[2].tolist() == [3.0, 4.0, 5.0]
    assert labels.tolist() == [0, 1, 0]


def test_a_csv_table(tmp_path):
    (tmp_path / "oil.csv").write_text("1,-2.5,'-1'\n2,4e1,'1'\n")
    columns, labels = read_table(tmp_path / "oil.csv")
    assert [column.tolist() for column in columns] == [[1.0, 2.0], [-2.5, 40.0]]
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("text", ["", "1,2\n1,2,3\n"])
def test_no_table(tmp_path, text):
    (tmp_path / "odd.csv").write_text(text)
    with pytest.raises(ValueError, match="differ in length"):
        read_table(tmp_path / "odd.csv")


def test_reviews(tmp_path):
    with tarfile.open(tmp_path / "reviews.tar.gz", "w:gz") as archive:
        for name in ("tokens/pos/1.txt", "tokens/neg/2.txt", "readme"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    texts, labels = read_reviews(tmp_path / "reviews.tar.gz")
    assert texts == ["tokens/pos/1.txt", "tokens/neg/2.txt"]
    assert labels.tolist() == [1, 0]


def test_a_split_is_standardized_by_what_it_trains_on():
    rng = np.random.default_rng(0)
    words = np.array(["a", "b"])[rng.integers(0, 2, 40)]
    columns = [rng.normal(3.0, 2.0, 40), words, np.ones(40)]
    columns[0][0] = np.nan
    split = split_of("set", columns, np.repeat([0, 1], [30, 10]), 0)
    assert split.inputs.shape == (28, 4) and split.test_inputs.shape == (12, 4)
    assert split.counts.tolist() == [21, 7]
    assert abs(split.inputs[:, 0].mean()) < 1e-6
    assert set(split.inputs[:, 1]) == {0.0, 1.0}
    assert np.isfinite(split.inputs).all() and not split.inputs[:, 3].any()


class _File:
    """Features that are their own logits."""

    def __init__(self, split, logits):
        self.split, self.test_features = split, logits
        self.head = [np.eye(logits.shape[1]), np.zeros(logits.shape[1])]


def test_scores_are_those_of_the_libraries():
    split = split_of("wine", *bundled_sets()["wine"], 0)
    labels, rng = split.test_labels, np.random.default_rng(0)
    logits = rng.normal(size=[labels.size, 3]) + np.eye(3)[labels]
    scores = grid_scores(_File(split, logits), np.eye(3), np.zeros(3), (0.5,), (0, 1))
    log_prior = np.log(split.counts / split.counts.sum())
    powers = np.exp(logits - log_prior)
    outputs = powers / powers.sum(axis=1, keepdims=True)
    predicted, rare = outputs.argmax(axis=1), np.argmin(split.counts)
    expected = {
        "balanced_accuracy": balanced_accuracy_score(labels, predicted),
        "geometric_mean": geometric_mean_score(labels, predicted),
        "macro_f1": f1_score(labels, predicted, average="macro"),
        "minority_precision": precision_score(
            labels == rare, predicted == rare, zero_division=0
        ),
        "log_loss": log_loss(labels, outputs) / 10,
    }
    for name, value in expected.items():
        assert scores[name][0][1] == pytest.approx(1e3 * value, abs=0.6)
    plain = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    area = roc_auc_score(labels == rare, plain[:, rare])
    assert scores["roc_auc"][0] == pytest.approx(1e3 * area, abs=0.6)


@pytest.mark.slow
def test_a_run_and_its_tables(tmp_path, monkeypatch):
    path, few = tmp_path / "results.jsonl", _FEW
    monkeypatch.setattr("examples.naturally_imbalanced.materials", lambda *_: few)
    split = split_of("wine", *bundled_sets()["wine"], 0)
    assert set(few) < set(materials(split, True, True))
    run_split(split, True, Results(path), passes=5)
    text = path.read_text()
    run_split(split, True, Results(path), passes=5)
    assert path.read_text() == text
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["arm"] for line in lines} == {
        *("as trained", "class weights"),
        *map(str, few),
    }
    path.write_text(text + text.replace('"wine"', '"other wine"'))
    sets = read_sets(path)
    choosing, confirming = halves(sets)["table, dropout"]
    assert (list(choosing), list(confirming)) == (["other wine"], ["wine"])
    arm = "500 a class, dropout, Gaussians"
    assert len([r for r in confirming["wine"] if r.arm == arm]) == len(BLENDS) * len(
        TAUS
    )
    # What is "all" of a small set is what "500 a class" is.
    whole = Recipe("all a class, plain, Gaussians", 0.2, 0.5)
    same = Recipe("500 a class, plain, Gaussians", 0.2, 0.5)
    assert confirming["wine"][whole] == confirming["wine"][same]
    best = best_recipe(choosing, arm)
    assert choosing["other wine"][best]["balanced_accuracy"] == max(
        scores["balanced_accuracy"]
        for recipe, scores in choosing["other wine"].items()
        if recipe.arm == arm
    )
    assert AS_TRAINED in confirming["wine"]
    text = report(sets, read_sets(path, splits=(0,)))
    assert "1 sets that confirm" in text and f"{best} (chosen)" in text
    assert "how many examples" in text and "| wine | confirms |" in text
