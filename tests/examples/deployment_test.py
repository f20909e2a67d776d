"""The benchmark of deployment: its data, its scores, one short run, and its tables."""

import json
import re

import keras
import numpy as np
import pytest
from scipy import special, stats
from sklearn import metrics

import tf_pseudofeat as tfpf
from examples.compare import Results
from examples.deployment import HEADS, Resplit, resplit, run_resplit
from examples.deployment_scores import SCORES, logits_of, way_scores
from examples.deployment_tables import Runs, p_value, read_runs, report
from examples.natural_sets import Split, bundled_sets
from examples.naturally_imbalanced import network_of
from tests.few_steps import heads_train_briefly  # noqa: F401
from tf_pseudofeat.evaluation.choose_thresholds import predictions_of
from tf_pseudofeat.evaluation.comparison import score_predictions

pytestmark = pytest.mark.usefixtures("heads_train_briefly")

_SETS = ("a", "b", "c")


def _line(name, number, head, ways, **scores):
    place = {"kind": "table", "experiment": name, "episode": number, "arm": head}
    known = {"counts": [90, 10], "test_counts": [45, 5], "kept": False, "ways": ways}
    return place | known | scores


def _wine(number=0):
    return resplit("wine", *bundled_sets()["wine"], number)


@pytest.fixture(scope="module")
def wine():
    """A re-split, and a network that was not trained."""
    keras.utils.set_random_seed(0)
    data = _wine()
    return data, network_of(data.split, False)


def test_a_resplit_is_stratified_and_standardized_by_what_it_trains_on():
    labels = np.repeat([0, 1], [80, 20])
    columns = [np.arange(100.0), np.array(["x", "y"])[labels]]
    data = resplit("set", columns, labels, 1)
    assert isinstance(data, Resplit) and data.split.number == 1
    parts = (data.split.labels, data.labels, data.split.test_labels)
    assert [np.bincount(part).tolist() for part in parts] == [
        *([40, 10], [20, 5], [20, 5])
    ]
    inputs = data.split.inputs, data.inputs, data.split.test_inputs
    assert abs(inputs[0][:, 0].mean()) < 1e-6
    assert abs(inputs[0][:, 0].std() - 1) < 1e-5
    # Every row is somewhere once.
    assert np.unique(np.concatenate(inputs)[:, 0]).size == 100
    for each, part in zip(inputs, parts, strict=True):
        np.testing.assert_array_equal(each[:, 2], part)


def test_other_numbers_split_otherwise():
    first, same, other = (_wine(number).split.inputs for number in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_logits_are_those_behind_the_probabilities(wine):
    data, network = wine
    inputs = data.split.test_inputs
    for model in (network, tfpf.adjust_logits(network, data.split.counts)):
        logits = logits_of(model, inputs)
        outputs = model.predict(inputs, verbose=0)
        powers = np.exp(logits)
        softmax = powers / powers.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(outputs, softmax, rtol=1e-4, atol=1e-6)


def ranking(logits, labels, minority):
    """Average precision and ROC-AUC by each class's margin over the others."""
    margins = np.empty_like(logits)
    for place in range(logits.shape[1]):
        others = np.delete(logits, place, axis=1)
        margins[:, place] = logits[:, place] - special.logsumexp(others, axis=1)
    truth = np.eye(logits.shape[1])[labels]
    precisions = metrics.average_precision_score(truth, margins, average=None)
    return {
        "average_precision": precisions[minority].mean(),
        "roc_auc": metrics.roc_auc_score(truth, margins),
    }


def test_ranking_is_that_of_the_scores():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1, 2], [40, 30, 10]))
    logits = rng.normal(size=[80, 3]) + 2 * np.eye(3)[labels]
    expected = score_predictions(tfpf.Predictions(labels, logits, "linear"), [1, 2])
    for name, value in ranking(logits, labels, [1, 2]).items():
        assert value == pytest.approx(expected[name], abs=1e-12)


