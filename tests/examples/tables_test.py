"""Tables of made-up results, against numbers worked out by hand and by scipy."""

import json
import math
import warnings

import numpy as np
import pytest
import scipy.stats

from examples.figures import ARM_LABELS, SCORE_LABELS
from examples.paired_tests import paired, paired_table
from examples.paper_tables import beside_paper, paper_tables, read_paper
from examples.results_file import read_results
from examples.tables import summary, write_tables
from examples.verdicts import verdicts
from tests import programs
from tests.paths import ROOT


def result(arm, accuracy, minor=5, episode=0, seed=0, experiment="toy", **scores):
    """One result, all of whose scores are `accuracy` where nothing else is said."""
    return {
        "kind": "result",
        "experiment": experiment,
        "num_minority": minor,
        "episode": episode,
        "seed": seed,
        "arm": arm,
        **dict.fromkeys(SCORE_LABELS, accuracy),
        **scores,
    }


def picture(**changes):
    points = {"real": [[0, 1], [1, 0]], "pseudo": [[0.5, 0.5]], "test": [[1, 1]]}
    trunk = {"experiment": "toy", "num_minority": 5, "episode": 0, "class_id": 3}
    return {"kind": "picture", **trunk, **points, **changes}


def write(path, *entries, tail=""):
    lines = [e if isinstance(e, str) else json.dumps(e) for e in entries]
    path.write_text("".join(f"{line}\n" for line in lines) + tail)
    return path


