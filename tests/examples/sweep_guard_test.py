"""Tests for examples/sweep_guard.py: a real line, and a table that a hand counts."""

import json

import pytest

from examples.compare import Results
from examples.deployment import resplit
from examples.natural_sets import bundled_sets
from examples.sweep_guard import SCORES, guard_table, run_guard


@pytest.mark.slow
def test_a_line_has_what_a_guard_would_need(tmp_path):
    results = Results(tmp_path / "guard.jsonl")
    data = resplit("wine", *bundled_sets()["wine"], 0)
    for _ in range(2):  # the second finds it there
        run_guard(data, results, passes=3, epochs=2)
    (line,) = map(json.loads, results.path.read_text().splitlines())
    assert (line["experiment"], line["episode"]) == ("wine", 0)
    for score in SCORES:
        numbers = line[score]
        assert all(0 <= n <= 1 for n in numbers["validation"] + numbers["test"])
        assert numbers["error"] is None or numbers["error"] >= 0


def written(path, **sets):
    """Each set: (validation gain, error, test gain) of every re-split."""
    with open(path, "w") as file:
        for name, gains in sets.items():
            for episode, (gain, error, test) in enumerate(gains):
                score = {"validation": [0.5, 0.5 + gain], "error": error}
                score["test"] = [0.5, 0.5 + test]
                line = {"experiment": name, "episode": episode}
                file.write(json.dumps(line | dict.fromkeys(SCORES, score)) + "\n")
    return path


def row(table, confidence):
    (line,) = (
        line
        for line in table.splitlines()
        if line.startswith(f"| balanced accuracy | {confidence} |")
    )
    return [cell.strip() for cell in line.split("|")[3:-1]]


def test_what_a_guard_keeps_is_counted_by_hand(tmp_path):
    table = guard_table(
        written(
            tmp_path / "guard.jsonl",
            a=[(0.10, 0.01, 0.08), (0.02, 0.05, 0.04)],
            b=[(0.10, 0.05, -0.06), (-0.10, 0.01, 0.02), (0.0, 0.0, 0.5)],
        )
    )
    assert row(table, "no guard") == [
        *("2 of 2", "+6.00"),
        *("3 of 3", "2 / 1", f"{100 * (-0.06 + 0.02 + 0.5) / 3:+.2f}"),
    ]
    assert row(table, 0.5) == ["2 of 2", "+6.00", "1 of 3", "0 / 1", "-2.00"]
    assert row(table, 0.8) == ["1 of 2", "+4.00", "1 of 3", "0 / 1", "-2.00"]
    assert row(table, 0.975) == ["1 of 2", "+4.00", "0 of 3", "0 / 0", "+0.00"]
    assert table.count("\n") == 1 + 4 * 8


@pytest.mark.parametrize("error", [None, float("nan")])
def test_a_gain_of_which_no_error_is_known_is_chance(tmp_path, error):
    path = written(tmp_path / "guard.jsonl", a=[(0.1, error, 0.1)], b=[(0.1, 0.0, 0.1)])
    assert row(guard_table(path), 0.8)[0] == "0 of 1"
    assert row(guard_table(path), 0.5)[0] == "1 of 1"
