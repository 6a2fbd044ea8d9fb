"""Counts, percentiles, and how deep a name may be prefetched."""

from __future__ import annotations

import pytest

from poolmgr.core.measurements import RunTimes, Statistics, percentiles


def test_percentiles_by_nearest_rank() -> None:
    assert percentiles([]) == {"p50": None, "p95": None, "p99": None}
    assert percentiles([3.0]) == {"p50": 3.0, "p95": 3.0, "p99": 3.0}
    assert percentiles(range(100, 0, -1)) == {"p50": 50, "p95": 95, "p99": 99}
    assert percentiles([1.0, 2.0]) == {"p50": 1.0, "p95": 2.0, "p99": 2.0}


@pytest.mark.parametrize(
    ("run_s", "depth"), [(0.0, 64), (1e-6, 64), (14e-6, 64), (0.0002, 5), (0.00034, 2), (0.0011, 1), (30.0, 1)]
)
def test_depth_is_a_millisecond_of_work_and_at_most_64(run_s: float, depth: int) -> None:
    times = RunTimes()
    for _ in range(16):
        assert times.depth == 1, "unknown until there are samples enough"
        times.add([run_s])
    assert times.depth == depth


def test_it_is_the_95th_percentile_that_counts() -> None:
    rare, common = RunTimes(), RunTimes()
    for number in range(128 + 64):
        rare.add([0.5 if number % 32 == 0 else 1e-5])
        common.add([0.5 if number % 16 == 0 else 1e-5])
    assert (rare.depth, common.depth) == (64, 1)


def test_a_slow_run_of_a_fast_name_is_noticed_at_once() -> None:
    times = RunTimes()
    for _ in range(16):
        times.add([1e-5])
    times.add([0.5])
    times.add([0.5])
    assert times.depth == 1


def test_a_name_that_has_become_fast_is_trusted_again() -> None:
    times = RunTimes()
    for _ in range(20):
        times.add([1.0])
    for _ in range(256):
        times.add([1e-5])
    assert times.depth == 64


def test_throughput_is_of_the_last_minute() -> None:
    statistics = Statistics()
    assert statistics.throughput_per_s(5.0) == 0.0
    statistics.mark(0.0)
    assert statistics.throughput_per_s(0.0) == 0.0
    for second in range(1, 201):
        statistics.executed += 10 if second <= 100 else 2
        statistics.mark(float(second))
    assert statistics.throughput_per_s(200.0) == pytest.approx(2.0)


def test_reuse_is_the_share_of_tasks_that_were_not_the_first_of_their_process() -> None:
    statistics = Statistics()
    assert statistics.reuse_rate() == 1.0
    statistics.executed, statistics.first_of_process = 1000, 20
    assert statistics.reuse_rate() == pytest.approx(0.98)
