"""What the figures show: the right numbers, in the right places."""

import math

import numpy as np
import pytest
import scipy.stats

from examples.figures import (
    ARM_LABELS,
    SCORE_LABELS,
    arm_score,
    arms_of,
    feature_space_figure,
    mean_and_error,
    scores_figure,
    spread_over,
    trunk_means,
)


def result(arm, accuracy, minor=5, episode=0, seed=0, **changes):
    run = {"num_minority": minor, "episode": episode, "seed": seed, "arm": arm}
    scores = dict.fromkeys(SCORE_LABELS, accuracy)
    return {"experiment": "toy", **run, **scores, **changes}


def test_a_mean_and_its_error_against_scipy():
    values = np.random.default_rng(0).normal(size=7)
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(values.mean())
    assert error == pytest.approx(scipy.stats.sem(values))
    assert mean_and_error([*values, None, math.nan]) == (mean, error)


@pytest.mark.filterwarnings("error")
def test_too_few_values_have_no_error():
    mean, error = mean_and_error([0.5])
    assert mean == 0.5
    assert math.isnan(error)
    assert all(map(math.isnan, mean_and_error([])))
    assert all(map(math.isnan, mean_and_error([None])))


def test_trunk_means_are_over_head_seeds():
    results = [
        result("smote", 0.4, seed=0),
        result("smote", 0.5, seed=1),
        result("smote", 0.9, minor=2),
        result("smote", None, episode=1),
        result("default", 0.1),
    ]
    means = trunk_means(results, "smote", "accuracy")
    assert math.isnan(means.pop((5, 1)))
    assert means == {(5, 0): pytest.approx(0.45), (2, 0): pytest.approx(0.9)}


@pytest.mark.parametrize(
    ("runs", "unit", "error"),
    [
        ([(5, 0, 0)], None, math.nan),
        ([(1, 0, 0), (2, 0, 0)], None, math.nan),
        ([(5, 0, 0), (5, 0, 1)], "head seeds", 0.05),
        ([(5, 0, 0), (5, 1, 0)], "trunks", 0.05),
        ([(1, 0, 0), (1, 0, 1), (2, 0, 0)], "trunks", 0.075),  # of 0.05 and 0.2
        ([(None, 0, 0), (None, 1, 0)], "trunks", 0.05),
    ],
)
def test_what_an_error_is_over(runs, unit, error):
    results = [result("smote", 0.1 * i, *run) for i, run in enumerate(runs)]
    assert spread_over(results) == unit
    found = arm_score(results, "smote", "accuracy")[1]
    assert found == pytest.approx(error, nan_ok=True)


def test_arms_are_in_the_order_of_the_labels():
    arms = ["b", "oracle", "a", "smote", "b", "baseline"]
    results = [result(arm, 0.5) for arm in arms]
    assert arms_of(results) == ["baseline", "smote", "oracle", "b", "a"]


def curves(axes):
    """{label: (x, y, half bars)} of what a panel shows, in its units."""
    found = {}
    for container in axes.containers:
        line, _, bars = container
        segments = [segment for bar in bars for segment in bar.get_segments()]
        halves = [np.ptp(segment[:, 1]) / 2 for segment in segments if len(segment)]
        found[container.get_label()] = (*line.get_xydata().T, halves)
    return found


def test_lines_over_the_number_of_rare_classes():
    results = [
        result("default", 0.5, minor=1, episode=0, seed=0),
        result("default", 0.7, minor=1, episode=0, seed=1),  # episode 0: 0.6
        result("default", 0.8, minor=1, episode=1),  # mean 0.7, error 0.1
        result("default", 0.3, minor=9),
        result("smote", 0.4, minor=9, geometric_mean=None),
        result("smote", 0.5, minor=1, geometric_mean=0.2),
        result("gaussian", 0.5, minor=1),
    ]
    figure = scores_figure(results)
    accuracy, geometric_mean, *_ = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == [*SCORE_LABELS.values()]
    shown = curves(accuracy)
    assert set(shown) == {ARM_LABELS["default"], ARM_LABELS["smote"]}
    x, y, halves = shown[ARM_LABELS["default"]]
    np.testing.assert_allclose(x, [1, 9], atol=0.2)
    np.testing.assert_allclose(y, [70, 30])
    np.testing.assert_allclose(halves, [10, 0])
    np.testing.assert_allclose(curves(accuracy)[ARM_LABELS["smote"]][1], [50, 40])
    np.testing.assert_allclose(
        curves(geometric_mean)[ARM_LABELS["smote"]][1], [20, np.nan]
    )
    assert len(figure.legends) == 1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [ARM_LABELS["smote"], ARM_LABELS["default"]]
    assert "standard error over episodes" in figure.get_supylabel()
    assert figure.get_suptitle() == "toy"


def test_no_two_lines_look_alike():
    arms = ("baseline", "under_sampling", "smote", "perturbed", "proposed", "default")
    figure = scores_figure([result(a, 0.5, minor=m) for a in arms for m in (1, 2)])
    lines = [container[0] for container in figure.axes[0].containers]
    assert len({line.get_color() for line in lines}) == 6
    assert len({line.get_marker() for line in lines}) == 6
    assert "error" not in figure.get_supylabel()


@pytest.mark.parametrize("minor", [5, None])
def test_one_minor_gets_dots_for_all_arms_and_a_line_for_the_oracle(minor):
    results = [
        result("baseline", 0.5, minor),
        result("gaussian", 0.6, minor, seed=0),
        result("gaussian", 0.7, minor, seed=1),
        result("mystery", None, minor),
        result("oracle", 0.9, minor),
    ]
    figure = scores_figure(results)
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["as trained", "Gaussian, warm head", "mystery"]
    dots = [container[0].get_xydata() for container in axes.containers]
    np.testing.assert_allclose(np.ravel(dots), [50, 0, 65, 1, np.nan, 2])
    oracle = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in oracle] == [[90, 90]]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first arm on top
    assert "standard error over head seeds" in figure.get_supxlabel()


def test_one_run_is_called_so():
    figure = scores_figure([result("baseline", 0.5)])
    assert figure.get_supxlabel() == "percent; one run"


@pytest.mark.parametrize(
    "results",
    [[], [result("default", 0.5), result("default", 0.5, experiment="other")]],
)
def test_a_figure_is_of_one_experiment(results):
    with pytest.raises(ValueError, match=f"received {len(results)} results of"):
        scores_figure(results)


@pytest.mark.parametrize("minor", [5, None])
def test_the_feature_space_shows_every_point(minor, tmp_path):
    picture = {
        "experiment": "toy",
        "num_minority": minor,
        "episode": 2,
        "class_id": 3,
        "real": [[0, 1], [1, 0]],
        "pseudo": [[0.5, 0.5]] * 1200,
        "test": [],
    }
    figure = feature_space_figure(picture)
    (axes,) = figure.axes
    shown = {points.get_label(): points for points in axes.collections}
    assert list(shown) == [
        "1,200 pseudo-features",
        "0 test examples",
        "2 real training examples",  # last, so on top
    ]
    real = shown["2 real training examples"]
    np.testing.assert_array_equal(real.get_offsets(), picture["real"])
    assert real.get_sizes() > shown["1,200 pseudo-features"].get_sizes()
    title = axes.get_title("left")
    assert "class 3, episode 2" in title
    assert ("#Minor 5" in title) == (minor == 5)
    figure.savefig(tmp_path / "figure2.png")
    assert (tmp_path / "figure2.png").stat().st_size > 1000