def rows_of(text):
    """{first cell: other cells} of the Markdown tables of a text."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


# Reading


def test_the_last_line_of_a_run_stands(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        result("smote", 0.1),
        result("smote", 0.2, seed=1),
        picture(class_id=3),
        result("smote", 0.3),
        picture(class_id=4),
    )
    results, pictures = read_results(path)
    assert [(r["seed"], r["accuracy"]) for r in results] == [(0, 0.3), (1, 0.2)]
    assert [p["class_id"] for p in pictures] == [4]


def test_files_are_read_as_one(tmp_path):
    a = write(tmp_path / "a.jsonl", result("smote", 0.1), result("default", 0.2))
    b = write(tmp_path / "b.jsonl", result("smote", 0.3))
    results, _ = read_results(a, b)
    assert [(r["arm"], r["accuracy"]) for r in results] == [
        ("smote", 0.3),
        ("default", 0.2),
    ]


@pytest.mark.parametrize("torn", ['{"kind": "result", "ex', "12", "]}", "\0\0\0"])
def test_torn_lines_are_skipped_with_a_warning(tmp_path, torn):
    path = write(
        tmp_path / "a.jsonl", result("smote", 0.1), torn, result("default", 0.2)
    )
    with pytest.warns(UserWarning, match=r"a.jsonl:2: skipped a torn line"):
        results, _ = read_results(path)
    assert [r["arm"] for r in results] == ["smote", "default"]
    path = write(tmp_path / "b.jsonl", result("smote", 0.1), tail=torn)
    with pytest.warns(UserWarning, match=r"b.jsonl:2: skipped a torn line"):
        results, _ = read_results(path)
    assert [r["arm"] for r in results] == ["smote"]


def test_a_character_torn_in_two_is_a_torn_line(tmp_path):
    path = write(tmp_path / "a.jsonl", result("smote", 0.1))
    path.write_bytes(path.read_bytes() + '{"experiment": "é'.encode()[:-1])
    with pytest.warns(UserWarning, match="torn"):
        assert len(read_results(path)[0]) == 1


def test_empty_lines_are_nothing(tmp_path):
    path = write(tmp_path / "a.jsonl", "", result("smote", 0.1), "", tail="\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_results(path)[0]) == 1


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone.jsonl.*examples.compare"):
        read_results(tmp_path / "gone.jsonl")


@pytest.mark.filterwarnings("ignore:.*torn")
@pytest.mark.parametrize(("text", "torn"), [("", 0), ("{", 1)])
def test_files_without_a_result_raise(tmp_path, text, torn):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ValueError, match=rf"a.jsonl.*no result \({torn} torn"):
        read_results(tmp_path / "a.jsonl")


def test_lines_that_are_no_results_raise(tmp_path):
    path = write(tmp_path / "a.jsonl", {"kind": "result", "arm": "smote"})
    with pytest.raises(ValueError, match=r"a.jsonl:1: a result without \['experiment'"):
        read_results(path)
    path = write(tmp_path / "b.jsonl", {"settings": {}})
    with pytest.raises(ValueError, match=r"b.jsonl:1: kind is None, expected.*result"):
        read_results(path)


# Summary


def test_scores_are_averaged_over_head_seeds_then_over_trunks():
    # Trunk means 0.5 (of two seeds) and 0.7 (of one): mean 0.6, where the mean of all
    # runs is 0.567; std 0.1414, over sqrt(2) is 0.1.
    text = summary(
        [
            result("smote", 0.4, episode=0, seed=0),
            result("smote", 0.6, episode=0, seed=1),
            result("smote", 0.7, episode=1, seed=0),
        ]
    )
    assert rows_of(text)["SMOTE"][0] == "**60.0 ± 10.0**"
    assert "over 2 trunks; a trunk's" in text


def test_with_one_trunk_the_error_is_over_head_seeds_and_the_caption_says_so():
    # 0.5, 0.6, 0.7: std 0.1, over sqrt(3) is 0.0577.
    text = summary([result("smote", 0.5 + 0.1 * s, seed=s) for s in range(3)])
    assert rows_of(text)["SMOTE"][0] == "**60.0 ± 5.8**"
    assert "one trunk; mean ± standard error over its 3 head seeds" in text


@pytest.mark.parametrize(
    ("minors", "words"), [([5], "one run."), ([1, 2, 3], "one run for each #Minor.")]
)
def test_what_ran_once_has_no_error(minors, words):
    text = summary([result("smote", 0.1 * m, minor=m) for m in minors])
    assert words in text
    assert "±" not in text
    assert rows_of(text)["SMOTE"][0] == f"**{10 * np.mean(minors):.1f}**"


def test_the_share_of_the_gap_is_that_of_the_mean_accuracies():
    # Baseline (0.4 + 0.6) / 2 = 0.5, oracle 0.9, auto 0.75: 0.25 of 0.40.
    text = summary(
        [
            result("baseline", 0.4, episode=0),
            result("baseline", 0.6, episode=1),
            result("default", 0.7, episode=0),
            result("default", 0.8, episode=1),
            result("smote", 0.45, episode=0),
            result("smote", 0.45, episode=1),
            result("oracle", 0.9, episode=0),
            result("oracle", 0.9, episode=1),
        ]
    )
    shares = {arm: cells[-1] for arm, cells in rows_of(text).items()}
    assert shares["as trained"] == "0"
    assert shares["this package's default"] == "**62**"  # 62.5, to the even
    assert shares["SMOTE"] == "-12"
    assert shares["oracle (removed examples)"] == "100"


@pytest.mark.parametrize("oracle", [[], [result("oracle", 0.5)]])
def test_without_a_gap_its_share_is_blank(oracle):
    text = summary([result("baseline", 0.5), result("default", 0.6), *oracle])
    assert all(cells[-1] == "" for cells in list(rows_of(text).values())[2:])


def test_the_best_but_for_the_oracle_is_bold():
    text = summary(
        [
            result("smote", 0.5, min_class_accuracy=0.3),
            result("default", 0.50001, min_class_accuracy=0.2),
            result("oracle", 0.9),
        ]
    )
    rows = rows_of(text)
    # What looks the same is the same.
    assert rows["SMOTE"][0] == rows["this package's default"][0] == "**50.0**"
    assert rows["SMOTE"][3] == "**30.0**"
    assert rows["this package's default"][3] == "20.0"
    assert "**" not in "".join(rows["oracle (removed examples)"])


def test_an_arm_that_did_not_run_everywhere_says_so_and_is_never_best():
    results = [
        result(arm, accuracy - 0.1 * episode, episode=episode)
        for arm, accuracy in [("baseline", 0.5), ("smote", 0.6), ("oracle", 0.9)]
        for episode in (0, 1)
    ]
    rows = rows_of(summary([*results, result("default", 0.8, episode=0)]))
    cells = rows["this package's default (1 of 2 trunks)"]
    # The gap is that of episode 0: (0.8 - 0.5) / (0.9 - 0.5).
    assert cells == ["80.0"] * 4 + ["75"]
    assert rows["SMOTE"][0] == "**55.0 ± 5.0**"


def test_arms_stand_in_the_order_of_the_labels_and_unknown_ones_last():
    arms = ["mystery", "oracle", "smote", "baseline"]
    rows = list(rows_of(summary([result(arm, 0.5) for arm in arms])))[2:]
    assert rows == [ARM_LABELS[a] for a in ("baseline", "smote", "oracle")] + [
        "mystery"
    ]


def test_undefined_scores_are_left_out():
    results = [
        result("smote", 0.5, seed=0, mean_minority_accuracy=None),
        result("smote", 0.5, seed=1, mean_minority_accuracy=0.3),
        result("default", 0.5, seed=0, mean_minority_accuracy=None),
    ]
    rows = rows_of(summary(results))
    assert rows["SMOTE"][2] == "**30.0**"
    assert rows["this package's default"][2] == "-"


def test_each_experiment_has_its_table():
    results = [result("smote", 0.5), result("smote", 0.7, experiment="other")]
    text = summary(results)
    assert text.index("**toy: all arms.**") < text.index("**other: all arms.**")
    assert rows_of(summary(results[:1]))["SMOTE"][0] == "**50.0**"


# The paper's tables


def test_the_tables_of_the_paper_have_a_column_for_each_minor():
    results = [
        result("smote", 0.6, minor=1, episode=0),
        result("smote", 0.5, minor=1, episode=1),  # #Minor 1: 0.55
        result("smote", 0.3, minor=3),
        result("baseline", 0.5, minor=1),
        result("baseline", 0.4, minor=3),
        result("proposed", 0.9, minor=1),
        result("gaussian", 0.9, minor=1),
    ]
    text = paper_tables(results)
    rows = rows_of(text)
    assert rows["method"] == ["1", "3", "average"]
    assert rows["SMOTE"] == ["55.0", "30.0", "42.5"]
    assert rows["as trained"] == ["50.0", "**40.0**", "**45.0**"]
    assert rows["proposed (paper's settings)"] == ["**90.0**", "-", "-"]
    assert "Gaussian, warm head" not in rows
    for number, name in enumerate(SCORE_LABELS.values(), start=1):
        assert f"**toy: Table {number}, {name}**" in text
    assert "mean of 1 to 2 episodes" in text


def test_a_long_tail_has_no_tables_of_the_paper():
    assert paper_tables([result("smote", 0.6, minor=None)]) == ""


# Beside the paper's numbers

PAPER = {
    "source": "a paper",
    "columns": ["num_minority", "baseline", "smote", "proposed"],
    "accuracy": [[1, 0.8, 0.81, 0.85], [5, 0.6, 0.62, 0.69]],
    "multiplicative_average": [[1, 0.7, 0.7, 0.75], [5, 0.5, 0.5, 0.6]],
    "mean_minority_accuracy": [[1, 0.4, 0.4, 0.5], [5, 0.3, 0.3, 0.4]],
    "min_class_accuracy": [[1, 0.2, 0.2, 0.3], [5, 0.1, 0.1, 0.2]],
}


def test_ours_stand_before_the_papers_where_both_have_a_number(tmp_path):
    source, paper = read_paper(write(tmp_path / "paper.json", PAPER))
    results = [
        result("baseline", 0.4, minor=5, episode=0, geometric_mean=0.3),
        result("baseline", 0.6, minor=5, episode=1, geometric_mean=0.3),
        result("proposed", 0.75, minor=5),
        result("default", 0.9, minor=5),  # the paper has none
        result("baseline", 0.9, minor=1),
        result("proposed", 0.8, minor=1),
        result("baseline", 0.9, minor=2),  # the paper has none
    ]
    text = beside_paper(results, paper, source, ["shorter"])
    first, second = text.split("**Table ")[1:3]
    rows = rows_of(first)
    assert rows["method"] == ["1", "5", "average"]
    assert rows["as trained"] == ["90.0 / 80", "50.0 / 60", "70.0 / 70.0"]
    assert rows["proposed (paper's settings)"][1] == "75.0 / 69"
    assert rows["proposed minus as trained"] == [
        "-10.0 / +5",
        "+25.0 / +9",
        "+7.5 / +7.0",
    ]
    auto = next(
        cells for label, cells in rows.items() if label.startswith("this package")
    )
    assert auto == ["-", "90.0", "-"]  # ours alone
    assert len(rows) == 6  # with the header's two
    assert rows_of(second)["as trained"][1] == "30.0 / 50"
    assert "- The paper's: a paper.\n" in text
    assert "- shorter\n" in text
    assert "3 networks for 2 numbers of minority classes" in text


def test_an_experiment_without_a_common_number_is_left_out(tmp_path):
    source, paper = read_paper(write(tmp_path / "paper.json", PAPER))
    results = [result("baseline", 0.5, minor=None), result("baseline", 0.5, minor=4)]
    assert beside_paper(results, paper, source) == ""


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        "[]",
        json.dumps({**PAPER, "columns": ["baseline"]}),
        json.dumps({**PAPER, "accuracy": [[1, 0.5]]}),
        json.dumps({key: PAPER[key] for key in ("source", "columns", "accuracy")}),
    ],
)
def test_a_file_that_is_not_of_the_papers_form_raises(tmp_path, broken):
    (tmp_path / "paper.json").write_text(broken)
    with pytest.raises(ValueError, match=r"paper.json: expected an object with"):
        read_paper(tmp_path / "paper.json")


def test_the_papers_tables_can_be_read():
    path = ROOT.parent / "shared" / "paper" / "tables.json"
    if not path.exists():
        pytest.skip("the paper's tables are not here")
    source, paper = read_paper(path)
    assert "1807.06538" in source
    for score in SCORE_LABELS:
        assert list(paper[score]) == list(range(1, 10))
    assert paper["accuracy"][5]["proposed"] == 0.69


# Paired differences


def test_pairs_are_trunks_against_scipy():
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(size=(2, 2, 3, 4))  # [arm][#Minor, episode, seed]
    results = [
        result(arm, float(values[i]), *i)
        for arm, values in (("default", ours), ("smote", theirs))
        for i in np.ndindex(values.shape)
    ]
    difference = paired(results, "default", "smote", "accuracy")
    first, second = (values.mean(axis=-1).ravel() for values in (ours, theirs))
    assert (difference.n, difference.unit) == (6, "trunks")
    assert difference.mean == pytest.approx(np.mean(first - second))
    assert difference.standard_error == pytest.approx(scipy.stats.sem(first - second))
    expected = scipy.stats.ttest_rel(first, second).pvalue
    assert difference.p_value == pytest.approx(expected)


def test_with_one_trunk_pairs_are_head_seeds_against_scipy():
    ours, theirs = [0.60, 0.64, 0.70, 0.61], [0.58, 0.65, 0.66, 0.57]
    results = [
        result(arm, value, seed=seed)
        for arm, values in (("default", ours), ("smote", theirs))
        for seed, value in enumerate(values)
    ]
    difference = paired(results, "default", "smote", "geometric_mean")
    assert (difference.n, difference.unit) == (4, "head seeds")
    # 0.02, -0.01, 0.04, 0.04: mean 0.0225, std 0.02363, over 2 is 0.01181.
    assert difference.mean == pytest.approx(0.0225)
    assert difference.standard_error == pytest.approx(0.0118145, rel=1e-4)
    expected = scipy.stats.ttest_rel(ours, theirs).pvalue
    assert difference.p_value == pytest.approx(expected)
    assert str(difference) == f"+2.2 ± 1.2 (p {expected:.3f})"
    text = paired_table(results, "default", ["smote"])
    assert rows_of(text)["SMOTE"] == [str(difference)] * 4 + ["4 head seeds"]
    assert "share one trunk" in text


def test_only_runs_of_both_are_paired():
    results = [
        result("default", 0.7, seed=0),
        result("default", 0.1, seed=1),
        result("default", 0.1, seed=2),
        result("default", 0.1, episode=1),
        result("smote", 0.6, seed=0),
        result("smote", None, seed=2),
        result("smote", 0.9, episode=1, seed=5),
    ]
    difference = paired(results, "default", "smote", "accuracy")
    assert (difference.n, difference.mean) == (1, pytest.approx(0.1))
    assert math.isnan(difference.standard_error)
    assert math.isnan(difference.p_value)
    assert str(difference) == "+10.0"
    assert rows_of(paired_table(results, "default", ["smote"]))["SMOTE"][-1] == "1 run"


def test_arms_without_a_common_run_have_no_difference():
    results = [result("default", 0.7), result("smote", 0.6, episode=1)]
    difference = paired(results, "default", "smote", "accuracy")
    assert difference.n == 0
    assert math.isnan(difference.mean)
    assert str(difference) == "-"
    assert "no run in common" in verdicts(
        [result("proposed", 0.7), result("smote", 0.6, episode=1)]
    )


def test_the_same_number_in_two_experiments_is_two_trunks():
    results = [
        result(arm, value, experiment=experiment)
        for arm, value in (("default", 0.7), ("smote", 0.6))
        for experiment in ("toy", "other")
    ]
    assert paired(results, "default", "smote", "accuracy").n == 2


@pytest.mark.filterwarnings("error")
def test_arms_that_are_the_same_have_no_p_value():
    results = [
        result(arm, 0.5, seed=s) for arm in ("default", "smote") for s in range(3)
    ]
    difference = paired(results, "default", "smote", "accuracy")
    assert (difference.mean, difference.standard_error) == (0, 0)
    assert math.isnan(difference.p_value)
    assert str(difference) == "+0.0 ± 0.0"


def test_a_paired_table_has_the_rivals_that_ran():
    results = [result(arm, 0.5) for arm in ("default", "smote", "baseline")]
    rows = rows_of(paired_table(results, "default", ["smote", "baseline", "crt"]))
    assert list(rows)[2:] == ["as trained", "SMOTE"]
    assert paired_table(results, "proposed", ["smote"]) == ""


# Verdicts


def test_verdicts_name_the_rivals_above_the_default():
    # Against the default: smote 0.10 and -0.01, mean 0.045, error 0.055: within one.
    # proposed 0.1 and 0.05 in the minimum, mean 0.075, error 0.025: above.
    results = [
        result("baseline", 0.5, episode=0),
        result("baseline", 0.5, episode=1),
        result("default", 0.75, episode=0),
        result("default", 0.75, episode=1),
        result("smote", 0.85, episode=0, min_class_accuracy=0.5),
        result("smote", 0.74, episode=1, min_class_accuracy=0.5),
        result("proposed", 0.70, episode=0, min_class_accuracy=0.85),
        result("proposed", 0.70, episode=1, min_class_accuracy=0.80),
        result("oracle", 0.9, episode=0),
        result("oracle", 0.9, episode=1),
    ]
    text = verdicts(results)
    assert "**toy: in words.**" in text
    assert (
        "The default closes 62 % of the gap in accuracy, from 50.0 as trained to 90.0"
        in (text)
    )
    label = ARM_LABELS["proposed"]
    rivals = f"{label}: min class accuracy +7.5 ± 2.5."
    assert "Of 3 rivals, above the default by more than one standard error" in text
    assert f"of the paired difference: {rivals}" in text
    # proposed - smote: -0.15 and -0.04, mean -0.095, error 0.055, t = -1.727; with one
    # degree of freedom p = 1 - 2 atan(1.727) / pi = 0.334.
    assert "proposed against SMOTE, over 2 trunks: not above in accuracy -9.5" in text
    assert "not above in geometric mean -9.5 ± 5.5 (p 0.334)" in text
    assert "; above in min class accuracy +32.5 ± 2.5 (p 0.049)." in text


def test_verdicts_of_one_run_say_that_it_has_no_error():
    text = verdicts([result("default", 0.5), result("smote", 0.6)])
    assert "The gap to the oracle is unknown: no result of as trained, oracle" in text
    assert (
        "by anything where one run has no standard error: SMOTE: accuracy +10" in text
    )
    assert "not compared: no result of proposed" in text


def test_verdicts_without_a_gap_or_without_rivals():
    text = verdicts([result(a, 0.5) for a in ("baseline", "default", "oracle")])
    assert "No gap to close: accuracy 50.0 as trained, 50.0 the oracle." in text
    assert "The default is not compared" in verdicts([result("default", 0.5)])
    assert "above the default by more" in text
    assert ": none." in text


# Files


def test_everything_is_written(tmp_path):
    results = [
        result(arm, 0.5, minor=minor, experiment=experiment)
        for arm in ("baseline", "smote", "proposed", "default", "oracle")
        for experiment, minors in (("A, b", [1, 2]), ("a b", [5]))
        for minor in minors
    ]
    text = write_tables(results, [picture(), picture(episode=1)], tmp_path / "new")
    folder = tmp_path / "new"
    assert (folder / "tables.md").read_text() == text
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert pictures == [
        "figure2_toy_minor5_episode0.png",
        "figure2_toy_minor5_episode1.png",
        "figure5_a_b.png",
        "figure5_a_b_2.png",  # two experiments, one slug
    ]
    assert all(f"({name})" in text for name in pictures)
    assert "A, b: Table 1" in text
    assert "a b: Table 1" not in text  # one #Minor is one column: the summary has it
    assert "oracle" not in text[text.index("minus each rival") :].split("##")[0]


def run(*flags):
    return programs.run("examples.tables", *flags)


def test_the_program_takes_files_by_flag_and_by_comma(tmp_path):
    a, b, c = (
        write(tmp_path / f"{name}.jsonl", result("default", 0.5, experiment=name))
        for name in "abc"
    )
    done = run(f"--results={a},{b}", f"--results={c}")
    assert done.returncode == 0, done.stderr[-3000:]
    for name in "abc":
        assert f"## {name}\n" in done.stdout
        assert (tmp_path / f"figure5_{name}.png").stat().st_size > 1000
    assert (tmp_path / "tables.md").read_text() in done.stdout


def test_the_program_sets_ours_beside_the_paper(tmp_path):
    a = write(tmp_path / "a.jsonl", result("baseline", 0.5))
    paper = write(tmp_path / "paper.json", PAPER)
    done = run(f"--results={a}", f"--paper={paper}", "--note=shorter", "--note=one")
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / "beside_the_paper.md").read_text()
    assert text in done.stdout
    assert "- shorter\n- one\n" in text
    assert not (tmp_path / "tables.md").exists()


def test_the_program_says_what_is_wrong(tmp_path):
    done = run(f"--results={tmp_path / 'gone.jsonl'}")
    assert done.returncode != 0
    assert "no results file" in done.stderr
    assert "Traceback" not in done.stderr
