"""Each benchmark runs, at toy size: no timing is looked at."""

import functools
import gc
import json
import time

import numpy as np
import pytest

from benchmarks import (
    densities,
    extraction,
    fitting,
    growth,
    memory,
    race,
    retraining,
    sampling,
    spilling,
    streaming,
    table,
    tuning,
)
from tests.paths import ROOT

TOYS = {
    "fitting": lambda: fitting.measure([("full", 200, 4), ("diag", 200, 4)], rounds=1),
    "sampling": lambda: sampling.measure(60, sizes=(4,), rounds=1),
    "densities": lambda: densities.measure([(8, 3, 4)], rounds=1),
    "extraction": lambda: extraction.measure(16, depth=8, batch_size=8, rounds=1),
}
SLOW = {
    "streaming": lambda: streaming.measure([(300, 43)], size=4, rounds=1),
    "tuning": lambda: tuning.measure(200, feature_size=4, rounds=1),
    "retraining": lambda: retraining.measure(300, depth=8),
    "memory": lambda: memory.measure(rows=(500,), sizes=(4,), multipliers=(1, 10)),
    "growth": lambda: growth.measure(
        [(500, 4, 20, "tied", None)], [(3, 4, 20, "low_rank", 2)]
    ),
    "spilling": lambda: spilling.measure(4096, 4, 512, small_rows=500, rounds=1),
}


@pytest.fixture(autouse=True, scope="module")
def _little_garbage_to_look_through():
    """A race looks for garbage before each run, here among what other tests left."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr(race, "_PAUSE", 0)


def check(measured):
    assert measured
    assert any(m.role == "ours" for m in measured)
    assert all(m.low <= m.value <= m.high and m.runs >= 1 for m in measured)
    lines = table.markdown(measured).splitlines()
    assert len(lines) - 2 == len({(m.question, m.setting) for m in measured})
    return lines


@pytest.mark.parametrize("name", TOYS)
def test_a_benchmark_runs(name):
    assert len(check(TOYS[name]())) > 2  # rows, below the two of the head


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_benchmark_of_some_seconds_runs(name):
    assert len(check(SLOW[name]())) > 2


@pytest.mark.slow
def test_what_a_cluster_needs_is_reckoned_from_what_rows_cost():
    pytest.importorskip("apache_beam")
    from benchmarks import cluster

    costs = [
        *cluster.measure_moments([(9000, 4, 3, "full")]),
        *cluster.measure_trunk(8, depth=8, large=0),
    ]
    assert [cost.where for cost in costs] == [
        *("one machine", "Beam", "Beam, shards alone"),
        *("one machine", "Beam"),
    ]
    assert all(cost.per_million == cost.seconds / cost.rows * 1e6 for cost in costs)
    lines = cluster.reckon(
        "set", 10**9, 2048, 1000, moments={"tied": 7.2}, trunk=3600, bundles=2
    )
    assert "1,000 CPU hours" in lines[1]
    assert lines[2].endswith("7.46 TiB")  # 8,200 bytes a row
    said = [" ".join(line.split()) for line in lines[3:]]
    assert said[0].startswith("moments, full not measured, accumulator 31.3 GiB")
    assert said[1] == (
        "moments, tied 2.0 CPU hours, accumulator 47.6 MiB, 95.3 MiB sent by 2 bundles"
    )
    assert "diag not measured, accumulator 31.3 MiB" in said[2]
    assert "low_rank not measured, accumulator 156 MiB" in said[3]


def sleeping(name, role, seconds):
    return race.Contender(name, functools.partial(time.sleep, seconds), role)


def test_the_table_has_ratios_to_ours():
    measured = [
        race.measurement("q", "s", sleeping(name, role, 0), runs)
        for name, role, runs in [
            ("ours", "ours", [0.1, 0.2, 9.0]),
            ("least", "floor", [0.1]),
            ("other", "peer", [0.5]),
        ]
    ]
    assert measured[0].value == 0.2
    (line,) = check(measured)[2:]
    assert line == "| q | s | 200 ms | 2 x (least) | other 2.5 x |"


def test_results_are_kept_for_the_machine_that_made_them(tmp_path):
    path = tmp_path / "new" / "results.json"
    assert table.read_json(path) == {}
    measured = {"naps": [race.measurement("q", "s", sleeping("a", "ours", 0), [0.1])]}
    table.write_json(path, measured)
    assert table.read_json(path) == measured
    saved = json.loads(path.read_text())
    assert saved["machine"] == table.machine()
    path.write_text(json.dumps(saved | {"machine": "another"}))
    assert table.read_json(path) == {}


def test_a_race_is_run_in_turns_after_a_round_to_warm_up():
    order = []
    contenders = [
        race.Contender(name, functools.partial(order.append, name)) for name in "ab"
    ]
    measured = race.race("q", "s", contenders, rounds=2)
    assert order == ["a", "b"] * 3
    assert [m.runs for m in measured] == [2, 2]


def test_a_slow_contender_is_run_once():
    slow, quick = race.race(
        "q", "s", [sleeping("a", "peer", 0.1), sleeping("b", "peer", 0)], seconds=0.1
    )
    assert (slow.runs, quick.runs) == (1, 7)
    assert slow.value > 0.09


def test_peak_memory_is_what_the_job_takes_beyond_what_was_there():
    # What is called first makes the job, here one that takes 80 MB.
    prepare = functools.partial(functools.partial, np.ones, 10_000_000)
    (measured,) = race.peak_memory("q", "s", [race.Contender("a", prepare)])
    assert 70 < measured.value < 100
    assert measured.unit == "MiB"


def test_the_readme_has_the_table_of_the_results():
    readme = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    content = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    rows = [row for rows in content["benchmarks"].values() for row in rows]
    lines = table.markdown([race.Measurement(**row) for row in rows]).splitlines()
    assert [line for line in lines if line not in readme] == []
    assert content["machine"] in readme
