"""The benchmarks' arithmetic and tables. What runs is tests/integration/test_benchmarks.py's matter."""

from __future__ import annotations

import pytest

from benchmarks import report
from benchmarks.limits import Limit
from benchmarks.pairs import Pair, Spread, percentile, ratios, spread, tasks_for
from benchmarks.peers.measures import MEASURES
from benchmarks.rows import Row, number, reached
from benchmarks.scenarios import NAMES, SCENARIOS, Scenario


def scenario(name: str) -> Scenario:
    return next(each for each in SCENARIOS if each.name == name)


def row(name: str, peer: str, *pairs: tuple[float, float], failed: str = "") -> Row:
    found = scenario(name)
    fdatasync = [200.0] * len(pairs)
    return Row(found, found.figures[0], peer, [Pair(*pair) for pair in pairs], fdatasync, failed)


def test_a_spread_is_the_median_and_both_ends() -> None:
    assert spread([5, 1, 2]) == Spread(2, 1, 5)
    assert spread([4, 1]) == Spread(2.5, 1, 4)
    with pytest.raises(ValueError, match="no values"):
        spread([])


@pytest.mark.parametrize(("more_is_better", "ratio"), [(True, 3), (False, 1 / 3)])
def test_a_ratio_is_above_one_where_poolmgr_is_better(more_is_better: bool, ratio: float) -> None:
    assert Pair(theirs=100, ours=300).ratio(more_is_better=more_is_better) == ratio


def test_a_ratio_to_nothing_is_infinite() -> None:
    assert Pair(theirs=0, ours=1).ratio(more_is_better=True) == float("inf")


def test_ratios_are_of_pairs_and_not_of_medians() -> None:
    drifting = [Pair(1, 2), Pair(10, 20), Pair(100, 200), Pair(100, 50)]
    assert ratios(drifting, more_is_better=True) == Spread(2, 0.5, 2)


def test_a_percentile_is_one_of_the_values() -> None:
    values = list(range(1, 101))
    assert [percentile(values, each) for each in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7], 99) == 7
    assert percentile([1, 2, 3], 50) == 2
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_run_has_as_many_tasks_as_take_its_time() -> None:
    assert tasks_for(1.5, tried=100, took_s=0.1, most=10_000) == 1500
    assert tasks_for(1.5, tried=100, took_s=0.001, most=10_000) == 10_000
    assert tasks_for(1.5, tried=100, took_s=60, most=10_000) == 100, "never fewer than were tried"
    assert tasks_for(1.5, tried=100, took_s=0, most=10_000) == 10_000


def test_the_best_peer_is_the_one_against_which_poolmgr_looks_worst() -> None:
    rows = [row("map", "slow", (10, 100_000), (10, 100_000)), row("map", "fast", (50_000, 100_000), (50_000, 90_000))]
    found = reached(rows)[0]
    assert (found.best, found.runs, found.ours) == ("fast", 4, Spread(100_000, 90_000, 100_000))
    assert found.aim == ">= 60,000 tasks/s, 2.5x the best peer"
    assert found.within is False, "only 1.9 times"


def test_the_compiled_build_is_told_of_and_is_no_peer() -> None:
    found = reached([row("map", "peer", (10_000, 70_000)), row("map", "compiled", (90_000, 70_000))])[0]
    assert (found.best, found.compiled, found.within) == ("peer", Spread(90_000, 90_000, 90_000), True)
    assert reached([row("map", "compiled", (90_000, 70_000))])[0].best == ""


@pytest.mark.parametrize(("ours", "within"), [(100, True), (200, False)])
def test_where_less_is_better_the_aim_is_a_limit(ours: float, within: bool) -> None:
    assert reached([row("latency", "peer", (300, ours))])[0].within is within


@pytest.mark.parametrize(("ours", "within"), [(340, True), (360, False)])
def test_a_durable_latency_is_compared_with_a_sync_of_the_same_disk(ours: float, within: bool) -> None:
    found = reached([row("durable-latency", "peer", (3000, ours))])[0]
    assert (found.aim, found.within) == ("<= 350 us", within)


def test_poolmgr_is_nobody_to_be_compared_with() -> None:
    found = reached([row("chunked", "poolmgr", (10, 10))])[0]
    assert (found.best, found.ratio, found.within) == ("", None, None)


def test_the_table_tells_what_failed_and_what_was_left_out() -> None:
    rows = [
        row("map", "good", (100, 250)),
        row("map", "bad", failed="it broke|\nat once"),
        row("durable", "good", (1, 2)),
    ]
    limits = [Limit("fork", 130.0, "us")]
    run = report.Run("today", {"processors": "2"}, limits, {"good": "1.0"}, {"gone": "No module named 'gone'"}, rows)
    table = report.table(run).splitlines()
    assert "| good | rate | no | 100 (100 to 100) | 250 (250 to 250) | tasks/s | 2.5 (2.5 to 2.5) | 1 |  |" in table
    assert "| bad | rate | no |  |  | tasks/s |  | 0 | it broke/ at once |" in table
    assert any(line.startswith("| good | rate | yes; a sync took 200 us | 1 (") for line in table)
    assert "- good: 1.0" in table
    assert "- gone: left out: No module named 'gone'" in table
    assert "| fork | 130 | us |" in table


def test_numbers_have_three_digits_or_more() -> None:
    assert [number(each) for each in (0.12345, 1.5, 99.94, 12345.6)] == ["0.123", "1.5", "99.9", "12,346"]


def test_every_scenario_has_a_measure_and_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {each.measure for each in SCENARIOS} == set(MEASURES)
