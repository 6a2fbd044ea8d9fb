"""Which workers leak, and which do not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from poolmgr.core.memory_trend import MemoryTrend

LIMIT_MB = 500.0


def first_crossing(levels: Sequence[float], limit_mb: float = LIMIT_MB) -> int | None:
    """After which of these levels it is said to cross the limit soon."""
    trend = MemoryTrend()
    for executed, used_mb in enumerate(levels):
        trend.add(executed, used_mb)
        if trend.crosses(limit_mb):
            return executed
    return None


@pytest.mark.parametrize("leak_mb", [0.01, 0.1, 1.0, 5.0, 20.0, 60.0, 120.0, 170.0])
def test_a_steady_leak_is_seen_in_time_and_not_long_before(leak_mb: float) -> None:
    levels = [5 + leak_mb * number for number in range(int(600 / leak_mb))]
    found = first_crossing(levels)
    assert found is not None
    assert levels[found] <= LIMIT_MB, "it would be over the limit"
    assert levels[found] + leak_mb > 0.7 * LIMIT_MB, "it had long to go"


@pytest.mark.parametrize(
    "levels",
    [
        [5.0, 450.0] + 50 * [450.0],  # a model, loaded with the first task
        [5.0, 150.0, 250.0, 320.0] + 50 * [340.0],  # a cache that fills
        [5.0, 490.0, 5.0, 5.0, 5.0] * 20,
        [300.0 + number % 3 for number in range(50)],
        [480.0 + number % 3 for number in range(50)],
        [2.0 * number for number in range(100)],  # far from it
        [450.0 - number for number in range(50)],
    ],
)
def test_what_does_not_grow_on_is_left_alone(levels: list[float]) -> None:
    assert first_crossing(levels) is None


def test_noise_hides_no_leak() -> None:
    levels = [5 + 10 * number + (37, 0, 11, 25)[number % 4] for number in range(60)]
    found = first_crossing(levels)
    assert found is not None
    assert levels[found] <= LIMIT_MB


def test_of_two_figures_after_the_same_task_the_later_counts() -> None:
    trend = MemoryTrend()
    for executed, used_mb in [(1, 100.0), (1, 300.0), (2, 300.0), (2, 90.0), (3, 90.0), (4, 95.0), (5, 90.0)]:
        trend.add(executed, used_mb)
    assert not trend.crosses(170.0)