def test_ranking_of_two_classes_is_the_same_however_sure_the_network():
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], [60, 20]))
    logits = rng.normal(size=[80, 2]) + np.eye(2)[labels]
    expected = ranking(logits, labels, [1])
    for scale, bias in ((1e3, 0.0), (1.0, 200.0)):
        sure = scale * logits + [0.0, bias]
        found = score_predictions(tfpf.Predictions(labels, sure, "linear"), [1])
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("metric", ["f1", "balanced_accuracy"])
def test_a_threshold_moves_decisions_and_nothing_else(metric, wine):
    data, network = wine
    split, counts = data.split, data.split.counts
    validation = data.inputs, data.labels
    plain = way_scores("as it is", network, counts, split, validation)
    moved = way_scores(f"threshold for {metric}", network, counts, split, validation)
    thresholds = tfpf.choose_thresholds(network, validation, metric, minority=[2])
    predictions = predictions_of(network, (split.test_inputs, split.test_labels))
    decided = thresholds.decide(predictions.probabilities)
    expected = tfpf.classification_scores(split.test_labels, decided, 3, [2])
    for name in ("f1", "macro_f1", "balanced_accuracy"):
        assert moved[name] == pytest.approx(expected[name], abs=1e-4)
    assert moved["recall"] == pytest.approx(expected["recall"][2], abs=1e-4)
    for name in ("average_precision", "roc_auc", "log_loss", "calibration_error"):
        assert moved[name] == plain[name]


def test_the_uniform_prior_is_logit_adjustment(wine):
    data, network = wine
    split, counts = data.split, data.split.counts
    found = way_scores("uniform prior", network, counts, split, None)
    adjusted = tfpf.adjust_logits(network, counts)
    assert found == way_scores("as it is", adjusted, counts, split, None)
    same = way_scores("training prior", network, counts, split, None)
    assert same == way_scores("as it is", network, counts, split, None)


@pytest.mark.slow
def test_a_run_and_its_tables(tmp_path):
    path, data = tmp_path / "results.jsonl", _wine()
    run_resplit(data, Results(path), passes=5, epochs=2)
    text = path.read_text()
    lines = {line["arm"]: line for line in map(json.loads, text.splitlines())}
    assert list(lines) == list(HEADS)
    for head, line in lines.items():
        assert tuple(line["ways"]) == HEADS[head]
        for name in SCORES:
            values = line[name]
            assert len(values) == len(HEADS[head]), (head, name)
            assert all(0 <= v <= 1 for v in values) or name == "log_loss"
    # A head that was taken back is the network as trained.
    plain = lines["as trained"]
    for line in lines.values():
        if line.get("kept") is False:
            assert [line[n][0] for n in SCORES] == [plain[n][0] for n in SCORES]
    assert all(lines[head]["kept"] for head in ("default", "paper", "SMOTE"))
    assert lines["target uniform"]["blend"] == lines["paper"]["blend"] == 0

    # What is there is not run again, and what is torn is.
    run_resplit(data, Results(path), passes=5, epochs=2)
    assert path.read_text() == text
    torn = text.splitlines()[:-1]
    path.write_text("\n".join(torn) + "\n" + text.splitlines()[-1][:40])
    run_resplit(data, Results(path), passes=5, epochs=2)
    again = json.loads(path.read_text().splitlines()[-1])
    last = json.loads(text.splitlines()[-1])
    assert again | {"seconds": 0} == last | {"seconds": 0}

    tables = report("table", read_runs(path)["table"])
    f1 = 100 * plain["f1"][0]
    assert tables.startswith("## table: 1 sets, 1 re-splits")
    assert re.search(rf"\| as trained \|.* {f1:.1f} ± nan \|", tables)


@pytest.mark.slow
def test_networks_with_dropout_have_lines_of_their_own(tmp_path):
    results, data = Results(tmp_path / "results.jsonl"), _wine()
    for dropout in (False, True, True):
        run_resplit(data, results, dropout, heads=("as trained",), passes=1)
    assert list(read_runs(results.path)) == ["table", "table, dropout"]
    assert len(results.path.read_text().splitlines()) == 2


