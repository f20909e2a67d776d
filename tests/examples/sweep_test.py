"""The sweep on a tiny feature file, its grid against `fit_head` itself."""

import dataclasses
import json

import numpy as np
import pytest

import tf_pseudofeat as tfpf
from examples.compare import Results
from examples.figures import SCORE_LABELS
from examples.sweep import MATERIALS, Material, grid_scores, network_name, sweep
from examples.sweep_networks import (
    ORACLE,
    Recipe,
    best_recipes,
    read_networks,
    share,
)
from examples.sweep_tables import report
from examples.trunks import FeatureFile
from tests import heads
from tests.few_steps import heads_train_briefly  # noqa: F401

pytestmark = pytest.mark.usefixtures("heads_train_briefly")

_LOSS = "sparse_categorical_crossentropy"
_FEW = [
    Material(None, "plain", "Gaussians"),
    Material(10, "2 views", "none"),
    Material(10, "2 views", "Gaussians"),
    Material(30, "1 view", "over-sampling"),
    Material(30, "2 views", "Gaussians toward the pooled"),
    Material(10, "2 views", "Gaussians", "1,000 of each"),
    Material(10, "2 views", "Gaussians", "twice"),
]


@pytest.fixture(scope="module")
def file():
    rng = np.random.default_rng(0)
    means = rng.normal(size=[3, 4]).astype("float32")

    def draw(counts):
        labels = np.repeat([0, 1, 2], counts)
        noise = rng.normal(size=[labels.size, 4]).astype("float32")
        return means[labels] + noise, labels

    features, labels = draw([60, 40, 12])
    test_features, test_labels = draw([50, 50, 50])
    removed_features, removed_labels = draw([0, 20, 48])
    views = features + rng.normal(scale=0.3, size=[2, *features.shape])
    return FeatureFile(
        features=features,
        labels=labels,
        test_features=test_features,
        test_labels=test_labels,
        minority=np.array([2]),
        kernel=means.T,
        bias=np.array([1.0, 0.5, -1.0], "float32"),
        view_features=views.astype("float32"),
        removed_features=removed_features,
        removed_labels=removed_labels,
        place={"experiment": "toy", "num_minority": 1, "episode": 0},
    )


@pytest.fixture(scope="module")
def lines(file, tmp_path_factory):
    """The lines of a sweep that ran twice."""
    path = tmp_path_factory.mktemp("sweep") / "results.jsonl"
    sweep(file, "toy", range(1), Results(path), _FEW)
    before = path.read_text()
    sweep(file, "toy", range(1), Results(path), _FEW)
    assert path.read_text() == before
    return {line["arm"]: line for line in map(json.loads, before.splitlines())}


@pytest.mark.slow
def test_a_line_for_each_head(lines):
    assert list(lines) == ["as trained", *map(str, _FEW), "oracle"]
    assert lines["10 a class, 2 views, none"]["forward_passes"] == 60
    assert lines["30 a class, 1 view, over-sampling"]["forward_passes"] == 72
    assert lines["all a class, plain, Gaussians"]["drawn"] == 20 + 48
    assert lines["10 a class, 2 views, Gaussians to twice"]["drawn"] == 20
    filled = lines["10 a class, 2 views, Gaussians to 1,000 of each"]
    assert filled["drawn"] == 3000 - 60


@pytest.mark.slow
def test_a_balanced_subset_needs_no_source(lines):
    same = lines["10 a class, 2 views, Gaussians"]["same_as"]
    assert same == "10 a class, 2 views, none"


def fitted(file, **options):
    head, training = file.head(), tfpf.LabeledFeatures(file.features, file.labels)
    heads.fit(head, training, num_classes=3, loss=_LOSS, epochs=5, **options)
    return head


@pytest.fixture(scope="module")
def new_weights(file):
    return fitted(file).layers[-1].get_weights()