@pytest.mark.slow
def test_smote_is_skipped_where_a_class_is_too_small(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 5])
    inputs = rng.normal(size=[65, 2]).astype(np.float32)
    split = Split("table", "few", 0, inputs, labels, inputs, labels)
    results = Results(tmp_path / "results.jsonl")
    run_resplit(Resplit(split, inputs, labels), results, heads=("SMOTE",), passes=1)
    line = json.loads(results.path.read_text())
    assert line["skipped"] == ("SMOTE needs 6 examples of each class; the rarest has 5")
    assert "f1" not in line
    runs = read_runs(results.path)["table"]
    assert runs.scores(("SMOTE", "as it is"), "f1") == {}


def _made_up():
    """Two heads on three sets, two re-splits each: {(set, re-split, head): line}."""
    lines = {}
    for place, name in enumerate(_SETS):
        for number in (0, 1):
            base = 0.2 * place + 0.1 * number
            gain = (0.05, -0.01, 0.10)[place]
            trained = {score: [base, base + 0.02] for score in SCORES}
            default = {score: [base + gain + 0.01 * number] for score in SCORES}
            ways = ["as it is", "threshold for f1"]
            for head, some, scores in (
                ("as trained", ways, trained),
                ("default", ways[:1], default),
                ("guarded by f1", ways[:1], {k: v[:1] for k, v in trained.items()}),
            ):
                lines[name, number, head] = _line(name, number, head, some, **scores)
    return lines


def test_tables_are_those_computed_by_hand():
    runs = Runs(_made_up())
    trained, default = ("as trained", "as it is"), ("default", "as it is")
    np.testing.assert_allclose(runs.means(trained, "f1"), [0.05, 0.25, 0.45])
    np.testing.assert_allclose(runs.gains(default, trained, "f1")["a"], [0.05, 0.06])
    gains = runs.mean_gains(default, trained, "f1")
    np.testing.assert_allclose(gains, [0.055, -0.005, 0.105])
    assert p_value(gains) == stats.wilcoxon(gains).pvalue == 0.5
    assert np.isnan(p_value(np.zeros(3)))

    text = report("table", runs)
    assert text.startswith("## table: 3 sets, 2 re-splits")
    # Means 0.05, 0.25, 0.45: 0.25 with a standard error of 0.2 / sqrt(3).
    assert "| as trained | 25.0 ± 11.5 | 25.0 ± 11.5 |" in text
    # 5.5, -0.5 and 10.5: 5.17 with one of 5.51 / sqrt(3).
    assert "| default | +5.2 ± 3.2 | 2 / 1 | 0.5 | +5.2 ± 3.2 | 2 / 1 | 0.5 |" in text
    # The moved threshold has 2 points more than as trained.
    assert "| default | +5.2 ± 3.2 | 0.5 | +3.2 ± 3.2 | 0.5 |" in text
    # Set a: 5 and 6, 5.5 with a standard error of 0.5, which is beyond two of them.
    assert "| a | 5 | 5.0 | **+5.5 ± 0.5** |" in text
    assert "| b | 5 | 25.0 | -0.5 ± 0.5 |" in text
    assert "| sets better by more than two errors |  |  | 2 |" in text
    assert "| sets worse by more than two errors |  |  | 0 |" in text
    # Nothing stayed; the default rises in five of six and ties in one.
    assert "| guarded by f1 | 0 | 6 | - | +5.2 (4, 1) |" in text


def test_an_arm_counts_where_it_ran_on_every_resplit():
    lines = _made_up()
    del lines["a", 1, "default"]
    lines["b", 0, "default"] = {**lines["b", 0, "default"], "ways": [], "f1": []}
    runs = Runs(lines)
    arm = ("default", "as it is")
    assert list(runs.scores(arm, "f1")) == ["c"]
    np.testing.assert_allclose(
        runs.mean_gains(arm, ("as trained", "as it is"), "f1"), [0.105]
    )


def test_the_last_of_two_lines_stands(tmp_path):
    path = tmp_path / "results.jsonl"
    lines = [_line("a", 0, "default", ["as it is"], f1=[value]) for value in (0.1, 0.2)]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"kind": "tab')
    runs = read_runs(path)["table"]
    assert runs.scores(("default", "as it is"), "f1")["a"].tolist() == [0.2]