@pytest.mark.slow
@pytest.mark.parametrize(("blend", "tau"), [(0.0, 0.0), (0.3, 0.8), (0.7, 1.25)])
def test_the_grid_is_that_of_fit_head(file, new_weights, blend, tau):
    found = grid_scores(file, *new_weights, [blend], [tau])
    both = fitted(file, blend=blend, tau=tau)
    predicted = both.predict(file.test_features, verbose=0).argmax(axis=-1)
    expected = tfpf.classification_scores(file.test_labels, predicted, 3, [2])
    for score in SCORE_LABELS:
        assert found[score] == [[round(1e4 * expected[score])]]


@pytest.mark.slow
def test_the_old_head_is_logit_adjustment(file, lines):
    head = tfpf.adjust_logits(file.head(), np.bincount(file.labels), tau=1.0)
    predicted = head.predict(file.test_features, verbose=0).argmax(axis=-1)
    found = lines["as trained"]
    column = found["taus"].index(1.0)
    accuracy = np.mean(predicted == file.test_labels)
    assert found["accuracy"][0][column] == round(1e4 * accuracy)


def test_materials_are_told_apart():
    assert len(set(map(str, MATERIALS))) == len(MATERIALS)
    for material in MATERIALS:  # what a line of a balanced subset names
        assert (
            dataclasses.replace(material, source="none", target="balance") in MATERIALS
        )


def test_network_name():
    assert network_name("a/net-1/features.npz") == "net-1"
    assert network_name("a/plain.npz") == "plain"


def written(path, network, heads, episode=0):
    """Lines of a network; `heads` is {arm: accuracies by tau}, for one blend."""
    with path.open("a") as file:
        for arm, accuracies in heads.items():
            taus = [0.0, 0.8, 1.0, 1.5, 2.0][: len(accuracies)]
            grid = {
                "network": network,
                "experiment": "toy",
                "num_minority": 5 if episode else None,
                "seed": 0,
                "arm": arm,
                "forward_passes": 10 * len(arm),
                "blends": [1.0 if arm == "as trained" else 0.0],
                "taus": taus,
            }
            row = [round(1e4 * accuracy) for accuracy in accuracies]
            scores = {score: [row] for score in SCORE_LABELS}
            file.write(json.dumps(grid | scores) + "\n")


def test_the_best_recipe_and_its_share(tmp_path):
    path = tmp_path / "results.jsonl"
    written(
        path,
        "net",
        {
            "as trained": [0.5, 0.55, 0.6, 0.6, 0.6],
            "oracle": [0.7],
            "50 a class, 1 view, none": [0.6, 0.65],
            "50 a class, 1 view, Gaussians": [0.66, 0.5],
        },
    )
    (network,) = read_networks(path)
    assert network.kind == "long tail"
    best = best_recipes([network])
    assert list(best) == [
        Recipe("50 a class, 1 view, Gaussians", 0.0, 0.0),
        Recipe("50 a class, 1 view, none", 0.0, 0.8),
    ]
    assert list(best.values()) == pytest.approx([80, 75])
    assert share([network], ORACLE, "accuracy") == 100


def test_the_report_confirms_on_other_networks(tmp_path):
    path = tmp_path / "results.jsonl"
    plain = "all a class, plain, Gaussians"
    for episode, gain in enumerate((0.15, 0.05)):
        heads = {
            "as trained": [0.5, 0.55, 0.6, 0.6, 0.6],
            "oracle": [0.7],
            plain: [0.6, 0.6],
            "50 a class, 2 views, none": [0.5 + gain, 0.5],
        }
        written(path, f"net{episode}", heads, episode)
    networks = read_networks(path)
    text = report(networks[:1], networks[1:])
    lines = text.splitlines()
    row = next(line for line in lines if line.startswith("| chosen: "))
    label, *cells = (cell.strip() for cell in row.strip("|").split("|"))
    assert label == "chosen: 50 a class, 2 views, none; blend 0, tau 0"
    assert cells[:4] == ["75", "75", "25", "25"]
    assert cells[-1] == "+5.0 (net1)"
